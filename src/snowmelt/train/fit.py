"""Will every batch of this run fit into memory? Asked once, before the first of them.

The estimate is made on every device. The trial is for devices that say when their memory runs out:
on a CPU the system ends the process instead, so a trial would cost minutes and protect nothing.

Invariant: a run is the same with and without the question.
"""

import os
from collections.abc import Callable
from typing import Final

import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.data.batch import Batch
from snowmelt.data.mix import MixItem, MixPlan
from snowmelt.train.corpus import TrainingCorpora
from snowmelt.train.memory import batch_shapes, dry_run, estimate_memory, pessimistic_batches
from snowmelt.train.objective import StepLosses
from snowmelt.train.resume import TrainState
from snowmelt.train.step import compute_losses

__all__ = ["check_memory"]

# A step so late that all losses have their weight.
_LATE: Final = 10**9


def check_memory(
    state: TrainState,
    data: TrainingCorpora,
    plan: MixPlan,
    config: ExperimentConfig,
    device: torch.device,
) -> None:
    """Log how much memory the steps of a plan need, and try the worst of their batches.

    Raises:
        TrainingError: they do not fit; the hint names a --max-duration that would.
    """
    by_corpus: dict[int, list[MixItem]] = {}
    for step in plan.steps:
        for item in step:
            by_corpus.setdefault(item.stream, []).append(item)
    for stream, items in by_corpus.items():
        _check_corpus(state, data, stream, items, config, device)


def _check_corpus(
    state: TrainState,
    data: TrainingCorpora,
    stream: int,
    items: list[MixItem],
    config: ExperimentConfig,
    device: torch.device,
) -> None:
    # One epoch of it tells enough: others hold the same cuts, or such as are composed alike.
    epoch = items[0].epoch
    items = [item for item in items if item.epoch == epoch]
    dataset = data.corpora[stream].dataset(epoch)
    durations = [seconds + config.data.max_tail_s for seconds in dataset.durations]
    shapes = batch_shapes([item.indices for item in items], durations, dataset.num_tokens)
    forward = _forward(state, data.head(stream), device)
    estimate_memory(
        forward,
        state.objective,
        state.optimizer,
        shapes,
        model_avg=state.model_avg,
        feature_dim=config.model.feature_dim,
        has_frame_tokens=config.train.frame_loss_scale > 0.0,
        num_processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1,
    ).report()
    if device.type != "cpu":
        worst = pessimistic_batches(shapes)
        batches = ((name, dataset.get(items[n].indices, epoch)) for name, n in worst)
        dry_run(forward, state.objective, state.optimizer, batches)


def _forward(state: TrainState, head: str, device: torch.device) -> Callable[[Batch], StepLosses]:
    return lambda batch: compute_losses(state.objective, batch, _LATE, head, state, device)
