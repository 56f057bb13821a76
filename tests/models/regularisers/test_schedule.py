"""Batch counts and the numbers regularisers keep outside the state dict."""

import pytest
import torch
from torch import nn

from snowmelt.core.errors import CheckpointError
from snowmelt.models.regularisers import (
    ActivationBalancer,
    MaxEig,
    Whiten,
    load_regulariser_state,
    regulariser_state,
    set_batch_count,
    set_schedule_scale,
)


class _Counting(nn.Identity):
    def __init__(self) -> None:
        super().__init__()
        self.batch_count = 0.0


def _model() -> nn.Sequential:
    whiten = Whiten(1, 2.0, prob=(0.025, 0.25), grad_scale=0.1)
    return nn.Sequential(ActivationBalancer(2, -1), whiten, MaxEig(2, -1), _Counting())


def test_batch_count_reaches_the_modules_that_have_one() -> None:
    model = _model()
    set_batch_count(model, 17.0)
    assert model[3].batch_count == 17.0
    assert not hasattr(model[0], "batch_count")


def test_schedule_scale_reaches_balancers() -> None:
    model = _model()
    set_schedule_scale(model, 0.1)
    assert model[0].schedule_scale == 0.1


def test_state_goes_round() -> None:
    model = _model().train()
    model(torch.randn(3, 2, requires_grad=True))
    model[1].prob = 0.025
    state = regulariser_state(model)
    assert state == {"0.num_calls": 1, "1.prob": 0.025, "2.cur_prob": model[2].cur_prob}
    other = _model()
    load_regulariser_state(other, state)
    assert regulariser_state(other) == state


def test_foreign_state_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"'9\.prob'"):
        load_regulariser_state(_model(), {"9.prob": 0.5})
