"""How does ScaledAdam, the optimiser of the Zipformer, change the parameters in one step?

Adam whose step is multiplied by the size (root mean square) of each parameter tensor, plus a
gradient for that size itself. The size learns from the last four steps at once; gradients are
clipped against the median norm of the last hundred steps.

All mathematics is per parameter tensor. Tensors of equal type and shape share one stack of state,
filed under the first of them: the layout of icefall's checkpoints, kept so that they can be
exchanged. A stack is worked through in slices that fit the processor's cache, large tensors one by
one without a copy, small ones many at a time.

Invariant: a step either changes all parameters and all state or, if a gradient is not finite,
nothing. Saving the state, loading it and going on gives the same bits as going on.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7/optim.py, ScaledAdam.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from snowmelt.core.errors import ConfigError
from snowmelt.optim.parameter_stacks import Slice, Stack, check_state, stack_parameters
from snowmelt.optim.skipped import log_skipped_step

__all__ = ["ScaledAdam"]

_logger = logging.getLogger(__name__)

# Below this share of the gradient a clipped step is worth a line in the log.
_LOG_CLIPPING_BELOW: Final = 0.1


class ScaledAdam(Optimizer):
    """Adam with steps proportional to the size of each parameter tensor.

    A parameter without gradient is treated as if its gradient were zero: it still moves by
    momentum. A step with an infinite or NaN gradient is skipped whole, logged and counted in
    `num_skipped_steps`.

    Args:
        params: parameters, or groups of them as for any torch optimiser. The order matters for
            the layout of the state; the recipe is one group in `model.parameters()` order.
        lr: learning rate, relative to the size of each parameter; a schedule sets it anew for
            every step.
        clipping_scale: a gradient is clipped where its norm exceeds this multiple of the median
            norm; None: never.
        betas: decay of the momentum and of the mean squared gradient.
        scalar_lr_scale: factor on lr for parameters with one element and for the sizes.
        eps: keeps the division by the root mean square gradient finite.
        param_min_rms: a tensor smaller than this learns as if it had this size, and its size is
            not shrunk further.
        param_max_rms: a tensor larger than this is shrunk.
        scalar_max: bound on parameters with one element.
        size_update_period: steps between two changes of the sizes.
        clipping_update_period: steps between two new clipping thresholds.
        parameters_names: for every group the names of its parameters, in order; saved with the
            state and compared on loading.
        clip_main_update: False reproduces the original, whose clipping reaches only the update
            of the sizes.

    Raises:
        ConfigError: an argument out of range, or names that do not match the parameters.
    """

    num_skipped_steps: int = 0
    _stacks: list[list[Stack]] | None = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 3e-2,
        clipping_scale: float | None = None,
        betas: tuple[float, float] = (0.9, 0.98),
        scalar_lr_scale: float = 0.1,
        eps: float = 1e-8,
        param_min_rms: float = 1e-5,
        param_max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_update_period: int = 4,
        clipping_update_period: int = 100,
        *,
        parameters_names: Sequence[Sequence[str]],
        clip_main_update: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "clipping_scale": clipping_scale,
            "betas": betas,
            "scalar_lr_scale": scalar_lr_scale,
            "eps": eps,
            "param_min_rms": param_min_rms,
            "param_max_rms": param_max_rms,
            "scalar_max": scalar_max,
            "size_update_period": size_update_period,
            "clipping_update_period": clipping_update_period,
            "clip_main_update": clip_main_update,
        }
        _check_arguments(defaults)
        super().__init__(params, defaults)
        if len(parameters_names) != len(self.param_groups):
            raise ConfigError(
                f"{len(self.param_groups)} parameter groups, "
                f"but names for {len(parameters_names)} groups"
            )
        for group, names in zip(self.param_groups, parameters_names, strict=True):
            if len(names) != len(group["params"]):
                raise ConfigError(f"{len(group['params'])} parameters, but {len(names)} names")
            group["param_names"] = list(names)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Also called by load_state_dict: the slices are views of tensors that are gone now.
        super().__setstate__(state)
        self._stacks = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all parameters once from their gradients.

        Args:
            closure: evaluates the model again and returns the loss; rarely needed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._stacks is None:
            self._stacks = [stack_parameters(group, self.state) for group in self.param_groups]

        # First look at all groups, then change: a step is taken or skipped whole.
        todo = []
        for group, stacks in zip(self.param_groups, self._stacks, strict=True):
            slices = [piece for stack in stacks for piece in stack.slices]
            grads = [piece.gradient() for piece in slices]
            norms = _relative_norms(slices, grads)
            norm = float(torch.linalg.vector_norm(norms, dtype=torch.float64))
            if not math.isfinite(norm):
                self._report_skipped(group, slices, norms)
                return loss
            todo.append((group, stacks, slices, grads, norms, norm))

        for group, stacks, slices, grads, norms, norm in todo:
            k = stacks[0].state["step"]
            clip = _clip_factor(group, stacks[0].state, k, norm)
            if clip < _LOG_CLIPPING_BELOW:
                _log_clipping(group, slices, clip, norms)
            for piece, grad in zip(slices, grads, strict=True):
                if piece.param_rms is None:
                    _update_scalars(piece, grad, group, k, clip)
                else:
                    _update_tensors(piece, grad, group, k, clip)
            for stack in stacks:
                stack.state["step"] = k + 1
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` (or icefall's) gave.

        Options that the saved state does not know keep their present value.

        Raises:
            CheckpointError: the state was made for parameters with other names, shapes or order.
        """
        check_state(state_dict, self.param_groups)
        options = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
        super().load_state_dict(state_dict)
        for group, present in zip(self.param_groups, options, strict=True):
            for name, value in present.items():
                group.setdefault(name, value)
        for parameter_state in self.state.values():
            for name, value in parameter_state.items():
                if name == "model_norms":
                    # torch has cast it to the parameter's type; it is float32 for all of them.
                    parameter_state[name] = value.to(torch.float32, copy=True)
                elif isinstance(value, Tensor):
                    # Steps work in place: do not write into the caller's dict.
                    parameter_state[name] = value.clone()

    def _report_skipped(self, group: dict[str, Any], slices: list[Slice], norms: Tensor) -> None:
        self.num_skipped_steps += 1
        names = [group["param_names"][index] for piece in slices for index in piece.indexes]
        log_skipped_step(names, norms.tolist())


