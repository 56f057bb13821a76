"""Conv2dSubsampling: lengths, what a frame sees, names, normalisation."""

import pytest
import torch

from snowmelt.models.lstm.subsampling import Conv2dSubsampling
from snowmelt.presets.frames import LSTM_FRONT_END, num_encoder_frames


@pytest.fixture
def module() -> Conv2dSubsampling:
    torch.manual_seed(0)
    return Conv2dSubsampling(20, 12, layer1_channels=4, layer2_channels=6, layer3_channels=8).eval()


@pytest.mark.parametrize("num_frames", [9, 10, 12, 13, 39, 40])
def test_length(module: Conv2dSubsampling, num_frames: int) -> None:
    out = module(torch.randn(2, num_frames, 20))
    assert out.shape == (2, ((num_frames - 3) // 2 - 1) // 2, 12)
    assert out.size(1) == num_encoder_frames(num_frames)


@pytest.mark.parametrize("num_features", [9, 10, 11, 80])
def test_number_of_mel_bins(num_features: int) -> None:
    module = Conv2dSubsampling(num_features, 4, 2, 3, 5).eval()
    assert module(torch.randn(1, 9, num_features)).shape == (1, 1, 4)
    assert module.out.in_features == 5 * (((num_features - 3) // 2 - 1) // 2)


def test_a_frame_sees_nine_feature_frames(module: Conv2dSubsampling) -> None:
    x = torch.randn(1, 39, 20, requires_grad=True)
    module(x)[0, 5].sum().backward()
    assert x.grad is not None
    is_seen = x.grad[0].abs().sum(dim=1) > 0
    assert is_seen.nonzero().flatten().tolist() == list(range(20, 29))


def test_windows_join_without_a_seam(module: Conv2dSubsampling) -> None:
    module.double()
    overlap = LSTM_FRONT_END.window_overlap
    x = torch.randn(1, 3 * 16 + overlap, 20, dtype=torch.float64)
    chunks = [module(x[:, begin : begin + 16 + overlap]) for begin in (0, 16, 32)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), module(x))


def test_names(module: Conv2dSubsampling) -> None:
    parts = ["weight", "bias", "weight_scale", "bias_scale"]
    layers = ["conv.0", "conv.3", "conv.6", "out"]
    expected = [f"{layer}.{part}" for layer in layers for part in parts]
    assert list(dict(module.named_parameters())) == expected
    assert list(module.state_dict()) == [*expected, "out_norm.eps"]


def test_folded_normalisation_sees_normalised_features(module: Conv2dSubsampling) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    module.double()
    x = 4.0 * torch.randn(2, 39, 20, dtype=torch.float64) - 9.0
    expected = module((x + 9.0) / 4.0)
    assert not torch.allclose(module(x), expected)
    module.fold_normalisation(-9.0, 4.0)
    torch.testing.assert_close(module(x), expected)


def test_training_gives_the_frames_of_evaluation(module: Conv2dSubsampling) -> None:
    module.double().eval()
    x = torch.randn(2, 39, 20, dtype=torch.float64)
    expected = module(x)
    torch.testing.assert_close(module.train()(x), expected)


def test_training_gives_finite_gradients(module: Conv2dSubsampling) -> None:
    module.train()
    module(torch.randn(2, 39, 20)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
