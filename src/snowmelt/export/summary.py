"""What can be said of the training behind weights, from what lies in its folder?

Invariant: nothing is guessed: what the folder does not tell is left open.
"""

import json
import re
from pathlib import Path
from typing import Final

from snowmelt.checkpoint.experiment import ExperimentConfig, numbered_checkpoints
from snowmelt.checkpoint.heads import MAIN_HEAD
from snowmelt.presets.frames import ENCODER_FRAME_S
from snowmelt.presets.models import ZipformerConfig
from snowmelt.runtime.bundle import Averaging, TestResult, Training
from snowmelt.runtime.load import WeightsChoice

__all__ = ["training_summary"]

_HISTORY: Final = Path("tensorboard", "history.jsonl")

_RESULT_NAME: Final = re.compile(r"wer-summary-(.+?)-((?:epoch|iter)-(\d+)-avg-(\d+)\b.*)\.txt")


def training_summary(
    exp_dir: Path, config: ExperimentConfig, choice: WeightsChoice | None, head: str
) -> Training:
    """Corpora, sound, epochs, averaging and results of an experiment.

    Args:
        exp_dir: the experiment.
        config: its settings, with the chunk length that is exported.
        choice: which checkpoints, every number filled in; None: a pretrained.pt of unknown origin.
        head: which head is exported.
    """
    epochs = max(numbered_checkpoints(exp_dir, "epoch"), default=None)
    averaging = None
    if choice is not None:
        assert choice.avg is not None, choice
        is_by_epoch = choice.iteration == 0
        epochs = choice.epoch if is_by_epoch else epochs
        averaging = Averaging(
            choice.epoch if is_by_epoch else None,
            choice.iteration,
            choice.avg,
            choice.use_averaged_model,
        )
    return Training(
        corpora=tuple(part.corpus for part in config.data.parts),
        hours=_hours(exp_dir, epochs),
        epochs=epochs,
        averaging=averaging,
        results=_results(exp_dir, config, choice, head) if choice is not None else (),
    )


def _hours(exp_dir: Path, epochs: int | None) -> float | None:
    """Sound of all batches up to the last epoch, as the records of the training count it."""
    try:
        lines = (exp_dir / _HISTORY).read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        frames = sum(
            float(record["frames"])
            for record in records
            if record["kind"] == "train" and (epochs is None or record["epoch"] <= epochs)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no records, or not ours
    return round(frames * ENCODER_FRAME_S / 3600, 2) if frames else None


def _results(
    exp_dir: Path, config: ExperimentConfig, choice: WeightsChoice, head: str
) -> tuple[TestResult, ...]:
    """Word error rates of just these weights, of all methods they were decoded with."""
    number = f"iter-{choice.iteration}" if choice.iteration > 0 else f"epoch-{choice.epoch}"
    wanted = f"{number}-avg-{choice.avg}"
    chunk = f"-streaming-chunk-size-{config.model.decode_chunk_len}-"
    found = []
    for path in sorted(exp_dir.rglob("wer-summary-*.txt")):
        match = _RESULT_NAME.fullmatch(path.name)
        if match is None:
            continue
        settings = match[2]
        is_of_head = f"-head-{head}" in settings if head != MAIN_HEAD else "-head-" not in settings
        if (
            re.match(rf"{wanted}(?!\d)", settings)
            and settings.endswith("use-averaged-model") == choice.use_averaged_model
            and (not isinstance(config.model, ZipformerConfig) or chunk in f"{settings}-")
            and is_of_head
        ):
            wer = _best_rate(path)
            if wer is not None:
                method = "/".join(path.parent.relative_to(exp_dir).parts)
                found.append(TestResult(match[1], wer, method, settings))
    return tuple(found)


def _best_rate(path: Path) -> float | None:
    """The rate in the best, that is the first, row under the heading of a wer-summary file."""
    try:
        return float(path.read_text(encoding="utf-8").splitlines()[1].split("\t")[1])
    except (OSError, ValueError, IndexError):
        return None
