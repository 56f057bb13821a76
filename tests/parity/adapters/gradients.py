"""How is a golden gradient computed? One way for every kind that has some.

Invariant: inputs are copied, so that a case's tensors are the same for every run.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.parity.cases import Run

__all__ = ["call_with_gradients"]


def call_with_gradients(
    run: Run,
    function: Callable[..., Any],
    *,
    module: nn.Module | None = None,
    inputs: dict[str, Any] | None = None,
    output_names: tuple[str, ...] = ("out",),
) -> dict[str, Any]:
    """Call `function(**inputs)` and collect the results and gradients that the run asks for.

    Args:
        run: names the results; its `grad_output` is the gradient of the first of `output_names`,
            without it the sum of that result is differentiated.
        function: what is called.
        module: whose parameters `grad.params` means.
        inputs: arguments; the run's own by default. `grad_output*` is no argument.
        output_names: names of what `function` returns, in order.

    Returns:
        Result name -> value.
    """
    arguments = dict(run.inputs() if inputs is None else inputs)
    grad_output = arguments.pop("grad_output", None)
    wanted = [name.removeprefix("grad.") for name in run.outputs if name.startswith("grad.")]
    for name in wanted:
        if name in arguments:
            arguments[name] = arguments[name].clone().requires_grad_()

    with torch.set_grad_enabled(bool(wanted)):
        returned = function(**arguments)
    values = returned if isinstance(returned, tuple | list) else (returned,)
    # A caller names the results it knows; the function may return more.
    results: dict[str, Any] = dict(zip(output_names, values, strict=False))
    if not wanted:
        return results

    first = values[0]
    if grad_output is None:
        first.sum().backward()
    else:
        first.backward(grad_output)
    parameters = dict(module.named_parameters()) if module is not None else {}
    for name in wanted:
        if name == "params":
            results["grad.params"] = {key: gradient_of(p) for key, p in parameters.items()}
        else:
            leaf = arguments[name] if name in arguments else parameters[name]
            results[f"grad.{name}"] = gradient_of(leaf)
    return results


def gradient_of(tensor: Tensor) -> Tensor:
    """The gradient; zeros where the result does not depend on the tensor."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
