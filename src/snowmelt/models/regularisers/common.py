"""When does a gradient-changing identity act, in which precision does it sum, with which loops?

Invariant: the questions every regulariser asks are answered here and nowhere else.
"""

import torch
from torch import Tensor, nn

__all__ = ["acts", "apply_function", "cpu_kernels_usable", "widened"]


def acts(module: nn.Module, x: Tensor) -> bool:
    """True if a gradient-changing module in training has a gradient to change."""
    return module.training and torch.is_grad_enabled() and x.requires_grad


def apply_function(function: type[torch.autograd.Function], *args: object) -> Tensor:
    """``function.apply(*args)``, which torch leaves without types."""
    result: Tensor = function.apply(*args)
    return result


def widened(x: Tensor) -> Tensor:
    """``x`` itself, or in float32 if it has half precision: sums need the range and the digits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def cpu_kernels_usable(x: Tensor) -> bool:
    """True if ``snowmelt.models.cpu_kernels`` can do the work; it is imported only then.

    Importing it loads numba, which recognising speech does not need.
    """
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
