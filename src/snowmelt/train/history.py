"""What has happened in a run? A line per batch in history.jsonl, TensorBoard events, and a picture.

Invariant: every batch counts once: what a killed run wrote after its last checkpoint is dropped
when the run goes on from that checkpoint.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

from snowmelt.core.files import atomic_path, write_text

__all__ = ["History", "Totals", "draw_curves", "read_history"]

HISTORY_NAME: Final = "history.jsonl"


class Totals(Protocol):
    """Sums of losses, of a step or of many: of a transducer, of a language model."""

    def covered(self) -> dict[str, float]:
        """What the losses are of, for the record: so many frames, or tokens."""

    def rates(self) -> dict[str, float]:
        """Losses per frame or per token, by name."""

    def shape(self) -> dict[str, float]:
        """How the batches look, by name."""


class History:
    """Records of one run; does nothing on a process that does not write.

    TensorBoard tags are the original's, over the number of batches.

    Args:
        exp_dir: the experiment; records go to its `tensorboard` folder.
        done: steps done so far; what was recorded after them is dropped.
        epoch: the epoch the run goes on with: its end will be validated (again).
        is_main: whether this process writes.
        tensorboard: whether TensorBoard events are written beside the JSON lines.
    """

    def __init__(
        self, exp_dir: Path, *, done: int, epoch: int, is_main: bool, tensorboard: bool
    ) -> None:
        self._path = exp_dir / "tensorboard" / HISTORY_NAME
        self._is_main = is_main
        self._file: TextIO | None = None
        self._writer: Any = None
        if not is_main:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        kept = [
            r
            for r in (read_history(exp_dir) if done else ())
            if r["batch"] <= done
            and (r["kind"] == "train" or r["epoch"] < epoch or r.get("mid_epoch"))
        ]
        write_text(self._path, "".join(json.dumps(r) + "\n" for r in kept))
        # Line by line, so that others may watch a run.
        self._file = self._path.open("a", encoding="utf-8", buffering=1)
        if tensorboard:
            # Imported here: it loads slowly, and only the process that writes needs it.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._path.parent), purge_step=done + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()

    def batch(
        self, batch_idx_train: int, epoch: int, totals: Totals, lr: float, *, label: str = ""
    ) -> None:
        """Record one training step; `label` names its corpus where there are several."""
        head = {"kind": "train", "batch": batch_idx_train, "epoch": epoch, "lr": lr}
        self._write({**head, "corpus": label} if label else head, totals)

    def point(
        self,
        batch_idx_train: int,
        epoch: int,
        *,
        current: Totals,
        totals: Mapping[str, Totals],
        lr: float,
        label: str = "",
        grad_scale: float | None = None,
    ) -> None:
        """Draw a point of the TensorBoard curves.

        Args:
            batch_idx_train: its place on the x axis.
            epoch: number of the epoch.
            current: losses of this step.
            totals: decayed losses, of all corpora under "" and of each of several by its label.
            lr: learning rate.
            label: the corpus of this step, where there are several.
            grad_scale: with half precision, what the gradients are multiplied by.
        """
        infix = f"{label}_" if label else ""
        self._totals(f"train/current_{infix}", current, batch_idx_train)
        for name, value in totals.items():
            infix = f"{name}_" if name else ""
            self._totals(f"train/{infix}tot_", value, batch_idx_train)
        scalars: dict[str, float] = {"learning_rate": lr, "epoch": epoch}
        if grad_scale is not None:
            scalars["grad_scale"] = grad_scale
        self._scalars("train/", scalars, batch_idx_train)

    def validation(
        self,
        batch_idx_train: int,
        epoch: int,
        totals: Totals,
        *,
        label: str = "",
        mid_epoch: bool = False,
    ) -> None:
        """Record the losses on the dev set, or on that of one of several corpora."""
        head: dict[str, Any] = {"kind": "valid", "batch": batch_idx_train, "epoch": epoch}
        head |= {"corpus": label} if label else {}
        head |= {"mid_epoch": True} if mid_epoch else {}
        self._write(head, totals)
        infix = f"{label}_" if label else ""
        self._scalars(f"train/valid_{infix}", totals.rates(), batch_idx_train)

    def _totals(self, prefix: str, totals: Totals, batch_idx_train: int) -> None:
        self._scalars(prefix, {**totals.rates(), **totals.shape()}, batch_idx_train)

    def _scalars(self, prefix: str, values: Mapping[str, float], batch_idx_train: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(prefix + name, value, batch_idx_train)

    def sync(self) -> None:
        """Make the records as durable as the checkpoint that is written next."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _write(self, head: dict[str, Any], totals: Totals) -> None:
        if self._file is None:
            return
        record = {**head, **totals.covered(), **totals.rates()}
        self._file.write(json.dumps(record) + "\n")


def read_history(exp_dir: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first; a line cut off by a kill is left out."""
    path = exp_dir / "tensorboard" / HISTORY_NAME
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def draw_curves(exp_dir: Path, png_path: Path) -> None:
    """Draw training and dev loss per encoder frame, and the learning rate, into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = read_history(exp_dir)
    train = [r for r in records if r["kind"] == "train"]
    valid = [r for r in records if r["kind"] == "valid" and "corpus" not in r]
    figure, (loss_axes, lr_axes) = plt.subplots(
        2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 1)
    )
    for name, colour in (("pruned_loss", "tab:blue"), ("simple_loss", "tab:orange")):
        label = name.replace("_", " ")
        batches = [r["batch"] for r in train]
        loss_axes.plot(
            batches, _smoothed([r[name] for r in train]), color=colour, label=f"train {label}"
        )
        loss_axes.plot(
            [r["batch"] for r in valid],
            [r[name] for r in valid],
            "o--",
            color=colour,
            markersize=3,
            label=f"dev {label}",
        )
    loss_axes.set_yscale("log")
    loss_axes.set_ylabel("nats per encoder frame")
    loss_axes.grid(alpha=0.3)
    loss_axes.legend()
    lr_axes.plot([r["batch"] for r in train], [r["lr"] for r in train], color="tab:green")
    lr_axes.set_ylabel("learning rate")
    lr_axes.set_xlabel("batch")
    lr_axes.grid(alpha=0.3)
    figure.tight_layout()
    with atomic_path(png_path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


def _smoothed(values: list[float], window: int = 20) -> list[float]:
    """Running mean over the last `window` values."""
    return [
        sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))
    ]
