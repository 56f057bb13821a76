"""How well does the model do on utterances it does not learn from? Losses on the dev sets.

Invariant: nothing is learnt and no random number is drawn; each process takes its share.
"""

from concurrent.futures import ThreadPoolExecutor

import torch

from snowmelt.train.corpus import TrainingCorpora
from snowmelt.train.distributed import sum_over_ranks
from snowmelt.train.metrics import LossTotals
from snowmelt.train.prefetch import prefetched
from snowmelt.train.resume import TrainState
from snowmelt.train.step import batch_totals, compute_losses

__all__ = ["dev_losses"]


def dev_losses(
    state: TrainState, data: TrainingCorpora, readers: ThreadPoolExecutor, device: torch.device
) -> dict[str, LossTotals]:
    """Losses on the dev sets in evaluation mode, summed over all processes.

    Args:
        state: of the run; its objective is left in training mode.
        data: the corpora.
        readers: threads that read batches.
        device: where the model is.

    Returns:
        Of each of several corpora under its label, then of all of them together under "".
    """
    losses, together = {}, LossTotals()
    state.objective.eval()
    with torch.inference_mode():
        for stream in range(len(data.corpora)):
            totals = _losses_of(stream, state, data, readers, device)
            together = together + totals
            if data.label(stream):
                losses[data.label(stream)] = totals
    state.objective.train()
    return {**losses, "": together}


def _losses_of(
    stream: int,
    state: TrainState,
    data: TrainingCorpora,
    readers: ThreadPoolExecutor,
    device: torch.device,
) -> LossTotals:
    dataset, batches = data.corpora[stream].dev()
    totals = LossTotals()
    # Not the data-parallel wrapper: processes may have different numbers of batches.
    objective, number = state.objective, state.progress.batch_idx_train
    depth = state.config.data.num_workers + 1
    for batch in prefetched(lambda i: dataset.get(i, 0), batches, readers, depth=depth):
        losses = compute_losses(objective, batch, number, data.head(stream), state, device)
        totals = totals + batch_totals(losses, batch)
    return LossTotals(*sum_over_ranks(totals.values(), state.ranks, device))
