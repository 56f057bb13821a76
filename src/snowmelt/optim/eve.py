"""How does Eve change parameters in one step?

Adam with a weight decay of its own kind: a tensor whose root mean square is above a target shrinks
by a fixed share before each step, whatever the learning rate; a smaller one is left alone. So the
sizes of the weights, and with them the relative learning rates, settle near the target.

    m <- β1 m + (1 - β1) g        v <- β2 v + (1 - β2) g²
    p <- p (1 - weight_decay)     only where p has several elements and ‖p‖ > target_rms √n
    p <- p - lr / (1 - β1^t) · m / (√v / √(1 - β2^t) + eps)
    p <- clamp(p, -10, 2)         only where p has one element: logarithms of scales

Invariant: a step either changes all parameters that have a gradient, and their state, or, if a
gradient is not finite, nothing. Saving the state, loading it and going on gives the same bits as
going on.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/optim.py, Eve. There the decay
factor is a float32 number even for float64 parameters; here it has the parameter's type.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adam import adam
from torch.optim.optimizer import ParamsT

from snowmelt.core.errors import ConfigError
from snowmelt.optim.saved_state import check_groups, misfit
from snowmelt.optim.skipped import log_skipped_step

__all__ = ["Eve"]

# A parameter with one element is the logarithm of a scale: the scale stays in [4.5e-5, 7.4].
_SCALAR_RANGE: Final = (-10.0, 2.0)


class Eve(Optimizer):
    """Adam whose weight decay holds the size of each tensor near a target.

    A parameter without gradient is left alone. A step with an infinite or NaN gradient is skipped
    whole, logged and counted in `num_skipped_steps`.

    Args:
        params: parameters, pairs of name and parameter, or groups of either. Names are saved with
            the state, compared on loading, and make the log readable.
        lr: learning rate; a schedule sets it anew for every step.
        betas: decay of the momentum and of the mean squared gradient.
        eps: keeps the division by the root mean square gradient finite.
        weight_decay: share by which too large a tensor shrinks in every step; at most 0.1.
        target_rms: the size above which a tensor shrinks; at most 10.

    Raises:
        ConfigError: an argument out of range, or a parameter that is a view with gaps.
    """

    num_skipped_steps: int = 0

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 1e-3,
        target_rms: float = 0.1,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "target_rms": target_rms,
        }
        _check_arguments(defaults)
        super().__init__(params, defaults)
        for group in self.param_groups:
            for name, param in zip(_names(group), group["params"], strict=True):
                # The fused step runs over memory, not over indexes.
                if not _same_layout(torch.empty_like(param, device="meta"), param):
                    raise ConfigError(
                        f"{name} is a view with gaps or overlaps in memory",
                        "make it a parameter of its own: nn.Parameter(view.contiguous())",
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all parameters that have a gradient once.

        Args:
            closure: evaluates the model again and returns the loss; rarely needed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        # First look at all groups, then change: a step is taken or skipped whole.
        todo = []
        for group in self.param_groups:
            named = zip(_names(group), group["params"], strict=True)
            names_and_params = [(name, p) for name, p in named if p.grad is not None]
            if not names_and_params:
                continue
            names, params = zip(*names_and_params, strict=True)
            grads = [_laid_out_like(param, param.grad) for param in params]
            # One transfer from the device for all that has to be decided.
            norms = torch.stack(torch._foreach_norm([*grads, *params])).tolist()
            grad_norms, param_norms = norms[: len(grads)], norms[len(grads) :]
            if not all(map(math.isfinite, grad_norms)):
                self.num_skipped_steps += 1
                log_skipped_step(names, grad_norms)
                return loss
            todo.append((group, params, grads, param_norms))

        for group, params, grads, param_norms in todo:
            _shrink(group, params, param_norms)
            self._adam(group, params, grads)
            for param in params:
                if param.numel() == 1:
                    param.clamp_(*_SCALAR_RANGE)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` (or icefall's) gave.

        Options that the saved state does not know keep their present value.

        Raises:
            CheckpointError: the state was made for other parameters, or by another optimiser.
        """
        _check_state(state_dict, self.param_groups)
        options = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
        super().load_state_dict(state_dict)
        for group, present in zip(self.param_groups, options, strict=True):
            for name, value in present.items():
                group.setdefault(name, value)
        for param, entry in self.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                # Copied: steps work in place, and must not write into the caller's dict.
                entry[name] = torch.empty_like(param).copy_(entry[name])

    def _adam(self, group: dict[str, Any], params: tuple[Tensor, ...], grads: list[Tensor]) -> None:
        """Momentum, mean squares and the step itself: one pass over each parameter's memory."""
        entries = []
        for param in params:
            entry = self.state[param]
            if not entry:
                entry["step"] = 0
                entry["exp_avg"] = torch.zeros_like(param)
                entry["exp_avg_sq"] = torch.zeros_like(param)
            entries.append(entry)
        steps = [float(entry["step"]) for entry in entries]
        beta1, beta2 = group["betas"]
        # Eve's formula is Adam's. On a CPU torch's fused kernel takes a third of the time of the
        # same formula in separate operations.
        adam(
            list(params),
            grads,
            [entry["exp_avg"] for entry in entries],
            [entry["exp_avg_sq"] for entry in entries],
            [],
            list(torch.tensor(steps, device=params[0].device).unbind()),
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )
        for entry in entries:
            entry["step"] += 1


