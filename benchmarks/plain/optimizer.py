"""ScaledAdam that copies parameters and gradients of equal shape into stacks at every step.

Invariant: the formulas of `snowmelt.optim.scaled_adam` without clipping; the norm is taken, as
clipping needs it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["StackedScaledAdam"]

_BETA1, _BETA2, _EPS, _PERIOD, _SCALAR_LR = 0.9, 0.98, 1e-8, 4, 0.1


class StackedScaledAdam(Optimizer):
    """One batched update a shape; parameters go into a stack before it and back afterwards."""

    num_skipped_steps = 0

    def __init__(self, params: Sequence[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr, "initial_lr": lr, "base_lr": lr})
        self._shapes: dict[torch.Size, list[Tensor]] = {}
        for p in params:
            self._shapes.setdefault(p.shape, []).append(p)
        self._state: dict[torch.Size, dict[str, Tensor]] = {}
        self._step = 0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change all parameters once."""
        lr, k = self.param_groups[0]["lr"], self._step
        stacks = []
        for shape, params in self._shapes.items():
            stacked = torch.stack(params)
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
            stacks.append((shape, params, stacked, torch.stack(grads)))
        total = 0.0
        for shape, _, stacked, grad in stacks:
            rms = self._of(shape, stacked)["rms"] if shape.numel() > 1 else 1.0
            total += float((grad * rms).square().sum())
        for shape, params, stacked, grad in stacks:
            state = self._of(shape, stacked)
            state["delta"].mul_(_BETA1)
            state["square"].mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
            correction = 1 - _BETA2 ** (k + 1)
            if shape.numel() == 1:
                root = (state["square"] / correction).sqrt() + _EPS
                state["delta"].add_(grad / root, alpha=-lr * _SCALAR_LR * (1 - _BETA1))
                stacked.clamp_(-10.0, 10.0).add_(state["delta"])
            else:
                self._update(state, stacked, grad, lr, k, correction)
            for p, new in zip(params, stacked, strict=True):
                p.copy_(new)
        self._step += 1

    def _update(
        self,
        state: dict[str, Tensor],
        stacked: Tensor,
        grad: Tensor,
        lr: float,
        k: int,
        correction: float,
    ) -> None:
        dims = tuple(range(1, stacked.dim()))
        state["size_grads"][k % _PERIOD] = (stacked * grad).sum(dim=dims, keepdim=True)
        if k % _PERIOD == _PERIOD - 1:
            state["rms"] = stacked.square().mean(dim=dims, keepdim=True).sqrt()
            beta = _BETA2**_PERIOD
            mean_square = state["size_grads"].square().mean(dim=0)
            state["size_square"].mul_(beta).add_(mean_square, alpha=1 - beta)
            size_correction = (1 - beta ** ((k + 1) // _PERIOD)) ** 0.5
            step = state["size_grads"].sum(dim=0) / (state["size_square"].sqrt() + _EPS)
            step = step * (-lr * _SCALAR_LR * size_correction)
            step.masked_fill_(state["rms"] > 3.0, -lr * _SCALAR_LR * _PERIOD)
            state["delta"].add_(stacked * step, alpha=1 - _BETA1)
        square = state["square"] / correction if correction < 0.99 else state["square"]
        direction = grad / (square.sqrt() + _EPS)
        size = state["rms"].clamp(min=1e-5)
        state["delta"].add_(direction * size, alpha=-lr * (1 - _BETA1))
        stacked.add_(state["delta"])

    def _of(self, shape: torch.Size, stacked: Tensor) -> dict[str, Tensor]:
        if shape not in self._state:
            dims = tuple(range(1, stacked.dim()))
            entry = {"delta": torch.zeros_like(stacked), "square": torch.zeros_like(stacked)}
            if shape.numel() > 1:
                rms = stacked.square().mean(dim=dims, keepdim=True).sqrt()
                entry |= {"rms": rms, "size_square": torch.zeros_like(rms)}
                entry["size_grads"] = torch.zeros(_PERIOD, *rms.shape)
            self._state[shape] = entry
        return self._state[shape]
