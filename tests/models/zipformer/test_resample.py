"""Going down in frame rate, coming up again, and mixing the two."""

import random

import pytest
import torch
from torch import Tensor

from snowmelt.models.zipformer.resample import AttentionDownsample, SimpleCombiner, SimpleUpsample


def slow_downsample(module: AttentionDownsample, frames: Tensor) -> Tensor:
    """One utterance (T, C) of any length, group by group."""
    groups = []
    for begin in range(0, frames.size(0), module.downsample):
        group = frames[begin : begin + module.downsample]
        missing = module.downsample - group.size(0)
        group = torch.cat([group, group[-1:].expand(missing, -1)])
        weights = (group @ module.query).softmax(dim=0)
        mean = weights @ group
        if module.extra_proj is not None:
            mean = torch.cat([mean, module.extra_proj(group.flatten())])
        groups.append(mean)
    return torch.stack(groups)


@pytest.mark.parametrize("downsample", [2, 4, 8])
@pytest.mark.parametrize("out_channels", [6, 9])
def test_exact_result_is_that_of_each_utterance_alone(downsample: int, out_channels: int) -> None:
    torch.manual_seed(0)
    module = AttentionDownsample(6, out_channels, downsample).double().eval()
    lengths = torch.tensor([13, 8, 1, 16, 0])
    x = torch.randn(16, 5, 6, dtype=torch.float64)
    out = module(x, lengths)
    assert out.shape == (16 // downsample, 5, out_channels)
    for n, length in enumerate(lengths.tolist()):
        expected = slow_downsample(module, x[:length, n]) if length else out[:0, n]
        torch.testing.assert_close(out[: expected.size(0), n], expected)


def test_later_frames_repeat_the_utterances_own_last_frame() -> None:
    torch.manual_seed(0)
    module = AttentionDownsample(6, 6, 2).double().eval()
    x = torch.randn(9, 2, 6, dtype=torch.float64)
    out = module(x, torch.tensor([9, 4]))
    torch.testing.assert_close(out[2:, 1], x[3, 1].expand(3, 6))
    x[4:, 1] = torch.inf  # and nothing of the padding is looked at
    assert torch.equal(module(x, torch.tensor([9, 4])), out)


def test_compat_fills_up_with_the_batchs_last_frame() -> None:
    torch.manual_seed(0)
    module = AttentionDownsample(6, 6, 4).double().eval()
    x = torch.randn(10, 3, 6, dtype=torch.float64)
    out = module(x)
    for n in range(3):
        torch.testing.assert_close(out[:, n], slow_downsample(module, x[:, n]))


def test_no_gradient_reaches_padding() -> None:
    torch.manual_seed(0)
    module = AttentionDownsample(6, 6, 4).train()
    x = torch.randn(10, 2, 6, requires_grad=True)
    module(x, torch.tensor([10, 5])).square().sum().backward()
    assert x.grad is not None
    assert x.grad[:5, 1].abs().min() > 0
    assert x.grad[5:, 1].abs().max() == 0


def test_large_scores_are_penalised_in_training_only() -> None:
    module = AttentionDownsample(2, 2, 2)
    with torch.no_grad():
        module.query.fill_(20.0)
    x = torch.ones(2, 1, 2, requires_grad=True)
    for is_training in (True, False):
        x.grad = None
        module.train(is_training)
        (0.0 * module(x)).sum().backward()
        assert x.grad is not None
        assert bool((x.grad > 0).all()) is is_training


def test_upsample_repeats_and_adds_the_bias() -> None:
    torch.manual_seed(0)
    module = SimpleUpsample(3, 4)
    x = torch.randn(5, 2, 3)
    y = module(x)
    assert y.shape == (20, 2, 3)
    for t in range(5):
        for j in range(4):
            torch.testing.assert_close(y[4 * t + j], x[t] + module.bias[j])


def test_combiner_pads_the_narrower_input() -> None:
    torch.manual_seed(0)
    module = SimpleCombiner(2, 3, (0.0, 0.25)).eval()
    with torch.no_grad():
        module.weight1.fill_(0.9)
    a, b = torch.randn(4, 1, 2), torch.randn(4, 1, 3)
    y = module(a, b)
    torch.testing.assert_close(y[..., :2], 0.9 * a + 0.1 * b[..., :2])
    torch.testing.assert_close(y[..., 2], 0.1 * b[..., 2])


def test_combiner_clamps_its_weight_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.1)
    one, zero = torch.ones(1, 1, 2), torch.zeros(1, 1, 2)
    module = SimpleCombiner(2, 2, (0.0, 0.25)).train()
    unlimited = SimpleCombiner(2, 2).train()
    with torch.no_grad():
        module.weight1.fill_(0.9)
        unlimited.weight1.fill_(0.9)
    torch.testing.assert_close(module(one, zero), 0.75 * one)
    torch.testing.assert_close(unlimited(one, zero), 0.9 * one)
    with torch.no_grad():
        torch.testing.assert_close(module(one, zero), 0.9 * one)
    monkeypatch.setattr(random, "random", lambda: 0.25)
    torch.testing.assert_close(module(one, zero), 0.9 * one)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_all_are_scriptable() -> None:
    x = torch.randn(7, 2, 6)
    lengths = torch.tensor([7, 3])
    for module in (AttentionDownsample(6, 6, 4), AttentionDownsample(6, 9, 4)):
        module.eval()
        scripted = torch.jit.script(module)
        assert torch.equal(scripted(x), module(x))
        assert torch.equal(scripted(x, lengths), module(x, lengths))
    upsample = SimpleUpsample(6, 2).eval()
    assert torch.equal(torch.jit.script(upsample)(x), upsample(x))
    combiner = SimpleCombiner(6, 6, (0.0, 0.25)).eval()
    assert torch.equal(torch.jit.script(combiner)(x, x), combiner(x, x))
