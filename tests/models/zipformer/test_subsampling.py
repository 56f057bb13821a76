"""Conv2dSubsampling: lengths, causality and names."""

import pytest
import torch

from snowmelt.models.zipformer.subsampling import Conv2dSubsampling


@pytest.fixture
def module() -> Conv2dSubsampling:
    torch.manual_seed(0)
    return Conv2dSubsampling(20, 12, layer1_channels=4, layer2_channels=6, layer3_channels=8).eval()


@pytest.mark.parametrize("num_frames", [9, 10, 11, 39, 40])
def test_length(module: Conv2dSubsampling, num_frames: int) -> None:
    assert module(torch.randn(2, num_frames, 20)).shape == (2, (num_frames - 7) // 2, 12)


def test_a_frame_sees_nine_feature_frames(module: Conv2dSubsampling) -> None:
    x = torch.randn(1, 39, 20, requires_grad=True)
    module(x)[0, 5].sum().backward()
    assert x.grad is not None
    is_seen = x.grad[0].abs().sum(dim=1) > 0
    assert is_seen.nonzero().flatten().tolist() == list(range(10, 19))


def test_chunks_with_seven_frames_of_overlap_join_without_a_seam(
    module: Conv2dSubsampling,
) -> None:
    module.double()
    x = torch.randn(1, 7 + 3 * 16, 20, dtype=torch.float64)
    chunks = [module(x[:, begin : begin + 23]) for begin in (0, 16, 32)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), module(x))


def test_parameter_names(module: Conv2dSubsampling) -> None:
    convolutions = [f"conv.{i}.{name}" for i in (0, 3, 6) for name in ("weight", "bias")]
    counts = [f"conv.{i}.count" for i in (1, 4, 7)]
    expected = {*convolutions, *counts, "out.weight", "out.bias"}
    assert set(module.state_dict()) == expected


def test_training_gives_finite_gradients_and_is_repeatable(module: Conv2dSubsampling) -> None:
    x = torch.randn(2, 39, 20)
    module.train()
    outputs = []
    for _ in range(2):
        torch.manual_seed(1)
        outputs.append(module(x))
        outputs[-1].square().sum().backward()
    assert torch.equal(outputs[0], outputs[1])
    assert all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in module.parameters())


def test_training_computes_what_evaluation_does(
    module: Conv2dSubsampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.double()
    x = torch.randn(2, 39, 20, dtype=torch.float64)
    grad = torch.randn(2, 16, 12, dtype=torch.float64)
    weights = list(module.parameters())
    expected = module(x)
    expected_grads = torch.autograd.grad(expected, weights, grad)
    # Balancers and dropout change nothing in evaluation mode.
    monkeypatch.setattr(module, "training", True)
    out = module(x)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    grads = torch.autograd.grad(out, weights, grad)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-12, atol=1e-12)
    assert module.conv(x.unsqueeze(-1).permute(0, 3, 1, 2)).is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_is_scriptable(module: Conv2dSubsampling) -> None:
    x = torch.randn(2, 39, 20)
    assert torch.equal(torch.jit.script(module)(x), module(x))
