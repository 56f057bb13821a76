"""Training on two machines: torchrun brings them together, both learn the same, one writes.

The machines are two network namespaces of this one, joined by a virtual cable, where the system
allows that; elsewhere two addresses of the loopback device. The test's properties say which it was.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist

from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.cli.main import main
from tests.train.checkpoints import differences
from tests.train.members import command, digest, environment
from tests.train.noise import NoiseCorpus

# Nothing here takes that long: what hangs shall fail.
_PATIENCE_S = 600

# Runs in a network namespace of its own, which is the first machine; makes the second one, and ends
# with both: namespaces without a name are gone with their last process.
_TWO_NAMESPACES = """
set -eu
unshare --net sleep 600 &
other=$!
trap 'kill $(jobs -p) 2> /dev/null' EXIT
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
there() { nsenter --target $other --net "$@"; }
ip link set lo up
there ip link set lo up
ip link add cable0 type veth peer name cable1 netns $other
ip address add 10.77.0.1/24 dev cable0
there ip address add 10.77.0.2/24 dev cable1
ip link set cable0 up
there ip link set cable1 up
if [ $# -gt 0 ]; then
  GLOO_SOCKET_IFNAME=cable0 bash -c "$1" &
  first=$!
  GLOO_SOCKET_IFNAME=cable1 there bash -c "$2"
  wait $first
fi
"""


def _run(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; nothing that it has started is left then."""
    process = subprocess.Popen(
        words,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=_PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return subprocess.CompletedProcess(words, process.returncode, output)


def _namespaces() -> list[str] | None:
    """How to enter a namespace in which two machines can be made; None where that is forbidden."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip", "bash"))):
        return None
    for rights in ([], ["--map-root-user"]):
        words = ["unshare", *rights, "--net", "bash", "-c", _TWO_NAMESPACES, "two-machines"]
        if subprocess.run(words, capture_output=True).returncode == 0:
            return words
    return None


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _torchrun(address: str, meeting_point: str, words: list[str]) -> list[str]:
    """The command of one machine; the one at the meeting point keeps what they agree on."""
    is_host = int(meeting_point.startswith(f"{address}:"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "two-hosts"]
    torchrun += ["--rdzv-endpoint", meeting_point, "--rdzv-conf", f"is_host={is_host}"]
    return [*torchrun, "--local-addr", address, "-m", *words]


@pytest.mark.slow
def test_two_machines_learn_what_two_processes_of_one_learn(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    for machine in ("first", "second", "alone"):
        NoiseCorpus(tmp_path / machine / "data" / "noise").prepare()
        (tmp_path / machine / "digests").mkdir()
    enter = _namespaces()
    record_property("two machines are", "loopback addresses" if enter is None else "namespaces")
    addresses = ("127.0.0.1", "127.0.0.2") if enter is None else ("10.77.0.1", "10.77.0.2")
    if enter is None:
        script = 'bash -c "$1" & bash -c "$2" && wait $!'
        enter, variables = ["bash", "-c", script, "two-machines"], {"GLOO_SOCKET_IFNAME": "lo"}
    else:
        variables = {}
    # The second start goes on from a checkpoint that one machine has not got.
    for options in ({"num_epochs": "1"}, {"resume": "auto"}):
        meeting_point = f"{addresses[0]}:{_free_port()}"
        shells = []
        for machine, address in zip(("first", "second"), addresses, strict=True):
            folder = tmp_path / machine
            words = command(folder / "exp", folder / "data", **options)
            words = _torchrun(address, meeting_point, words)
            shells.append(shlex.join(["exec", "env", f"DIGESTS={folder / 'digests'}", *words]))
        two = _run([*enter, *shells], **variables)
        assert two.returncode == 0, two.stdout
    assert "Resuming from" in two.stdout

    alone = tmp_path / "alone"
    words = command(alone / "exp", alone / "data", world_size="2")
    one = _run([sys.executable, "-m", *words], DIGESTS=str(alone / "digests"))
    assert one.returncode == 0, one.stdout

    def digests(machine: str) -> dict[str, str]:
        return {p.name: p.read_text() for p in (tmp_path / machine / "digests").iterdir()}

    # Either may have become the main one, which alone writes.
    written = {m: bool(list((tmp_path / m / "exp").glob("*.pt"))) for m in ("first", "second")}
    assert sorted(written.values()) == [False, True]
    main = "first" if written["first"] else "second"
    assert {**digests("first"), **digests("second")} == digests("alone")
    assert len(digests("first")) == len(digests("second")) > 1
    assert not differences(
        load_checkpoint(tmp_path / main / "exp" / "epoch-2.pt"),
        load_checkpoint(alone / "exp" / "epoch-2.pt"),
    )


def test_two_members_have_folders_of_their_own(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick one: this process is the main one, a second one joins it."""
    other = tmp_path / "other"
    NoiseCorpus(other / "data" / "noise").prepare()
    (other / "digests").mkdir()
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    variables = {**group, "RANK": "1", "LOCAL_RANK": "0", "DIGESTS": str(other / "digests")}
    second = subprocess.Popen(
        [sys.executable, "-m", *command(other / "exp", other / "data", num_epochs="1")],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        for name, value in {**group, "RANK": "0", "LOCAL_RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        assert main(command(tmp_path / "exp", data_dir, num_epochs="1")[1:]) == 0
        output, _ = second.communicate(timeout=_PATIENCE_S)
        assert second.returncode == 0, output
    finally:
        second.kill()
        second.wait()
        if dist.is_initialized():
            dist.destroy_process_group()
    last = load_checkpoint(tmp_path / "exp" / "epoch-1.pt")
    theirs = other / "digests" / f"rank1-batch{last['batch_idx_train']}"
    assert theirs.read_text() == digest(last["model"])
    assert not list((other / "exp").glob("*.pt"))
