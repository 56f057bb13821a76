"""Does the first line of a bad batch name where the infinity or NaN came from?"""

import logging
import math

import pytest
import torch
from torch import nn

from snowmelt.train.inf_check import InfCheck
from tests.train.watched import Small, TinyTransducer


@pytest.fixture(autouse=True)
def all_warnings(caplog):
    caplog.set_level(logging.WARNING)


def test_a_healthy_model_gives_no_line(caplog):
    for model, argument in ((Small(), torch.randn(5, 12)), (TinyTransducer(), 1)):
        with InfCheck(model):
            model(argument).backward()
    assert caplog.messages == []


def test_names_the_first_bad_output_and_each_name_once_per_batch(caplog):
    model, x = Small(), torch.ones(2, 12)
    with torch.no_grad():
        model.middle.register_forward_hook(lambda *_: None)
        model.first.bias[3] = math.nan
    with InfCheck(model):
        model.first(x)  # before the batch
        caplog.clear()
        for _ in range(2):
            model(x)
            model.last(torch.full((16,), math.inf))  # again, in the same batch
    expected = [
        "The sum of first.output is not finite (the first of this batch)",
        "The sum of middle.output[0] is not finite",
        "The sum of middle.output[2]['scale'] is not finite",
        "The sum of last.output is not finite",
        "The sum of Small.output is not finite",
    ]
    assert caplog.messages == expected * 2


def test_names_the_first_bad_gradient(caplog):
    class Root(nn.Module):
        """sqrt(0): a finite value with an infinite derivative."""

        def forward(self, x):
            return x.sqrt()

    model = nn.Sequential(nn.Linear(2, 2, bias=False), Root())
    with torch.no_grad():
        model[0].weight.zero_()
    with InfCheck(model):
        model(torch.ones(1, 2)).sum().backward()
    assert caplog.messages == [
        "The sum of 0.grad is not finite (the first of this batch)",
        "The sum of 0.weight.param_grad is not finite",
    ]


def test_finds_the_bad_layer_of_a_transducer(caplog):
    model = TinyTransducer()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        weights["model.encoder.encoders.2.encoder.layers.0.feed_forward2.in_proj.weight"][5, 1] = (
            math.nan
        )
    with InfCheck(model):
        model(seed=1)
    assert caplog.messages[0] == (
        "The sum of model.encoder.encoders.2.encoder.layers.0.feed_forward2.in_proj.output "
        "is not finite (the first of this batch)"
    )
    assert len(set(caplog.messages)) == len(caplog.messages)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_many_large_numbers_are_finite(dtype, caplog):
    model = nn.Identity()
    largest = {torch.float16: 6e4, torch.float64: 1e300}.get(dtype, 1e30)
    with InfCheck(model):
        model(torch.full((1000,), largest, dtype=dtype))
        assert caplog.messages == []
        model(torch.full((1000,), -math.inf, dtype=dtype))
        assert len(caplog.messages) == 1


def test_is_gone_when_removed(caplog):
    model = Small()
    with InfCheck(model):
        pass
    model(torch.full((1, 12), math.nan)).backward()
    assert caplog.messages == []
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
