"""Kinds scaling.*: what training adds to the encoders' gradients, and layers with scales."""

import random
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from snowmelt.models.lstm.projected import ScaledLstm
from snowmelt.models.regularisers import (
    ActivationBalancer,
    BasicNorm,
    MaxEig,
    ThresholdBalancer,
    Whiten,
    double_swish,
    filter_gradients,
    penalize_abs_values_gt,
    random_clamp,
    softmax,
    whitening_metric,
)
from snowmelt.models.scaled_layers import (
    ScaledConv1d,
    ScaledConv2d,
    ScaledEmbedding,
    ScaledLinear,
)
from tests.parity.adapters.gradients import call_with_gradients
from tests.parity.cases import Run

__all__ = ["KINDS"]


def _arguments(run: Run, *names: str) -> dict[str, Any]:
    return {name: run.params[name] for name in names if name in run.params}


def _draws(value: float) -> Any:
    """Every coin flip of Python's generator gives this value."""
    return mock.patch.object(random, "random", lambda: value)


def _double_swish(run: Run) -> dict[str, Any]:
    # The derivative is exact here; the 8-bit sample of the original allows for that by its
    # tolerance of two steps.
    return call_with_gradients(run, double_swish)


def _basic_norm(run: Run) -> dict[str, Any]:
    norm = BasicNorm(
        **_arguments(run, "num_channels", "channel_dim", "eps", "learn_eps", "eps_min", "eps_max")
    )
    norm.load_state_dict(run.weights())
    norm.eval()
    return call_with_gradients(run, norm, module=norm)


def _activation_balancer(run: Run) -> dict[str, Any]:
    names = ["min_positive", "max_positive", "min_abs", "max_abs", "min_prob", "max_factor"]
    names += ["num_channels", "channel_dim", "sign_gain_factor", "scale_gain_factor"]
    balancer = ActivationBalancer(**_arguments(run, *names)).train()
    count = torch.tensor(run.params["count"], dtype=torch.int64)
    balancer.load_state_dict({"count": count})
    assert balancer.current_prob() == pytest.approx(run.params["prob"])
    with _draws(run.params["random_draw"]):
        return call_with_gradients(run, balancer)


def _threshold_balancer(run: Run) -> dict[str, Any]:
    names = ["min_positive", "max_positive", "min_abs", "max_abs", "max_factor", "balance_prob"]
    balancer = ThresholdBalancer(**_arguments(run, "channel_dim", *names)).train()
    with _draws(run.params["random_draw"]):
        return call_with_gradients(run, balancer)


def _gradient_filter(run: Run) -> dict[str, Any]:
    assert run.params["batch_dim"] == 1
    inputs = run.inputs()
    grad_x, grad_w = inputs.pop("grad_output"), inputs.pop("grad_output.w")
    x, w = inputs["x"].clone().requires_grad_(), inputs["w"].clone().requires_grad_()
    same_x, (same_w,) = filter_gradients(run.params["threshold"], x, [w])
    torch.autograd.backward([same_x, same_w], [grad_x, grad_w])
    return {"grad.x": x.grad, "grad.w": w.grad}


_SCALED_LAYERS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "ScaledLinear": (
        ScaledLinear,
        ("in_features", "out_features", "bias", "initial_scale", "initial_speed"),
    ),
    "ScaledConv1d": (
        ScaledConv1d,
        ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "bias"),
    ),
    "ScaledConv2d": (
        ScaledConv2d,
        ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "bias"),
    ),
    "ScaledEmbedding": (ScaledEmbedding, ("num_embeddings", "embedding_dim")),
    "ScaledLSTM": (
        ScaledLstm,
        ("input_size", "hidden_size", "proj_size", "grad_norm_threshold"),
    ),
}


def _scaled_layers(run: Run) -> dict[str, Any]:
    kind, names = _SCALED_LAYERS[run.params["class"]]
    layer = kind(**_arguments(run, *names)).train()
    layer.load_state_dict(run.weights())

    def call(x: Tensor) -> Any:
        if not isinstance(layer, ScaledLstm):
            return layer(x)
        size = layer.output_size, layer.hidden_size
        return layer(x, *(x.new_zeros(x.size(1), width) for width in size))

    return call_with_gradients(run, call, module=layer)


def _whiten(run: Run) -> dict[str, Any]:
    if run.call == "whitening_metric":
        metric = whitening_metric(run.inputs()["x"], run.params["num_groups"])
        return {"metric": metric}
    names = ["num_groups", "whitening_limit", "prob", "grad_scale"]
    whiten = Whiten(**_arguments(run, *names)).train()
    with _draws(run.params["random_draw"]):
        return call_with_gradients(run, whiten)


def _max_eig(run: Run) -> dict[str, Any]:
    names = ["num_channels", "channel_dim", "max_var_per_eig", "min_prob", "scale"]
    module = MaxEig(**_arguments(run, *names)).train()
    inputs = run.inputs()
    module.load_state_dict({"max_eig_direction": inputs.pop("max_eig_direction")})
    module.cur_prob = run.params["initial_cur_prob"]
    recorder = _RecordedCalls(module, run.params["calls"])
    with _draws(run.params["random_draw"]):
        results = call_with_gradients(run, recorder, inputs=inputs)
    return {
        **results,
        "directions": torch.stack(recorder.directions),
        "cur_prob": recorder.probabilities,
    }


class _RecordedCalls:
    """Calls a MaxEig several times on one input, noting its state after each call."""

    def __init__(self, module: MaxEig, calls: int) -> None:
        self.module = module
        self.calls = calls
        self.directions: list[torch.Tensor] = []
        self.probabilities: list[float] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.calls):
            out: torch.Tensor = self.module(x)
            self.directions.append(self.module.max_eig_direction.clone())
            self.probabilities.append(self.module.cur_prob)
        return out


def _random_clamp(run: Run) -> dict[str, Any]:
    arguments = _arguments(run, "min", "max", "prob", "reflect")
    return call_with_gradients(run, lambda x: random_clamp(x, **arguments))


def _penalize_and_softmax(run: Run) -> dict[str, Any]:
    if run.call == "softmax":
        return call_with_gradients(run, lambda x: softmax(x, dim=run.params["dim"]))
    arguments = _arguments(run, "limit", "penalty")
    return call_with_gradients(run, lambda x: penalize_abs_values_gt(x, **arguments))


KINDS = {
    "scaling.double_swish": _double_swish,
    "scaling.lstm_double_swish": _double_swish,
    "scaling.basic_norm": _basic_norm,
    "scaling.activation_balancer": _activation_balancer,
    "scaling.lstm_activation_balancer": _threshold_balancer,
    "scaling.lstm_gradient_filter": _gradient_filter,
    "scaling.lstm_scaled_layers": _scaled_layers,
    "scaling.whiten": _whiten,
    "scaling.max_eig": _max_eig,
    "scaling.random_clamp": _random_clamp,
    "scaling.penalize_and_softmax": _penalize_and_softmax,
}
