"""Where does ScaledAdam's state of each parameter lie, in memory and in a checkpoint?

Parameters of equal (type, shape) form a stack, in parameter order; the stacks of a group are
ordered by (type name, sizes), so that scalars come first. The state of a stack is one dict filed
under its first parameter. For B parameters of shape s:

    step              int
    delta             (B, *s)               the last change, with momentum
    param_rms         (B, 1, ..., 1)        size of each parameter        } only where s has
    scale_exp_avg_sq  (B, 1, ..., 1)        mean squared size gradient    } more than
    scale_grads       (period, B, 1, ..., 1) last size gradients          } one element
    exp_avg_sq        (B, *s)               mean squared gradient

The first stack's dict also holds model_norms, model_norm_threshold and num_clipped.

Invariant: slices are views of the stacks; what a step writes into a slice is in the state.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/optim.py (the layout).
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from snowmelt.optim.saved_state import check_groups, misfit

__all__ = ["Slice", "Stack", "check_state", "stack_parameters"]

# A parameter with this many elements is a slice of its own: the calls cost less than a copy.
_ALONE_ELEMENTS: Final = {"cpu": 2**13, "gpu": 2**24}
# Elements of a slice of smaller ones. On a CPU its half dozen arrays should stay in the cache
# (L2 of 1 MiB; measured flat from 2^14 to 2^18), a GPU wants few and large kernels.
_SLICE_ELEMENTS: Final = {"cpu": 2**16, "gpu": 2**24}


@dataclass(frozen=True)
class Slice:
    """Some consecutive parameters of one stack with views of their state.

    `indexes` are their positions in the group; `deltas` views of `delta`, one per parameter;
    `dims` the axes of one parameter in a stacked tensor. `param_rms` is None, and the two
    scale tensors are empty, for parameters with one element.
    """

    params: list[Tensor]
    indexes: list[int]
    dims: tuple[int, ...]
    delta: Tensor
    deltas: list[Tensor]
    exp_avg_sq: Tensor
    param_rms: Tensor | None
    scale_exp_avg_sq: Tensor
    scale_grads: Tensor

    def parameter(self) -> Tensor:
        """(B, *shape) the parameters; a view if there is only one."""
        return _stacked(self.params)

    def gradient(self) -> Tensor:
        """(B, *shape) the gradients, zeros where there is none; a view if there is only one."""
        return _stacked([torch.zeros_like(p) if p.grad is None else p.grad for p in self.params])


@dataclass(frozen=True)
class Stack:
    """All parameters of one type and shape: their state (the dict in the optimiser), in slices."""

    state: dict[str, Any]
    slices: list[Slice]


def stack_parameters(
    group: Mapping[str, Any], state: MutableMapping[Tensor, dict[str, Any]]
) -> list[Stack]:
    """The stacks of one parameter group; state that does not exist yet is created in `state`."""
    params = group["params"]
    stacks = []
    for indexes in _stack_order(params):
        first = params[indexes[0]]
        entry = state[first]
        if "delta" not in entry:
            entry["step"] = 0
            shapes = _state_shapes(len(indexes), first.shape, group["size_update_period"])
            for name, shape in shapes.items():
                entry[name] = torch.zeros(shape, dtype=first.dtype, device=first.device)
            if "param_rms" in entry:
                sizes = [p.detach().square().mean().sqrt() for p in (params[i] for i in indexes)]
                entry["param_rms"].copy_(torch.stack(sizes).reshape(entry["param_rms"].shape))
        stacks.append(Stack(entry, _cut(params, indexes, entry)))
    return stacks


def check_state(state_dict: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Compare a saved state with the parameters it shall be loaded for.

    Raises:
        CheckpointError: other number, names, order or shapes of parameters.
    """
    saved_groups = state_dict["param_groups"]
    check_groups(saved_groups, groups)
    for saved, group in zip(saved_groups, groups, strict=True):
        params, keys = group["params"], saved["params"]
        entries = {key: state_dict["state"][key] for key in keys if key in state_dict["state"]}
        if not entries:  # saved before the first step
            continue
        order = {keys[indexes[0]]: indexes for indexes in _stack_order(params)}
        if entries.keys() != order.keys():
            raise misfit("state filed under other parameters: their shapes or order differ")
        for key, indexes in order.items():
            shape = params[indexes[0]].shape
            period = saved["size_update_period"]
            for name, expected in _state_shapes(len(indexes), shape, period).items():
                found = tuple(entries[key][name].shape) if name in entries[key] else "nothing"
                if found != expected:
                    name_of = group["param_names"][indexes[0]]
                    raise misfit(f"'{name}' of '{name_of}' is {found} instead of {expected}")


def _stack_order(params: Sequence[Tensor]) -> list[list[int]]:
    """Positions of the parameters of each stack, stacks in their order."""
    stacks: dict[tuple[Any, ...], list[int]] = {}
    for index, param in enumerate(params):
        stacks.setdefault((str(param.dtype), *param.shape), []).append(index)
    return [stacks[key] for key in sorted(stacks)]


def _state_shapes(count: int, shape: torch.Size, period: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a stack's tensors, in the order in which they are saved."""
    whole, sizes = (count, *shape), (count, *(1 for _ in shape))
    if shape.numel() == 1:
        return {"delta": whole, "exp_avg_sq": whole}
    return {
        "delta": whole,
        "param_rms": sizes,
        "scale_exp_avg_sq": sizes,
        "scale_grads": (period, *sizes),
        "exp_avg_sq": whole,
    }


def _cut(params: Sequence[Tensor], indexes: list[int], entry: dict[str, Any]) -> list[Slice]:
    first = params[indexes[0]]
    kind = "cpu" if first.device.type == "cpu" else "gpu"
    length = 1
    if first.numel() < _ALONE_ELEMENTS[kind]:
        length = max(1, _SLICE_ELEMENTS[kind] // max(1, first.numel()))
    slices = []
    for start in range(0, len(indexes), length):
        stop = min(start + length, len(indexes))
        delta = entry["delta"][start:stop]
        nothing = delta.new_empty(0)
        slices.append(
            Slice(
                params=[params[i] for i in indexes[start:stop]],
                indexes=indexes[start:stop],
                dims=tuple(range(1, delta.dim())),
                delta=delta,
                deltas=list(delta.unbind()),
                exp_avg_sq=entry["exp_avg_sq"][start:stop],
                param_rms=entry["param_rms"][start:stop] if "param_rms" in entry else None,
                scale_exp_avg_sq=entry.get("scale_exp_avg_sq", nothing)[start:stop],
                scale_grads=entry["scale_grads"][:, start:stop]
                if "scale_grads" in entry
                else nothing,
            )
        )
    return slices


def _stacked(tensors: list[Tensor]) -> Tensor:
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)
