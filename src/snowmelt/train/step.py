"""How does a model learn from one step's batches? Forward, backward, and the optimiser's step.

A step may have several batches whose gradients add up, so that a small machine takes the steps of
a large one.

Invariant: the random draws of a batch are a function of (seed, step, rank, its place in the step);
an utterance without a finite loss leaves no trace.
"""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.parallel import DistributedDataParallel

from snowmelt.data.batch import Batch
from snowmelt.presets.frames import SUBSAMPLING_FACTOR
from snowmelt.train.distributed import sum_over_ranks
from snowmelt.train.guard import BadUtterances, ForwardState, guarded_forward
from snowmelt.train.heap import keep_freed_memory
from snowmelt.train.metrics import LossTotals
from snowmelt.train.objective import StepLosses, TransducerObjective
from snowmelt.train.resume import TrainState, seed_batch

__all__ = ["Learner", "batch_totals", "compute_losses"]


class Learner:
    """Takes the steps of a run.

    Args:
        state: what learns.
        objective: the state's objective, or its data-parallel wrapper.
        device: where batches are computed.
        bad_utterances: is told what was left out.
    """

    def __init__(
        self,
        state: TrainState,
        objective: TransducerObjective | DistributedDataParallel,
        device: torch.device,
        bad_utterances: BadUtterances,
    ) -> None:
        self._state = state
        self._objective = objective
        self._device = device
        self._bad_utterances = bad_utterances
        self._forward_state = ForwardState(state.objective.model)
        keep_freed_memory()

    def step(
        self,
        batches: Sequence[Batch],
        *,
        head: str = "",
        stop_requested: threading.Event | None = None,
    ) -> tuple[LossTotals, bool]:
        """Learn from the batches of one step.

        Args:
            batches: of one corpus.
            head: whose decoder and joiner; "" is the main one.
            stop_requested: is set when this process shall stop.

        Returns:
            Losses of this process's batches, and whether any process was asked to stop.

        Raises:
            TrainingError: too many utterances cannot be used.
        """
        state = self._state
        number = state.begin_step()
        totals = LossTotals()
        for n, batch in enumerate(batches):
            is_last = n == len(batches) - 1
            with nullcontext() if is_last else self._without_sync():
                totals = totals + self._add_gradient(batch, number, n, head)
        state.bad_utterances = self._bad_utterances.state()
        # The forward of batch b saw the schedules at b - 1, as in the original.
        state.set_batch_count()
        state.scheduler.step_batch(number)
        num_usable, num_stopping = sum_over_ranks(
            (totals.utterances, float(bool(stop_requested and stop_requested.is_set()))),
            state.ranks,
            self._device,
        )
        if num_usable > 0:
            state.precision.step(state.optimizer, number)
        state.optimizer.zero_grad()
        state.update_average()
        return totals, num_stopping > 0

    def _add_gradient(self, batch: Batch, number: int, micro_batch: int, head: str) -> LossTotals:
        state = self._state
        guarded = guarded_forward(
            lambda b: compute_losses(self._objective, b, number, head, state, self._device),
            batch,
            state=self._forward_state,
            reseed=lambda: seed_batch(
                state.config.train.seed, number, state.ranks.rank, micro_batch
            ),
        )
        self._bad_utterances.report(batch, guarded.bad, number)
        state.precision.backward(guarded.losses.loss)
        return batch_totals(guarded.losses, guarded.batch)

    def _without_sync(self) -> AbstractContextManager[None]:
        """Gradients stay in this process until the last batch of the step."""
        if isinstance(self._objective, DistributedDataParallel):
            return self._objective.no_sync()
        return nullcontext()


def compute_losses(
    objective: TransducerObjective | DistributedDataParallel,
    batch: Batch,
    number: int,
    head: str,
    state: TrainState,
    device: torch.device,
) -> StepLosses:
    """Losses of a batch in the run's precision.

    Args:
        objective: the objective, or its data-parallel wrapper.
        batch: still on the CPU.
        number: of the step, from 1.
        head: whose decoder and joiner; "" is the main one.
        state: gives the precision.
        device: where the objective is.
    """
    tensors = (
        batch.features,
        batch.feature_lens,
        batch.token_ids,
        batch.token_lens,
        batch.frame_tokens,
    )
    with state.precision.autocast():
        losses: StepLosses = objective(
            *(t.to(device, non_blocking=True) for t in tensors), number, head
        )
    return losses


def batch_totals(losses: StepLosses, batch: Batch) -> LossTotals:
    """What a batch adds to the totals: its utterances with a finite loss."""
    is_finite = losses.is_finite.cpu()
    lens = batch.feature_lens[is_finite].double()
    return LossTotals(
        loss=float(losses.loss.detach()),
        simple_loss=float(losses.simple_loss),
        pruned_loss=float(losses.pruned_loss),
        ctc_loss=float(losses.ctc_loss),
        frame_loss=float(losses.frame_loss),
        frames=float((lens // SUBSAMPLING_FACTOR).sum()),
        utterances=float(len(lens)),
        feature_frames=float(lens.sum()),
        padding=float((1.0 - lens / max(1, batch.features.size(1))).sum()),
    )
