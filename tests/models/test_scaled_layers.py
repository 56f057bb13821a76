"""Layers with scales: names, initial values, and the plain layers they stand for."""

import math

import pytest
import torch
from torch import nn

from snowmelt.models.scaled_layers import (
    ScaledConv1d,
    ScaledConv2d,
    ScaledEmbedding,
    ScaledLinear,
    fold_scales,
)

LAYERS = [
    (lambda: ScaledLinear(6, 4), (5, 6), nn.Linear),
    (lambda: ScaledLinear(6, 4, bias=False), (5, 6), nn.Linear),
    (lambda: ScaledConv1d(4, 6, 3, groups=2, bias=False), (2, 4, 7), nn.Conv1d),
    (lambda: ScaledConv1d(4, 6, 3, stride=2, padding=1), (2, 4, 7), nn.Conv1d),
    (lambda: ScaledConv2d(2, 3, 3, stride=2), (2, 2, 9, 8), nn.Conv2d),
]


@pytest.mark.parametrize(("build", "shape", "plain"), LAYERS)
def test_stands_for_the_plain_layer_of_scaled_weights(build, shape, plain) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(build()).double()
    names = list(model.state_dict())
    assert names == sorted(names, key=lambda n: (n.endswith("_scale"), n != "0.weight"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    effective = {
        name: model.state_dict()[name] * model.state_dict()[f"{name}_scale"].exp()
        for name in names
        if not name.endswith("_scale")
    }
    x = torch.randn(shape, dtype=torch.float64)
    expected = model(x)
    fold_scales(model)
    assert type(model[0]) is plain
    assert list(model.state_dict()) == list(effective)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, effective[name])
    torch.testing.assert_close(model(x), expected)


def test_embedding_stands_for_the_table_of_scaled_rows() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"e": ScaledEmbedding(5, 3)})
    assert list(model.state_dict()) == ["e.scale", "e.weight"]
    ids = torch.tensor([[4, 0, 4], [1, 2, 3]])
    expected = model["e"].weight[ids] * model["e"].scale.exp()
    torch.testing.assert_close(model["e"](ids), expected)
    fold_scales(model)
    assert type(model["e"]) is nn.Embedding
    torch.testing.assert_close(model["e"](ids), expected)
    assert model["e"].weight.requires_grad


@pytest.mark.parametrize(("scale", "speed"), [(1.0, 1.0), (0.25, 1.0), (1.0, 0.5)])
def test_fresh_linear_layers_give_outputs_of_their_initial_scale(
    scale: float, speed: float
) -> None:
    torch.manual_seed(0)
    layer = ScaledLinear(400, 300, initial_scale=scale, initial_speed=speed)
    limit = 0.1 * math.sqrt(3.0) / speed
    assert 0.99 * limit < float(layer.weight.detach().abs().max()) <= limit
    assert not layer.bias.any()
    assert float(layer.weight_scale.detach()) == pytest.approx(
        math.log(scale * 400**-0.5 / (0.1 / speed))
    )
    assert float(layer.bias_scale.detach()) == pytest.approx(math.log(scale))
    out = layer(torch.randn(500, 400))
    assert float(out.detach().std()) == pytest.approx(scale, rel=0.03)


def test_fan_in_of_a_convolution_is_what_one_output_sees() -> None:
    torch.manual_seed(0)
    one = ScaledConv1d(512, 512, 2, groups=512, bias=False)
    assert float(one.weight_scale.detach()) == pytest.approx(math.log(2**-0.5 / 0.1))
    two = ScaledConv2d(8, 32, 3)
    assert float(two.weight_scale.detach()) == pytest.approx(math.log(72**-0.5 / 0.1))
    table = ScaledEmbedding(300, 200)
    assert float(table(torch.arange(300)).detach().std()) == pytest.approx(1.0, rel=0.02)


def test_folding_goes_deep_and_leaves_plain_layers_and_modes_alone() -> None:
    plain = nn.Linear(3, 3)
    model = nn.Sequential(nn.Sequential(ScaledLinear(3, 3), plain), nn.ReLU()).double().eval()
    fold_scales(model)
    assert type(model[0][0]) is nn.Linear
    assert model[0][0].weight.dtype == torch.float64
    assert not model[0][0].training
    assert model[0][1] is plain


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("build", "shape", "plain"), LAYERS)
def test_is_scriptable(build, shape, plain) -> None:
    layer, x = build(), torch.randn(shape)
    assert torch.equal(torch.jit.script(layer)(x), layer(x))
