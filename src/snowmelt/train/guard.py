"""Which utterances cannot be learnt from, and how is a step taken without them?

One broken utterance is enough to ruin a batch: what is not finite spreads through statistics over
the whole batch into every gradient. So it does not help to leave it out of the sum of losses: the
batch is computed again without it, from the same state and the same random numbers.

Invariant: the gradient of a step is to the bit that of a batch which never held the utterances
that were left out.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.core.errors import TrainingError, UserError
from snowmelt.data.batch import Batch
from snowmelt.presets.frames import FEATURE_FRAME_S, num_encoder_frames
from snowmelt.train.forward_state import ForwardState
from snowmelt.train.objective import LossScales, StepLosses

__all__ = [
    "BadUtterance",
    "BadUtterances",
    "ForwardState",
    "GuardedStep",
    "guarded_forward",
    "select_rows",
    "without_bad_features",
]

_logger = logging.getLogger(__name__)

# Batches between which an utterance is forgotten to a third, as the totals in the log forget.
_WINDOW_BATCHES: Final = 200
# Fewer may be an accident, above all at the start, when they are a large share of what was seen.
_MIN_BAD: Final = 20


class BadUtterance(NamedTuple):
    """An utterance that was left out of a step."""

    cut_id: str
    seconds: float
    reason: str  # as the end of a sentence on it


class GuardedStep(NamedTuple):
    """Losses of the utterances that can be learnt from, `batch`; those left out are `bad`."""

    losses: StepLosses
    batch: Batch
    bad: tuple[BadUtterance, ...]


def select_rows(batch: Batch, rows: Sequence[int]) -> Batch:
    """The batch of some of the utterances, padded no further than the longest of them needs.

    Args:
        batch: N utterances.
        rows: which of them, in the order wanted; none gives tensors without rows or columns.
    """
    index = torch.tensor(rows, dtype=torch.int64)
    feature_lens, token_lens = batch.feature_lens[index], batch.token_lens[index]
    num_frames, num_tokens = (int(x.max()) if rows else 0 for x in (feature_lens, token_lens))
    # A batch without columns has none for any length.
    num_labels = min(batch.frame_tokens.size(1), num_encoder_frames(num_frames))
    return replace(
        batch,
        features=batch.features[index, :num_frames].contiguous(),
        feature_lens=feature_lens,
        token_ids=batch.token_ids[index, :num_tokens].contiguous(),
        token_lens=token_lens,
        cut_ids=tuple(batch.cut_ids[n] for n in rows),
        frame_tokens=batch.frame_tokens[index, :num_labels].contiguous(),
    )


def without_bad_features(batch: Batch) -> tuple[Batch, tuple[BadUtterance, ...]]:
    """Leave out what is known to be useless before it is computed with.

    Those are utterances whose features are not all finite, and those without a token. The batch
    itself comes back where there are none.
    """
    reasons: dict[int, str] = {}
    # A sum is enough of a look: it is finite only if all its terms are.
    for n in torch.nonzero(~batch.features.sum(dim=(1, 2)).isfinite()).flatten().tolist():
        if not bool(batch.features[n].isfinite().all()):
            reasons[n] = "its features are not finite"
    for n in torch.nonzero(batch.token_lens == 0).flatten().tolist():
        reasons.setdefault(n, "its transcript has no token")
    return _without(batch, reasons)


def guarded_forward(
    forward: Callable[[Batch], StepLosses],
    batch: Batch,
    *,
    state: ForwardState,
    reseed: Callable[[], None],
) -> GuardedStep:
    """Compute the losses of a batch, without the utterances whose losses are not finite.

    Args:
        forward: losses of a batch, with a gradient. It must be able to take a batch without
            utterances: a process that has none left still takes part in a data-parallel step.
        batch: the utterances.
        state: of the model behind `forward`.
        reseed: makes the random numbers of this batch start anew.

    Returns:
        Finite losses that `backward` can be called on. All is well in nearly every step, which
        costs one look at the features, at the losses and at the regularisers' numbers.
    """
    batch, bad = without_bad_features(batch)
    before = state.copy()
    while True:
        reseed()
        losses = forward(batch)
        is_finite = losses.is_finite.tolist()
        if all(is_finite):
            return GuardedStep(losses, batch, bad)
        values = losses.per_utterance.T.tolist()
        # The graph goes before the next one is built: the memory is enough for one.
        del losses
        state.restore(before)
        batch, more = _without(
            batch, {n: _loss_reason(values[n]) for n, ok in enumerate(is_finite) if not ok}
        )
        bad += more


class BadUtterances:
    """Names the utterances that were left out, keeps some of their batches, and ends a lost run.

    A run is lost when nothing it computes is finite any more, or when so much of the corpus
    cannot be used that the model would learn something else than what was asked for.

    Args:
        exp_dir: where `batch-<uuid>.pt` are written.
        max_consecutive_batches: so many batches in a row without a usable utterance end the run.
            Broken data is spread over batches; ten in a row mean broken weights, and those do not
            heal.
        max_share: the run ends when a larger share of the utterances of the last few hundred
            batches (at least twenty of them) could not be used. Of a sound corpus it is one of
            thousands; one in ten is a mistake in the data or a learning rate far too high.
        max_files: so many bad batches are kept in `exp_dir`, however often the run is resumed.
    """

    def __init__(
        self,
        exp_dir: Path,
        *,
        max_consecutive_batches: int = 10,
        max_share: float = 0.1,
        max_files: int = 5,
    ) -> None:
        self._exp_dir = exp_dir
        self._max_consecutive_batches = max_consecutive_batches
        self._max_share = max_share
        self._max_files = max_files
        self._num_empty_batches = 0  # in a row
        # Both decay from batch to batch.
        self._num_utterances = 0.0
        self._num_bad = 0.0

    def state(self) -> dict[str, float]:
        """The counts as plain numbers, for a checkpoint."""
        return {
            "num_empty_batches": self._num_empty_batches,
            "num_utterances": self._num_utterances,
            "num_bad": self._num_bad,
        }

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` returned."""
        self._num_empty_batches = int(state["num_empty_batches"])
        self._num_utterances = state["num_utterances"]
        self._num_bad = state["num_bad"]

    def report(self, batch: Batch, bad: Sequence[BadUtterance], batch_idx_train: int) -> None:
        """Take note of a batch; call it for each one, before the step.

        Args:
            batch: as it was read, with its bad utterances.
            bad: those that were left out; mostly none.
            batch_idx_train: number of the batch, from 1.

        Raises:
            TrainingError: there were too many.
        """
        kept = 1.0 - 1.0 / _WINDOW_BATCHES
        self._num_utterances = self._num_utterances * kept + len(batch.cut_ids)
        self._num_bad = self._num_bad * kept + len(bad)
        is_empty = len(bad) == len(batch.cut_ids)
        self._num_empty_batches = self._num_empty_batches + 1 if is_empty else 0
        if not bad:
            return
        for utterance in bad:
            _logger.warning("Batch %d: left out %s (%.2f s): %s", batch_idx_train, *utterance)
        self._keep(batch, bad, batch_idx_train)
        self._stop_if_lost(batch_idx_train)

    def _keep(self, batch: Batch, bad: Sequence[BadUtterance], batch_idx_train: int) -> None:
        # The folder is asked, not a count: several processes and resumed runs share the limit.
        if len(list(self._exp_dir.glob("batch-*.pt"))) >= self._max_files:
            return
        path = self._exp_dir / f"batch-{uuid.uuid4()}.pt"
        content: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(batch).items()
        }
        reasons = {utterance.cut_id: utterance.reason for utterance in bad}
        try:
            save_checkpoint(path, {**content, "bad": reasons, "batch_idx_train": batch_idx_train})
        except UserError as error:
            # Worth no run: the log has named the utterances.
            _logger.warning("The batch is not kept: %s", error)
        else:
            _logger.warning("The batch is kept in %s", path)

    def _stop_if_lost(self, batch_idx_train: int) -> None:
        what = ""
        if self._num_empty_batches >= self._max_consecutive_batches:
            what = f"{self._num_empty_batches} batches in a row had no utterance"
        elif self._num_bad >= max(_MIN_BAD, self._max_share * self._num_utterances):
            share = self._num_bad / self._num_utterances
            what = f"of the last batches' utterances only {1 - share:.0%} had"
        if what:
            raise TrainingError(
                f"at batch {batch_idx_train} training is stopped: {what} a finite loss",
                f"look at the utterances that the log names and at {self._exp_dir}/batch-*.pt; if "
                "they are sound, lower --base-lr; --inf-check 1 names the module where it begins",
            )


def _without(batch: Batch, reasons: Mapping[int, str]) -> tuple[Batch, tuple[BadUtterance, ...]]:
    """Leave out the rows that have a reason."""
    if not reasons:
        return batch, ()
    bad = tuple(
        BadUtterance(batch.cut_ids[n], float(batch.feature_lens[n]) * FEATURE_FRAME_S, reason)
        for n, reason in sorted(reasons.items())
    )
    return select_rows(batch, [n for n in range(len(batch.cut_ids)) if n not in reasons]), bad


def _loss_reason(values: Sequence[float]) -> str:
    losses = ", ".join(f"{n} {v:.4g}" for n, v in zip(LossScales._fields, values, strict=True))
    return f"its loss is not finite ({losses})"
