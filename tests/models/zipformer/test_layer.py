"""A layer's parts in whole and streamed form, and what training leaves out of it."""

import random
from unittest import mock

import pytest
import torch
from torch import Tensor

from snowmelt.models.zipformer import layer as layer_module
from snowmelt.models.zipformer.attention import RelPositionalEncoding
from snowmelt.models.zipformer.layer import PoolingModule, ZipformerEncoderLayer
from snowmelt.models.zipformer.windows import Windows, full_windows

_NUM_FRAMES, _CHANNELS = 6, 12


def _layer() -> ZipformerEncoderLayer:
    torch.manual_seed(0)
    layer = ZipformerEncoderLayer(
        _CHANNELS, attention_dim=8, nhead=2, feedforward_dim=16, dropout=0.0, cnn_module_kernel=3
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        layer.bypass_scale.fill_(0.6)
    return layer.double()


def _inputs() -> tuple[Tensor, Tensor, Windows]:
    torch.manual_seed(1)
    x = torch.randn(_NUM_FRAMES, 2, _CHANNELS, dtype=torch.float64)
    windows = full_windows(_NUM_FRAMES, torch.tensor([_NUM_FRAMES, 4]))
    return x, RelPositionalEncoding(_CHANNELS, 0.0).rows(_NUM_FRAMES, 0, x), windows


def test_pooling_is_the_mean_of_all_frames_so_far() -> None:
    torch.manual_seed(0)
    pooling = PoolingModule(4).double()
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    expected = torch.stack([x[: t + 1].mean(dim=0) for t in range(5)]) @ pooling.proj.weight.T
    torch.testing.assert_close(pooling(x), expected)
    padding_mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    masked = pooling(x, padding_mask)
    assert not masked[3:, 1].any()
    torch.testing.assert_close(masked[:3], expected[:3])


def test_pooling_stream_keeps_the_precision_of_its_input() -> None:
    torch.manual_seed(0)
    pooling = PoolingModule(4).double()
    x = torch.randn(60, 1, 4, dtype=torch.float64)
    average, outs = torch.zeros(1, 4, dtype=torch.float64), []
    for begin in range(0, 60, 3):
        out, means = pooling.stream(x[begin : begin + 3], torch.tensor([begin]), average)
        average = means[-1]
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs), pooling(x), rtol=0.0, atol=1e-13)


def test_evaluation_draws_nothing() -> None:
    layer = _layer().eval()
    state = random.getstate()
    a, b = layer(*_inputs()), layer(*_inputs())
    assert torch.equal(a, b)
    assert random.getstate() == state


def test_what_training_skips_is_not_computed() -> None:
    layer = _layer().train()
    x, pos_emb, windows = _inputs()
    parts = ["pooling", "self_attn", "conv_module1", "conv_module2"]
    calls: list[str] = []
    for name in parts:
        layer.get_submodule(name).register_forward_hook(
            lambda *_, name=name: calls.append(name)  # type: ignore[misc]
        )
    for draw, expected in [(0.0, []), (0.999, parts)]:  # every skip says yes, every skip says no
        calls.clear()
        with mock.patch.object(random, "random", lambda draw=draw: draw):
            layer(x, pos_emb, windows)
        assert calls == expected
    layer.batch_count = 2000.0  # from here nothing is skipped
    calls.clear()
    with mock.patch.object(random, "random", lambda: 0.0):
        layer(x, pos_emb, windows)
    assert calls == parts


@pytest.mark.parametrize(("scale", "expected"), [(0.6, 0.75), (0.9, 0.9), (1.2, 1.0)])
def test_bypass_scale_is_clamped_in_training(scale: float, expected: float) -> None:
    layer = _layer().train()
    layer.bypass_scale.data.fill_(scale)
    with mock.patch.object(layer_module, "flip", lambda prob: False):
        assert layer._training_bypass_scale().item() == pytest.approx(expected)
    with mock.patch.object(layer_module, "flip", lambda prob: True):
        assert layer._training_bypass_scale() is layer.bypass_scale
    layer.batch_count = 20000.0
    with mock.patch.object(layer_module, "flip", lambda prob: False):
        assert layer._training_bypass_scale().item() == pytest.approx(min(1.0, scale))


def test_bypass_mixes_input_and_result() -> None:
    layer = _layer().eval()
    layer.bypass_scale.data.fill_(0.0)
    x, pos_emb, windows = _inputs()
    torch.testing.assert_close(layer(x, pos_emb, windows), x)
