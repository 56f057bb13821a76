"""Which tensors can be looked at while a model learns? Outputs, their gradients, and parameters'.

    <module>.output, <module>.output[1]    what a module returns; its parts if there are several
    <module>.grad, <module>.grad[1]        the gradients of the loss with respect to them
    <parameter>.param_grad                 the gradient of a parameter

The model itself goes by the name of its class.

Invariant: looking changes no number; a model that is no longer watched is as it was before.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["watch_tensors"]


def watch_tensors(model: nn.Module, look: Callable[[str, Tensor], None]) -> Callable[[], None]:
    """Call `look` with every tensor above as training computes it, inner modules first.

    Args:
        model: is watched with all its modules and those parameters that learn.
        look: gets name and tensor, detached; must not change it. Tensors that are not of a
            floating-point type are left out.

    Returns:
        A function that ends the watch. Tensors computed before it are not shown after it either.
    """
    handles: list[Any] = []

    def show(name: str, tensor: Tensor) -> None:
        if handles:
            look(name, tensor.detach())

    def show_output(name: str, output: Any) -> None:
        for suffix, tensor in _parts(output):
            show(f"{name}.output{suffix}", tensor)
            # A leaf is a parameter that is handed through: its hook would outlive the batch.
            if tensor.grad_fn is not None:
                tensor.register_hook(lambda grad, suffix=suffix: show(f"{name}.grad{suffix}", grad))

    def output_hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: show_output(name, output)

    def gradient_hook(name: str) -> Callable[[Tensor], None]:
        return lambda grad: show(f"{name}.param_grad", grad)

    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(output_hook(name or type(module).__name__)))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_hook(gradient_hook(name)))

    def stop() -> None:
        for handle in handles:
            handle.remove()
        handles.clear()

    return stop


def _parts(output: Any, suffix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors of what a module returned, with their places in it."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield suffix, output
    elif isinstance(output, Mapping):
        for key, part in output.items():
            yield from _parts(part, f"{suffix}[{key!r}]")
    elif isinstance(output, tuple | list):
        for index, part in enumerate(output):
            yield from _parts(part, f"{suffix}[{index}]")