def _relative_norms(slices: list[Slice], grads: list[Tensor]) -> Tensor:
    """(number of parameters,) norm of each gradient times the size of its parameter."""
    norms = []
    for piece, grad in zip(slices, grads, strict=True):
        norm = _inner(grad, grad, piece.dims).sqrt_()
        norms.append((norm if piece.param_rms is None else norm.mul_(piece.param_rms)).flatten())
    return torch.cat(norms)


def _inner(a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
    """(B, 1, ..., 1) inner products of the parameters of two stacked (B, *shape) tensors."""
    if a.shape[0] == 1:  # a large parameter: one pass in BLAS, no temporary
        return torch.dot(a.reshape(-1), b.reshape(-1)).reshape((1,) * a.dim())
    return (a * b).sum(dim=dims, keepdim=True) if dims else a * b


def _clip_factor(group: dict[str, Any], state: dict[str, Any], k: int, norm: float) -> float:
    """Factor on the gradients of step k (0-based); `state` is that of the first stack."""
    scale, period = group["clipping_scale"], group["clipping_update_period"]
    if scale is None or k == 0:
        return 1.0
    norms = state.setdefault("model_norms", torch.zeros(period, device=state["delta"].device))
    norms[k % period] = norm
    if k < period:
        return 1.0
    if k % period == 0:
        ordered = norms.sort().values.tolist()
        quartiles = [ordered[min(period - 1, period // 4 * n)] for n in range(5)]
        _logger.info(
            "gradient norms: quartiles %s, threshold %.3e, clipped %.1f%% of the last %d steps",
            " ".join(f"{quartile:.3e}" for quartile in quartiles),
            scale * quartiles[2],
            100.0 * state.get("num_clipped", 0) / period,
            period,
        )
        state["model_norm_threshold"] = scale * quartiles[2]
        state["num_clipped"] = 0
    if "model_norm_threshold" not in state:  # clipping was switched on within a period
        return 1.0
    factor: float = min(1.0, state["model_norm_threshold"] / (norm + 1e-20))
    if factor < 1.0:
        state["num_clipped"] += 1
    return factor


def _log_clipping(group: dict[str, Any], slices: list[Slice], factor: float, norms: Tensor) -> None:
    order = [index for piece in slices for index in piece.indexes]
    largest = int(norms.argmax())
    share = (norms[largest] / torch.linalg.vector_norm(norms)).square()
    _logger.warning(
        "gradients scaled down by %.2e; %.0f%% of their squared norm is in %s",
        factor,
        100.0 * float(share),
        group["param_names"][order[largest]],
    )


def _update_tensors(piece: Slice, grad: Tensor, group: dict[str, Any], k: int, clip: float) -> None:
    """One step for parameters with more than one element; `grad` (B, *shape) is not clipped."""
    assert piece.param_rms is not None
    beta1, beta2 = group["betas"]
    lr, eps, period = group["lr"], group["eps"], group["size_update_period"]
    delta, exp_avg_sq = piece.delta, piece.exp_avg_sq

    param = piece.parameter()
    delta.mul_(beta1)
    piece.scale_grads[k % period] = _inner(param, grad, piece.dims).mul_(clip)
    if k % period == period - 1:
        mean_square = _inner(param, param, piece.dims).div_(param[0].numel())
        torch.sqrt(mean_square, out=piece.param_rms)
        delta.addcmul_(param, _size_step(piece, group, k), value=1.0 - beta1)

    main_clip = clip if group["clip_main_update"] else 1.0
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=(1.0 - beta2) * main_clip**2)
    correction = 1.0 - beta2 ** (k + 1)
    if correction >= 0.99:
        correction = 1.0
    # g / (sqrt(v / c) + eps) written as sqrt(c) * g / (sqrt(v) + sqrt(c) * eps): one pass less.
    root = math.sqrt(correction)
    direction = exp_avg_sq.sqrt().add_(root * eps)
    torch.div(grad, direction, out=direction)
    size = piece.param_rms.clamp(min=group["param_min_rms"])
    delta.addcmul_(direction, size, value=-lr * (1.0 - beta1) * main_clip * root)
    torch._foreach_add_(piece.params, piece.deltas)


def _size_step(piece: Slice, group: dict[str, Any], k: int) -> Tensor:
    """(B, 1, ..., 1) relative change of the sizes, from the gradients of the last steps."""
    period, size_lr = group["size_update_period"], group["lr"] * group["scalar_lr_scale"]
    beta = group["betas"][1] ** period
    variance, grads, rms = piece.scale_exp_avg_sq, piece.scale_grads, piece.param_rms
    assert rms is not None
    variance.mul_(beta).add_(grads.square().mean(dim=0), alpha=1.0 - beta)
    correction = 1.0 - beta ** ((k + 1) // period)
    step = grads.sum(dim=0).div_(variance.sqrt().add_(group["eps"]))
    step.mul_(-size_lr * math.sqrt(correction))
    step.masked_fill_(rms < group["param_min_rms"], 0.0)
    return step.masked_fill_(rms > group["param_max_rms"], -size_lr * period)


def _update_scalars(piece: Slice, grad: Tensor, group: dict[str, Any], k: int, clip: float) -> None:
    """One step for parameters with one element; `grad` (B, *shape) is not clipped."""
    beta1, beta2 = group["betas"]
    lr, limit = group["lr"] * group["scalar_lr_scale"], group["scalar_max"]
    if not group["clip_main_update"]:
        clip = 1.0
    piece.exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=(1.0 - beta2) * clip**2)
    denominator = (piece.exp_avg_sq / (1.0 - beta2 ** (k + 1))).sqrt_().add_(group["eps"])
    piece.delta.mul_(beta1).addcdiv_(grad, denominator, value=-lr * (1.0 - beta1) * clip)
    # Bounded before the step, as in the original: the result may lie one step outside.
    torch._foreach_clamp_min_(piece.params, -limit)
    torch._foreach_clamp_max_(piece.params, limit)
    torch._foreach_add_(piece.params, piece.deltas)


def _check_arguments(options: dict[str, Any]) -> None:
    scale = options["clipping_scale"]
    beta1, beta2 = options["betas"]
    checks = {
        "lr must be >= 0": options["lr"] >= 0,
        "clipping_scale must be > 0 or None": scale is None or scale > 0,
        "betas must be in [0, 1)": 0 <= beta1 < 1 and 0 <= beta2 < 1,
        "eps must be > 0": options["eps"] > 0,
        "size_update_period must be >= 1": options["size_update_period"] >= 1,
        "clipping_update_period must be >= 1": options["clipping_update_period"] >= 1,
    }
    for requirement, holds in checks.items():
        if not holds:
            name = requirement.split()[0]
            raise ConfigError(f"{requirement}, got {options[name]}")
