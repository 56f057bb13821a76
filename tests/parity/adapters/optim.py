"""Kinds optim.*: ScaledAdam, Eve, Eden and the averaging of models."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snowmelt.checkpoint.average import (
    average_checkpoints,
    average_checkpoints_with_averaged_model,
    update_averaged_model,
)
from snowmelt.optim.eden import Eden
from snowmelt.optim.eve import Eve
from snowmelt.optim.scaled_adam import ScaledAdam
from tests.parity.cases import Run

__all__ = ["KINDS"]


def _scaled_adam(run: Run) -> dict[str, Any]:
    names = run.params["parameter_order"]
    return _steps(run, lambda p, **options: ScaledAdam(p, parameters_names=[names], **options))


def _steps(run: Run, make: Callable[..., Optimizer]) -> dict[str, Any]:
    """Values of all parameters after every step with the given gradients."""
    params = run.params
    inputs = run.inputs()
    names = params["parameter_order"]
    parameters = {name: nn.Parameter(inputs["init"][name].clone()) for name in names}
    no_options = ("steps", "parameter_order", "no_gradient")
    options = {name: value for name, value in params.items() if name not in no_options}
    options["betas"] = tuple(options["betas"])
    optimizer = make(list(parameters.values()), **options)
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    for step in range(params["steps"]):
        if inputs.get("lr") is not None:
            optimizer.param_groups[0]["lr"] = float(inputs["lr"][step])
        for name, parameter in parameters.items():
            has_gradient = step not in params.get("no_gradient", {}).get(name, [])
            parameter.grad = inputs["grads"][name][step].clone() if has_gradient else None
        optimizer.step()
        for name, parameter in parameters.items():
            values[name].append(parameter.detach().clone())
    return {"params": {name: torch.stack(steps) for name, steps in values.items()}}


def _eve(run: Run) -> dict[str, Any]:
    return _steps(run, Eve)


def _eden(run: Run) -> dict[str, Any]:
    params = run.params
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=params["base_lr"])
    eden = Eden(
        optimizer,
        params["lr_batches"],
        params["lr_epochs"],
        # None: a recipe without warm-up.
        warmup_batches=params["warmup_batches"] or 0.0,
    )
    rates = []
    if run.call == "table":
        inputs = run.inputs()
        for epoch, batch in zip(inputs["epoch"].tolist(), inputs["batch"].tolist(), strict=True):
            eden.step_epoch(int(epoch))
            eden.step_batch(int(batch))
            rates.append(optimizer.param_groups[0]["lr"])
    else:
        for call in params["calls"]:
            getattr(eden, call)()
            rates.append(optimizer.param_groups[0]["lr"])
    return {"lr": torch.tensor(rates, dtype=torch.float64)}


def _averaging(run: Run) -> dict[str, Any]:
    inputs = run.inputs()
    if run.call == "update_averaged_model":
        model_avg = {
            # The running mean is a float64 copy of the model from the start.
            key: tensor.to(torch.float64 if tensor.is_floating_point() else tensor.dtype, copy=True)
            for key, tensor in inputs["model_avg"].items()
        }
        update_averaged_model(
            inputs["model_cur"],
            model_avg,
            run.params["batch_idx_train"],
            run.params["average_period"],
        )
        return {"model_avg": model_avg}
    if run.call == "average_checkpoints":
        return {"model": average_checkpoints(inputs["models"])}
    return {"model": average_checkpoints_with_averaged_model(inputs["start"], inputs["end"])}


KINDS = {
    "optim.averaging": _averaging,
    "optim.scaled_adam": _scaled_adam,
    "optim.eve": _eve,
    "optim.eden": _eden,
}
