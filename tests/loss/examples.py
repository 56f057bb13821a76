"""The two worked examples of the loss, (lm, am, symbols, blank id), in float64."""

from typing import Final

import torch
from torch import Tensor

Example = tuple[Tensor, Tensor, Tensor, int]

EXAMPLE_A: Final[Example] = (
    torch.tensor([[[0, 0, 1], [0, 1, 1], [1, 0, 1], [2, 2, 0]]], dtype=torch.float64),
    torch.tensor([[[0, 1, 2], [0, 0, 0], [0, 2, 4], [0, 3, 3]]], dtype=torch.float64),
    torch.tensor([[0, 1, 0]]),
    2,
)
EXAMPLE_B: Final[Example] = (
    torch.tensor([[[0, 1, 0], [0.5, 0, 1], [1, 0, 0]]], dtype=torch.float64),
    torch.tensor([[[0, 1, 0], [1, 0, 0], [0, 0, 2]]], dtype=torch.float64),
    torch.tensor([[1, 2]]),
    0,
)
