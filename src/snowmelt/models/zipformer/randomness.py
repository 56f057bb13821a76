"""What does training leave out or vary at random in a Zipformer, and how does that fade?

Schedules follow `batch_count`, the batches trained so far. Structure is drawn from Python's global
`random`, values in tensors from torch's global generator.

Invariant: no state; a draw is made only where there is something to decide.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py.
"""

import random
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

__all__ = [
    "dropped_layers",
    "dynamic_dropout",
    "feature_masks",
    "flip",
    "layer_drop_prob",
    "min_bypass_scale",
    "random_chunk_size",
    "skip_drop_prob",
]

# Share of the groups of frames whose upper channels are kept.
_FEATURE_KEEP_PROB: Final = 0.85


def flip(prob: float) -> bool:
    """True with probability `prob`."""
    return prob > 0.0 and random.random() < prob


def dynamic_dropout(batch_count: float) -> float:
    """Probability of skipping a module of a layer: 0.2 at the start, 0 from batch 2000."""
    return max(0.0, 0.2 * (1.0 - batch_count / 2000.0))


def min_bypass_scale(batch_count: float) -> float:
    """Lower limit of the bypass scale: 0.75 at the start, 0.25 from batch 20000."""
    return 0.75 - 0.5 * min(1.0, batch_count / 20000.0)


def skip_drop_prob(batch_count: float, warmup_batches: float) -> float:
    """Probability of leaving out a skip connection: 0.5 at the start, 0.025 after the warm-up."""
    return 0.5 - 0.475 * min(1.0, batch_count / warmup_batches)


def layer_drop_prob(batch_count: float, warmup_begin: float, warmup_end: float) -> float:
    """Probability of dropping a layer whose warm-up is from `warmup_begin` to `warmup_end`.

    The divisor is `warmup_end` where one would expect the length of the warm-up, so the probability
    jumps at its end: the original does this, and its published results were made with it.
    """
    if batch_count == 0.0:
        return 0.0
    if batch_count < warmup_begin:
        return 0.5
    if batch_count > warmup_end:
        return 0.05
    return 0.5 - 0.45 * (batch_count - warmup_begin) / warmup_end


def dropped_layers(probs: Sequence[float]) -> set[int]:
    """Indexes of the layers of a stack that a batch passes over.

    As many as the probabilities add up to, the fraction decided by a draw; which ones is drawn in
    proportion to the probabilities.

    Args:
        probs: of each layer; all 0 or none.
    """
    total = sum(probs)
    num_dropped = int(total) + flip(total - int(total))
    order = list(range(len(probs)))
    random.shuffle(order)
    dropped: set[int] = set()
    while len(dropped) < num_dropped:
        for index in order:
            if len(dropped) < num_dropped and flip(probs[index]):
                dropped.add(index)
    return dropped


def random_chunk_size(
    num_frames: int, multiple: int, short_chunk_size: int, short_chunk_threshold: float
) -> int:
    """Chunk size of a batch in 20 ms frames, a multiple of `multiple` or `num_frames`.

    One draw n from 1 ... num_frames // multiple - 1: above the share `short_chunk_threshold` of
    this range it means full attention, below it is folded to at most `short_chunk_size`.
    """
    max_chunks = num_frames // multiple
    if max_chunks < 2:  # the original fails here
        return num_frames
    n = random.randint(1, max_chunks - 1)
    if n > max_chunks * short_chunk_threshold:
        return num_frames
    return (n % (short_chunk_size // multiple) + 1) * multiple


def feature_masks(
    x: Tensor, dims: Sequence[int], unmasked_dims: Sequence[int], factors: Sequence[int]
) -> list[Tensor | None]:
    """Factors that silence the upper channels of some groups of frames, for each stack.

    A group is one frame at the lowest rate; the same groups are silenced in all stacks.

    Args:
        x: (T, N, C), for its frames, utterances and type.
        dims: channels of each stack.
        unmasked_dims: channels that are never silenced.
        factors: downsampling factor of each stack.

    Returns:
        For each stack (ceil(T / ds), N, dim), or None where no channel may be silenced.
    """
    num_frames, batch_size, _ = x.shape
    group = max(factors)
    draws = torch.rand(-(-num_frames // group), batch_size, 1, device=x.device)
    kept = (draws < _FEATURE_KEEP_PROB).to(x.dtype)
    masks: list[Tensor | None] = []
    for dim, unmasked, ds in zip(dims, unmasked_dims, factors, strict=True):
        if unmasked == dim:
            masks.append(None)
            continue
        mask = kept.repeat_interleave(group // ds, dim=0)[: -(-num_frames // ds)]
        mask = mask.repeat(1, 1, dim)
        mask[..., :unmasked] = 1.0
        masks.append(mask)
    return masks
