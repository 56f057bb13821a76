"""Are checkpoints written whole, and are bad or hostile files refused in one line?"""

import argparse
import io
import os
import pathlib
import pickle
import resource
import signal
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from snowmelt.checkpoint.files import load_checkpoint, peek_checkpoint, save_checkpoint
from snowmelt.core.errors import CheckpointError, UserError

CHECKPOINT = {
    "model": {"a.weight": torch.arange(5000.0), "count": torch.tensor(3)},
    "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"betas": (0.9, 0.98)}]},
    "best_valid_loss": float("inf"),
    "grad_scaler": None,
    "name": "x",
    "flag": True,
}


def refusal(path):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    text = str(error.value)
    assert path.name in text
    assert "\n" not in text
    return text


def test_round_trip(tmp_path):
    path = tmp_path / "exp" / "epoch-1.pt"
    save_checkpoint(path, CHECKPOINT)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["model"].pop("a.weight"), CHECKPOINT["model"]["a.weight"])
    assert loaded.pop("model") == {"count": torch.tensor(3)}
    assert loaded == {key: value for key, value in CHECKPOINT.items() if key != "model"}
    assert os.listdir(path.parent) == ["epoch-1.pt"]


def test_a_look_at_the_numbers(tmp_path):
    path = tmp_path / "epoch-1.pt"
    save_checkpoint(path, CHECKPOINT)
    seen = peek_checkpoint(path)
    assert seen.keys() == CHECKPOINT.keys()
    assert seen["optimizer"] == CHECKPOINT["optimizer"] and seen["name"] == "x"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"epoch-1\.pt is truncated or damaged"):
        peek_checkpoint(path)


def test_state_dicts_of_torch_are_plain(tmp_path):
    model = nn.BatchNorm1d(3)
    optimizer = torch.optim.Adam(model.parameters())
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    model.load_state_dict(load_checkpoint(tmp_path / "a.pt")["model"])


@pytest.mark.parametrize("value", [pathlib.Path("a"), {1}, b"x", object(), torch.float32])
def test_only_plain_types_are_saved(tmp_path, value):
    with pytest.raises(TypeError, match=r"checkpoint\['a'\]\[0\] is a .*plain types only"):
        save_checkpoint(tmp_path / "a.pt", {"a": [value]})
    assert os.listdir(tmp_path) == []


def test_full_disk_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "epoch-1.pt"
    save_checkpoint(path, {"old": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*epoch-1\.pt: File too large"):
            save_checkpoint(path, CHECKPOINT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert load_checkpoint(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["epoch-1.pt"]


def test_missing(tmp_path):
    assert "does not exist" in refusal(tmp_path / "epoch-1.pt")


def test_git_lfs_pointer(tmp_path):
    path = tmp_path / "pretrained.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git-lfs pointer" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_truncated(tmp_path, share):
    path = tmp_path / "epoch-1.pt"
    save_checkpoint(path, CHECKPOINT)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "epoch-1.pt" in refusal(path)


def test_one_changed_bit(tmp_path):
    path = tmp_path / "epoch-1.pt"
    save_checkpoint(path, CHECKPOINT)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refusal(path)


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"model": {"a": x}}])
def test_code_in_a_file_is_never_run(tmp_path, write, wrap):
    target, path = tmp_path / "owned", tmp_path / "pretrained.pt"
    write(wrap(Evil(target)), path)
    refusal(path)
    assert not target.exists()


def test_what_is_refused_is_named(tmp_path):
    path = tmp_path / "pretrained.pt"
    torch.save({"model": Evil(tmp_path / "owned")}, path)
    assert "reading it would run code (posix.mkdir)" in refusal(path)
    torch.save({"model": nn.Linear(1, 1)}, path)
    assert "torch.nn.modules.linear.Linear" in refusal(path)


def test_paths_of_the_original_are_read(tmp_path):
    # icefall stores its options as they are.
    path = tmp_path / "epoch-30.pt"
    torch.save({"model": {"a": torch.ones(2)}, "exp_dir": pathlib.Path("exp"), "epoch": 30}, path)
    loaded = load_checkpoint(path)
    assert loaded["exp_dir"] == pathlib.Path("exp")
    assert torch.equal(loaded["model"]["a"], torch.ones(2))


@pytest.mark.parametrize(
    "name",
    [b"pathlib._local\nPosixPath", b"pathlib\nWindowsPath", b"pathlib._local\nWindowsPath"],
)
def test_paths_of_other_systems_are_read(tmp_path, name):
    path = tmp_path / "epoch-30.pt"
    torch.save({"exp_dir": pathlib.PurePosixPath("exp")}, path)
    with zipfile.ZipFile(path) as archive:
        files = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content.replace(b"pathlib\nPurePosixPath", name))
    assert str(load_checkpoint(path)["exp_dir"]) == "exp"


def test_options_of_the_original_are_read(tmp_path):
    """Numbers of NumPy and a namespace, as its options and samplers may hold; no more than that."""
    path = tmp_path / "epoch-1.pt"
    options = argparse.Namespace(lr=np.float64(0.05), exp_dir=pathlib.PosixPath("exp"))
    sampler = {"max_duration": np.float64(200.0), "rank": np.int64(3), "shuffle": np.bool_(True)}
    content = {"model": {"a": torch.zeros(1)}, "params": options, "sampler": sampler}
    torch.save(content, path)
    loaded = load_checkpoint(path)
    assert loaded["sampler"] == sampler and loaded["params"] == options
    torch.save(content | {"array": np.arange(3)}, path)
    assert "numpy.ndarray" in refusal(path)


def test_numbers_of_old_numpy_are_read(tmp_path):
    path = tmp_path / "epoch-1.pt"
    number = pickle.dumps({"x": np.float64(1.5)}, protocol=2)
    old = number.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != number
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("epoch-1/data.pkl", old)
        archive.writestr("epoch-1/version", "3\n")
    assert load_checkpoint(path) == {"x": 1.5}


def test_other_things(tmp_path):
    path = tmp_path / "a.pt"
    path.write_text("hello, this is a text and not a checkpoint\n" * 20)
    assert "is no checkpoint" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")
    assert "is no checkpoint" in refusal(path)
    torch.save([1, 2], path)
    assert "is no checkpoint: it holds a list" in refusal(path)
    stream = io.BytesIO()
    torch.save({"a": torch.ones(2)}, stream, _use_new_zipfile_serialization=False)
    path.write_bytes(stream.getvalue())
    assert torch.equal(load_checkpoint(path)["a"], torch.ones(2))


def test_torchscript_is_named(tmp_path):
    path = tmp_path / "cpu_jit.pt"
    # What tells a TorchScript archive from a checkpoint.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cpu_jit/data.pkl", b"")
        archive.writestr("cpu_jit/constants.pkl", b"")
    assert "TorchScript program" in refusal(path)


@pytest.mark.parametrize("content", [b"hello\n" * 9, b"model: 3\n", b"\x80\x02]q\x00.", b"PK"])
def test_the_advice_of_torch_is_not_passed_on(tmp_path, content):
    path = tmp_path / "epoch-1.pt"
    path.write_bytes(content)
    assert refusal(path) == (
        f"{path} is no checkpoint "
        "(hint: pass an epoch-N.pt, or another file that torch.save has written)"
    )
