"""One layer: its formula, and how much it counts in training."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snowmelt.models.lstm.layer import LstmLayer


def _layer(**arguments: float) -> LstmLayer:
    torch.manual_seed(0)
    layer = LstmLayer(
        **{
            "d_model": 6,
            "rnn_hidden_size": 8,
            "dim_feedforward": 10,
            "dropout": 0.0,
            "layer_dropout": 0.075,
            "grad_norm_threshold": 10.0,
            **arguments,
        }
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def _run(layer: LstmLayer, x: Tensor, warmup: float = 1.0) -> Tensor:
    out: Tensor = layer(x, x.new_zeros(3, 6), x.new_zeros(3, 8), warmup)[0]
    return out


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets what every coin flip gives."""
    return lambda value: monkeypatch.setattr(random, "random", lambda: value)


def test_names() -> None:
    lstm = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0"]
    linear = ["weight", "bias", "weight_scale", "bias_scale"]
    assert list(_layer().state_dict()) == [
        *(f"lstm.{name}" for name in lstm),
        *(f"lstm.{name}_scale" for name in lstm),
        *(f"feed_forward.0.{name}" for name in linear),
        *(f"feed_forward.4.{name}" for name in linear),
        "norm_final.eps",
    ]
    assert "lstm.weight_hr_l0" not in _layer(rnn_hidden_size=6).state_dict()


def test_formula() -> None:
    layer = _layer().eval()
    x = torch.randn(5, 3, 6)
    hs, _ = layer.lstm(x, torch.zeros(3, 6), torch.zeros(3, 8))
    y = x + hs
    y = y + layer.feed_forward(y)
    y = y / (y.square().mean(dim=2, keepdim=True) + layer.norm_final.eps.exp()).sqrt()
    torch.testing.assert_close(_run(layer, x), y)
    # Evaluation knows no warm-up.
    assert torch.equal(_run(layer, x, warmup=0.0), _run(layer, x))


@pytest.mark.parametrize(
    ("warmup", "coin", "share"),
    [(0.0, 0.5, 0.1), (0.3, 0.5, 0.4), (0.9, 0.5, 1.0), (5.0, 0.5, 1.0), (5.0, 0.07, 0.1)],
)
def test_a_fresh_or_dropped_layer_counts_for_a_tenth(
    draw: Callable[[float], None], warmup: float, coin: float, share: float
) -> None:
    draw(coin)
    layer = _layer()
    x = torch.randn(5, 3, 6)
    with torch.no_grad():
        whole = _run(layer.eval(), x)
        part = _run(layer.train(), x, warmup)
    torch.testing.assert_close(part, share * whole + (1.0 - share) * x)


def test_no_layer_dropout_draws_nothing() -> None:
    layer = _layer(layer_dropout=0.0).train()
    before = random.getstate()
    with torch.no_grad():
        _run(layer, torch.randn(2, 3, 6))
    assert random.getstate() == before


def test_dropout_acts_in_training_only() -> None:
    layer = _layer(dropout=0.5, layer_dropout=0.0)
    x = torch.randn(5, 3, 6)
    with torch.no_grad():
        assert torch.equal(_run(layer.eval(), x), _run(layer, x))
        assert not torch.equal(_run(layer.train(), x), _run(layer, x))
