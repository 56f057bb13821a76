"""Gate and depthwise convolution in compiled loops: torch's numbers in every slot."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snowmelt.models.zipformer.convolution import depthwise_conv
from snowmelt.models.zipformer.convolution_cpu import gated_conv
from snowmelt.models.zipformer.packing import pack, packing_of, unpack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "kernel_size"), [(24, 5), (32, 31), (7, 1)])
@pytest.mark.parametrize("downsampling", [1, 4])
def test_values_and_gradients(
    dtype: torch.dtype, channels: int, kernel_size: int, downsampling: int
) -> None:
    # Slots of 16, 8, 72 frames, or of 4, 2, 18: not all multiples of the loops' group of 4.
    packing = packing_of(torch.tensor([11, 4, 61]), 8).at(downsampling)
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    num_frames = packing.offsets[-1]
    x, grad = draw(num_frames, 1, 2 * channels).to(dtype), draw(num_frames, 1, channels).to(dtype)
    weight, bias = draw(channels, 1, kernel_size), draw(channels)

    def reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        frames = unpack(F.glu(x, dim=-1), packing)
        frames = F.pad(frames, (0, 0, 0, 0, kernel_size - 1, 0))
        return pack(depthwise_conv(frames, weight, bias), packing)

    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    wanted_y = reference(*exact)
    wanted = [wanted_y, *torch.autograd.grad(wanted_y, exact, grad.double())]
    own = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y = gated_conv(own[0], own[1], own[2], packing)
    results = [y, *torch.autograd.grad(y, own, grad)]
    assert [r.dtype for r in results] == [dtype, dtype, torch.float32, torch.float32]
    for result, value in zip(results, wanted, strict=True):
        # Sums are in float32 in both; bfloat16 keeps 8 bits of what goes in and out.
        tolerance = 1e-5 if result.dtype == torch.float32 else 4e-3
        limit = tolerance * float(value.detach().abs().max())
        assert float((result - value).detach().abs().max()) <= limit
