"""How fast is the transducer loss, how much memory does it take, and how near are its gradients?

Two questions, each with tables: the recursion alone, forward and backward, and the whole loss from
the outputs of encoder and decoder to all gradients. Programs: k2 (with --k2-python), ours as
training uses it, ours without leaving out anything, ours with matrix products in bfloat16, and
autograd through ordinary operations.

Differences are those of losses and gradients in the same band, the first program's: where two
windows of a frame are equally good but for rounding, each program may choose its own.

Untrained tensors are drawn here; those of a trained model come from a file of `loss_inputs.py`.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import Peer, in_turn, library_path, print_table

__all__ = ["print_tables"]

_Arrays = dict[str, npt.NDArray[Any]]

_WORKER = Path(__file__).with_name("loss_worker.py")
# The sizes of a batch of some minutes: 30 utterances of up to 16 s, up to 80 tokens.
_N, _T, _S = 30, 400, 80
_V, _ENCODER_DIM, _DECODER_DIM, _JOINER_DIM = 500, 384, 512, 512
_LATTICE_PROGRAMS = ["snowmelt", "torch operations"]
_LOSS_PROGRAMS = ["snowmelt", "snowmelt, exact", "snowmelt, bf16 products", "torch operations"]


def print_tables(
    *,
    num_threads: int,
    repetitions: int,
    k2_python: Path | None,
    trained: Path | None,
    words: list[str],
) -> None:
    """Print the tables whose name contains one of `words`, all if there are none.

    Args:
        num_threads: of every program.
        repetitions: of every program.
        k2_python: Python of an environment that has k2; None: k2 is left out.
        trained: file of `loss_inputs.py`; None: that table is left out.
        words: parts of names.
    """
    cases: dict[str, Callable[[], _Arrays]] = {
        "lattice, flat": lambda: _lattice(is_peaked=False),
        "lattice, peaked": lambda: _lattice(is_peaked=True),
        "loss, untrained": _untrained,
    }
    if trained is not None:
        cases["loss, trained"] = lambda: dict(np.load(trained))
    for name, make in cases.items():
        if words and not any(word in name for word in words):
            continue
        what = name.split(",")[0]
        with tempfile.TemporaryDirectory() as folder:
            inputs = make()
            np.savez(Path(folder) / "inputs.npz", **inputs)
            _print_case(
                what,
                f"{name} ({_sizes(inputs)})",
                Path(folder),
                num_threads,
                repetitions,
                k2_python,
            )
    if k2_python is None:
        print("\nk2: left out, give the Python of an environment that has it with --k2-python")
    if trained is None:
        print("\nloss, trained: left out, give a file of `python -m benchmarks.loss_inputs`")


def _print_case(
    what: str, title: str, folder: Path, num_threads: int, repetitions: int, k2_python: Path | None
) -> None:
    programs = _LATTICE_PROGRAMS if what == "lattice" else _LOSS_PROGRAMS
    if k2_python is not None:
        programs = ["k2", *programs]

    def start(program: str) -> Peer:
        python, environment = Path(sys.executable), {}
        if program == "k2":
            assert k2_python is not None
            python = k2_python
            environment = {"LD_LIBRARY_PATH": library_path(k2_python), "PYTHONPATH": ""}
        arguments = [str(_WORKER), what, program, str(folder / "inputs.npz"), str(num_threads)]
        return Peer([str(python), *arguments], num_threads, environment)

    more: dict[str, dict[str, str]] = {program: {} for program in programs}
    for program in programs:
        with start(program) as peer:
            more[program]["peak MiB"] = f"{peer.ask('memory')['peak_mib']:.0f}"
    with ExitStack() as stack:
        peers = {program: stack.enter_context(start(program)) for program in programs}
        times = in_turn(peers, repetitions)
        saved = {}
        for number, (program, peer) in enumerate(peers.items()):
            path = folder / f"{number}.npz"
            peer.ask(f"save {path}" + (f" {folder / '0.npz'}" if number else ""))
            saved[program] = dict(np.load(path))
    wanted = saved[programs[0]]
    for program in programs[1:]:
        more[program]["largest difference"] = _difference(saved[program], wanted)
        if what == "loss":
            more[program]["frames elsewhere"] = _other_frames(saved[program], wanted)
    print_table(title, times, more)


def _difference(ours: _Arrays, wanted: _Arrays) -> str:
    """Largest difference from the first program, of each tensor by its largest value."""
    relative = {
        name: float(np.abs(ours[name] - array).max() / np.abs(array).max())
        for name, array in wanted.items()
        if name != "ranges"
    }
    name = max(relative, key=lambda key: relative[key])
    return f"{relative[name]:.0e} ({name})"


def _other_frames(ours: _Arrays, wanted: _Arrays) -> str:
    """Share of frames whose band the first program puts elsewhere."""
    return f"{float((ours['ranges'][:, :, 0] != wanted['ranges'][:, :, 0]).mean()):.1e}"


def _sizes(inputs: _Arrays) -> str:
    if "px" in inputs:
        n, s, _ = inputs["px"].shape
        return f"N {n}, T {inputs['py'].shape[2]}, S {s}"
    (n, t, encoder_dim), (_, rows, decoder_dim) = (
        inputs[name].shape for name in ("encoder_out", "decoder_out")
    )
    vocab_size, joiner_dim = inputs["output_linear.weight"].shape
    return (
        f"N {n}, T {t}, S {rows - 1}, V {vocab_size}, encoder {encoder_dim}, "
        f"decoder {decoder_dim}, joiner {joiner_dim}"
    )


def _boundary() -> npt.NDArray[np.int64]:
    return np.array([[0, 0, _S - n, _T - 5 * n] for n in range(_N)], np.int64)


def _lattice(*, is_peaked: bool) -> _Arrays:
    """Arcs as of a model that knows nothing (flat), and of one that knows the alignment (peaked).

    Peaked: symbol s is spoken at frame 5 s; an arc on that path costs nearly nothing, one that
    leaves it 20 nats, with noise.
    """
    rng = np.random.default_rng(0)
    px = rng.standard_normal((_N, _S, _T + 1), np.float32) - 3.0
    py = rng.standard_normal((_N, _S + 1, _T), np.float32) - 0.5
    if is_peaked:
        frame, row = np.arange(_T + 1), np.arange(_S + 1)[:, None]
        is_symbol = frame == np.minimum(5 * row + 2, _T)
        px = np.where(is_symbol[:_S], -0.1, -20.0) + px + 3.0
        py = np.where(is_symbol[:, :_T], -20.0, -0.1) + 0.1 * (py + 0.5)
    boundary = _boundary()
    for n in range(_N):
        px[n, :, boundary[n, 3]] = -np.inf
    return {"px": px.astype(np.float32), "py": py.astype(np.float32), "boundary": boundary}


def _untrained() -> _Arrays:
    """Random outputs and layers as torch initialises them."""
    rng = np.random.default_rng(0)

    def layer(name: str, num_in: int, num_out: int) -> _Arrays:
        bound = num_in**-0.5
        return {
            f"{name}.weight": rng.uniform(-bound, bound, (num_out, num_in)).astype(np.float32),
            f"{name}.bias": rng.uniform(-bound, bound, num_out).astype(np.float32),
        }

    return {
        "encoder_out": rng.standard_normal((_N, _T, _ENCODER_DIM), np.float32),
        "decoder_out": rng.standard_normal((_N, _S + 1, _DECODER_DIM), np.float32),
        "symbols": rng.integers(1, _V, (_N, _S)),
        "boundary": _boundary(),
        **layer("simple_am", _ENCODER_DIM, _V),
        **layer("simple_lm", _DECODER_DIM, _V),
        **layer("encoder_proj", _ENCODER_DIM, _JOINER_DIM),
        **layer("decoder_proj", _DECODER_DIM, _JOINER_DIM),
        **layer("output_linear", _JOINER_DIM, _V),
    }