def _shrink(group: dict[str, Any], params: tuple[Tensor, ...], norms: list[float]) -> None:
    """Weight decay, for the tensors that are above the target."""
    for param, norm in zip(params, norms, strict=True):
        n = param.numel()
        if n > 1 and norm > group["target_rms"] * math.sqrt(n):
            param.mul_(1.0 - group["weight_decay"])


def _laid_out_like(param: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` with the strides of `param`; a copy only where they differ."""
    return tensor if _same_layout(tensor, param) else torch.empty_like(param).copy_(tensor)


def _same_layout(a: Tensor, b: Tensor) -> bool:
    # The stride of an axis of length 1 means nothing.
    return all(
        size == 1 or s == t for size, s, t in zip(a.shape, a.stride(), b.stride(), strict=True)
    )


def _names(group: Mapping[str, Any]) -> list[str]:
    unnamed = [f"parameter {index}" for index in range(len(group["params"]))]
    return list(group.get("param_names", unnamed))


def _check_state(state_dict: Mapping[str, Any], groups: list[dict[str, Any]]) -> None:
    check_groups(state_dict["param_groups"], groups)
    for saved, group in zip(state_dict["param_groups"], groups, strict=True):
        for key, param, name in zip(saved["params"], group["params"], _names(group), strict=True):
            if key not in state_dict["state"]:  # it never had a gradient
                continue
            entry = state_dict["state"][key]
            if "step" not in entry:
                raise misfit(f"no 'step' of '{name}': it is not of Eve")
            for tensor_name in ("exp_avg", "exp_avg_sq"):
                found = tuple(entry[tensor_name].shape) if tensor_name in entry else "nothing"
                if found != param.shape:
                    raise misfit(
                        f"'{tensor_name}' of '{name}' is {found} instead of {tuple(param.shape)}"
                    )


def _check_arguments(options: dict[str, Any]) -> None:
    beta1, beta2 = options["betas"]
    checks = {
        "lr must be >= 0": (options["lr"] >= 0, "the recipe uses 0.003"),
        "betas must be in [0, 1)": (0 <= beta1 < 1 and 0 <= beta2 < 1, "(0.9, 0.98) is usual"),
        "eps must be >= 0": (options["eps"] >= 0, "1e-8 is usual"),
        "weight_decay must be in [0, 0.1]": (
            0 <= options["weight_decay"] <= 0.1,
            "0.001 is usual; it is not multiplied by the learning rate",
        ),
        "target_rms must be in (0, 10]": (0 < options["target_rms"] <= 10, "0.1 is usual"),
    }
    for requirement, (holds, hint) in checks.items():
        if not holds:
            raise ConfigError(f"{requirement}, got {options[requirement.split()[0]]}", hint)
