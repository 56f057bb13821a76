"""Is a training that was killed many times the same as the one that never was?

Invariant: nothing is compared with a tolerance.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from snowmelt.checkpoint.experiment import numbered_checkpoints
from snowmelt.checkpoint.files import load_checkpoint
from tests.crash.watched import Run, unfinished_files

__all__ = ["final_digest", "num_redone", "problems"]


def problems(whole: Path, killed: Path, runs: Sequence[Run], *, most_redone: int) -> list[str]:
    """All that is wrong, a line each; none: the two are the same training.

    Args:
        whole: folder of the training that was left alone.
        killed: folder of the other one.
        runs: the other one's processes, in order; the last one has finished.
        most_redone: batches between two saves.
    """
    return [
        *_different_checkpoints(whole, killed),
        *_different_histories(whole, killed),
        *_lost_work(runs, most_redone),
        *(f"{name} was left behind" for name in sorted(unfinished_files(killed))),
    ]


def final_digest(exp_dir: Path) -> str:
    """SHA-256 over the names and bytes of all tensors in the file of the last epoch."""
    last = list(numbered_checkpoints(exp_dir, "epoch").values())[-1]
    digest = hashlib.sha256()
    for name, leaf in _leaves(load_checkpoint(last)):
        if isinstance(leaf, torch.Tensor):
            digest.update(f"{name} {_exactly(leaf)}\n".encode())
    return digest.hexdigest()


def num_redone(runs: Sequence[Run]) -> list[int]:
    """For each process, the batches behind its start that had been done before.

    One that was killed before it said where it starts has none; they are the next one's.
    """
    redone, reached = [], 0
    for run in runs:
        start = _batches_done(run.resumed_from)
        is_known = run.resumed_from is not None or run.num_batches > 0
        redone.append(reached - start if is_known else 0)
        if is_known:
            reached = start + run.num_batches
    return redone


def _batches_done(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(load_checkpoint(checkpoint)["batch_idx_train"])


def _lost_work(runs: Sequence[Run], most_redone: int) -> Iterator[str]:
    for number, redone in enumerate(num_redone(runs), start=1):
        if not 0 <= redone <= most_redone:
            yield f"process {number} redid {redone} batches, saves are {most_redone} apart"


def _different_checkpoints(whole: Path, killed: Path) -> Iterator[str]:
    """Of every epoch, of every save between, and of the best: all that is in them."""
    ours, theirs = ({path.name for path in folder.glob("*.pt")} for folder in (whole, killed))
    for name in sorted(ours ^ theirs):
        yield f"{name} is in {whole if name in ours else killed} only"
    for name in sorted(ours & theirs):
        one, other = (
            {place: _exactly(leaf) for place, leaf in _leaves(load_checkpoint(folder / name))}
            for folder in (whole, killed)
        )
        places = [p for p in (*one, *(other.keys() - one.keys())) if one.get(p) != other.get(p)]
        if places:
            yield f"{name} differs in {len(places)} places, the first is {places[0]}"


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a checkpoint that holds nothing else, with its place."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        yield place, value
        return
    for key, item in items:
        yield from _leaves(item, f"{place}/{key}")


def _exactly(leaf: Any) -> str:
    """Two leaves are the same to the bit when this text is."""
    if not isinstance(leaf, torch.Tensor):
        return repr(leaf)
    content = leaf.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{leaf.dtype} {tuple(leaf.shape)} {hashlib.sha256(content).hexdigest()}"


def _different_histories(whole: Path, killed: Path) -> Iterator[str]:
    ours, theirs = _records(whole), _records(killed)
    batches = [record["batch"] for record in theirs if record["kind"] == "train"]
    for batch, count in Counter(batches).items():
        if count > 1:
            yield f"batch {batch} is recorded {count} times"
    missing = set(range(1, max(batches, default=0) + 1)) - set(batches)
    yield from (f"batch {batch} is not recorded" for batch in sorted(missing))
    if batches != sorted(batches):
        yield "batches are not recorded in order"
    if ours != theirs:
        same = 0
        while ours[same : same + 1] == theirs[same : same + 1]:
            same += 1
        yield f"the histories differ from record {same + 1} on"


def _records(exp_dir: Path) -> list[dict[str, Any]]:
    """All records; in a training that has finished every line is whole."""
    text = (exp_dir / "tensorboard" / "history.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
