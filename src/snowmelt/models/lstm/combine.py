"""How do the outputs of several layers all learn to be the encoder's? A random mixture of them.

Invariant: in evaluation it is the last input, and no random number is drawn.

Source: icefall, egs/librispeech/ASR/lstm_transducer_stateless2/lstm.py, RandomCombine.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["RandomCombine", "aux_layers"]


def aux_layers(num_layers: int, period: int) -> tuple[int, ...]:
    """Indexes of the layers whose outputs are combined, the last one always among them.

    Args:
        num_layers: of the encoder.
        period: every so many layers, from a third of the way on; 0: the last only.

    Example:
        >>> aux_layers(12, 3)
        (4, 7, 10, 11)
    """
    others = range(num_layers // 3, num_layers - 1, period) if period > 0 else ()
    return (*others, num_layers - 1)


class RandomCombine(nn.Module):
    """Per frame, one of the inputs or a random mixture of all of them.

    Args:
        num_inputs: n, >= 2.
        final_weight: how often the last input is the one that is chosen; the same share decides how
            much larger than the others its part in a mixture is.
        pure_prob: how often a frame is one of the inputs.
        stddev: of the logarithms of the parts of a mixture.
    """

    def __init__(
        self,
        num_inputs: int,
        final_weight: float = 0.5,
        pure_prob: float = 0.333,
        stddev: float = 2.0,
    ) -> None:
        super().__init__()
        assert num_inputs >= 2, num_inputs
        assert 0.0 < final_weight < 1.0, final_weight
        self.num_inputs = num_inputs
        self.final_weight = final_weight
        self.pure_prob = pure_prob
        self.stddev = stddev

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Combine n tensors (T, N, C) to one of the same shape."""
        assert len(inputs) == self.num_inputs, len(inputs)
        if not self.training:
            return inputs[-1]
        weights = self._random_weights(inputs[-1])
        combined = weights[0] * inputs[0]
        for weight, x in zip(weights[1:], inputs[1:], strict=True):
            combined = torch.addcmul(combined, weight, x)
        return combined

    def _random_weights(self, like: Tensor) -> tuple[Tensor, ...]:
        """n tensors (T, N, 1) with a sum of 1."""
        frames, last, device = like.shape[:-1], self.num_inputs - 1, like.device
        is_last = torch.rand(frames, device=device) < self.final_weight
        choice = torch.randint(last, frames, device=device).masked_fill(is_last, last)
        pure = F.one_hot(choice, self.num_inputs).to(like.dtype)
        logits = self.stddev * torch.randn(
            *frames, self.num_inputs, dtype=like.dtype, device=device
        )
        logits[..., -1] += math.log(self.final_weight / (1.0 - self.final_weight) * last)
        is_pure = torch.rand(*frames, 1, device=device) < self.pure_prob
        return torch.where(is_pure, pure, logits.softmax(dim=-1)).tensor_split(last + 1, dim=-1)
