"""The causal convolution: its two forms, streaming, and where the zeros are."""

import torch
import torch.nn.functional as F

from snowmelt.models.zipformer.convolution import ConvolutionModule, depthwise_conv


def test_depthwise_conv_is_conv1d_forward_and_backward() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(20, 3, 6), torch.randn(6, 1, 5), torch.randn(6)]
    results = []
    for as_conv1d in (False, True):
        x, weight, bias = (tensor.clone().requires_grad_() for tensor in inputs)
        if as_conv1d:
            out = F.conv1d(x.permute(1, 2, 0), weight, bias, groups=6).permute(2, 0, 1)
        else:
            out = depthwise_conv(x, weight, bias)
        out.square().sum().backward()
        results.append([out, x.grad, weight.grad, bias.grad])
    assert results[0][0].shape == (16, 3, 6)
    for image, series in zip(*results, strict=True):
        torch.testing.assert_close(image, series)


def test_depthwise_conv_on_other_devices_has_the_same_shape() -> None:
    x, weight, bias = (torch.empty(shape, device="meta") for shape in [(9, 2, 6), (6, 1, 5), (6,)])
    assert depthwise_conv(x, weight, bias).shape == (5, 2, 6)


def test_stream_goes_on_where_it_stopped() -> None:
    torch.manual_seed(0)
    module = ConvolutionModule(8, kernel_size=7).double().eval()
    x = torch.randn(12, 2, 8, dtype=torch.float64)
    whole = module(x)
    cache = x.new_zeros(6, 2, 8)
    outs = []
    for begin in range(0, 12, 3):  # chunks shorter than the kernel
        out, frames = module.stream(x[begin : begin + 3], cache)
        assert frames.shape == (9, 2, 8)
        outs.append(out)
        cache = frames[-6:]
    torch.testing.assert_close(torch.cat(outs), whole)


def test_no_frame_sees_a_later_one_and_padding_enters_as_zeros() -> None:
    torch.manual_seed(0)
    module = ConvolutionModule(8, kernel_size=5).double().eval()
    x = torch.randn(10, 2, 8, dtype=torch.float64)
    padding_mask = torch.zeros(2, 10, dtype=torch.bool)
    padding_mask[1, 6:] = True
    out = module(x, padding_mask)
    other = x.clone()
    other[6:, 1] = 7.0
    torch.testing.assert_close(module(other, padding_mask), out)
    torch.testing.assert_close(module(other)[:6], out[:6])
    assert not torch.allclose(module(other)[6:, 1], out[6:, 1])
