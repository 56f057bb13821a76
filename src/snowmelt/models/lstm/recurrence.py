"""How does one LSTM layer go through time, and how does the gradient come back?

    [i, f, g, o] = gates_in[t] + W_hh h[t-1]
    c[t] = sigmoid(f) c[t-1] + sigmoid(i) tanh(g)
    m[t] = sigmoid(o) tanh(c[t])
    h[t] = W_hr m[t], or m[t] without a projection

torch has no fast CPU kernel for LSTMs with a projection. Here everything that does not depend on
the frame before is done for all frames at once: the inputs' share of the gates (by the caller) and
the weights' gradients. What is left of a frame are one or two matrix products and a few elementwise
operations: compiled loops on the CPU (`cpu_recurrence`), torch operations in float64, on other
devices, for sizes that do not fit, and where torch writes down what is done (tracing, export).

Invariants: time first; nothing is kept but the gates, h and c. Matrix products have the type of
`gates_in`, everything elementwise is at least float32.
"""

from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snowmelt.models.regularisers.common import cpu_kernels_usable, widened

__all__ = ["lstm_recurrence"]

# Compiled loops first bring the weights into their order, and must be loaded. Where no gradient
# follows this pays for a batch of utterances, not for the few frames of a stream's chunk.
_LEAST_FRAMES_WITHOUT_GRADIENT: Final = 512


def lstm_recurrence(
    gates_in: Tensor, weight_hh: Tensor, weight_hr: Tensor | None, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """All frames of one layer.

    Args:
        gates_in: (T, N, 4H), T >= 1: input weights times input, and the biases.
        weight_hh: (4H, P).
        weight_hr: (P, H), or None if P = H.
        h: (N, P) at the frame before the first one, and
        c: (N, H); no gradient goes back to these two.

    Returns:
        h at every frame (T, N, P), in the type of `gates_in`, and c at every frame (T, N, H),
        through which no gradient comes.
    """
    if torch.is_grad_enabled() and gates_in.requires_grad:
        outputs: tuple[Tensor, Tensor] = _RecurrenceFunction.apply(  # type: ignore[no-untyped-call]
            gates_in, weight_hh, weight_hr, h, c
        )
        return outputs
    num_frames, num_rows, _ = gates_in.shape
    is_long = num_frames * num_rows >= _LEAST_FRAMES_WITHOUT_GRADIENT
    forward = _forward if is_long else _plain_forward
    _, hs, cs = forward(gates_in, weight_hh, weight_hr, h, c)
    return hs[1:], cs[1:]


class _RecurrenceFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gates_in: Tensor,
        weight_hh: Tensor,
        weight_hr: Tensor | None,
        h: Tensor,
        c: Tensor,
    ) -> tuple[Tensor, Tensor]:
        gates, hs, cs = _forward(gates_in, weight_hh, weight_hr, h, c)
        ctx.save_for_backward(weight_hh, weight_hr, gates, hs, cs)
        out, cells = hs[1:], cs[1:]
        ctx.mark_non_differentiable(cells)
        return out, cells

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        weight_hh, weight_hr, gates, hs, cs = ctx.saved_tensors
        grad_out = grad_outputs[0].to(hs.dtype)
        with torch.autocast(device_type=gates.device.type, enabled=False):
            backward = _plain_backward
            if _is_compiled(hs, weight_hh):
                from snowmelt.models.lstm.cpu_recurrence import cpu_backward as backward
            grad_gates, grad_hs, ms = backward(grad_out, weight_hh, weight_hr, gates, cs)
            grad_hh = _weight_gradient(grad_gates, hs[:-1]).to(weight_hh.dtype)
            grad_hr = None
            if weight_hr is not None:
                grad_hr = _weight_gradient(grad_hs, ms).to(weight_hr.dtype)
        return grad_gates, grad_hh, grad_hr, None, None


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """(C', C) of grad (T, N, C') and what the weight multiplied, (T, N, C)."""
    return grad.flatten(end_dim=1).t() @ x.flatten(end_dim=1)


def _is_compiled(x: Tensor, weight_hh: Tensor) -> bool:
    """Whether the compiled loops do the work; x in the type of the products."""
    is_recorded = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
    if is_recorded or not cpu_kernels_usable(x):
        return False
    from snowmelt.models.lstm.cpu_recurrence import fits

    return fits(weight_hh)


def _forward(
    gates_in: Tensor, weight_hh: Tensor, weight_hr: Tensor | None, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gates after their activations (T, N, 4H), and h, c (T + 1, N, .) from the frame before on."""
    forward = _plain_forward
    if _is_compiled(gates_in, weight_hh):
        from snowmelt.models.lstm.cpu_recurrence import cpu_forward as forward
    return forward(gates_in, weight_hh, weight_hr, h, c)


def _plain_forward(
    gates_in: Tensor, weight_hh: Tensor, weight_hr: Tensor | None, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`_forward` in torch operations."""
    num_frames, batch_size, width = gates_in.shape
    size, dtype = width // 4, gates_in.dtype
    from_h = weight_hh.detach().to(dtype).t()
    project = None if weight_hr is None else weight_hr.detach().to(dtype).t()
    gates = torch.empty_like(widened(gates_in), memory_format=torch.contiguous_format)
    hs = gates_in.new_empty(num_frames + 1, batch_size, h.size(1))
    cs = gates.new_empty(num_frames + 1, batch_size, size)
    hs[0], cs[0] = h, c
    for at, gate, h_old, h_new, c_old, c_new in zip(
        gates_in, gates, hs, hs[1:], cs, cs[1:], strict=False
    ):
        if gate.dtype == dtype:
            torch.addmm(at, h_old, from_h, out=gate)
        else:
            gate.copy_(torch.addmm(at, h_old, from_h))
        ifs, g, o = gate.split((2 * size, size, size), dim=1)
        i, f = ifs.sigmoid_().chunk(2, dim=1)
        g.tanh_()
        o.sigmoid_()
        torch.mul(f, c_old, out=c_new).addcmul_(i, g)
        m = c_new.tanh().mul_(o)
        if project is None:
            h_new.copy_(m)
        else:
            torch.mm(m.to(dtype), project, out=h_new)
    return gates, hs, cs


def _plain_backward(
    grad_out: Tensor, weight_hh: Tensor, weight_hr: Tensor | None, gates: Tensor, cs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the gates' input and of h, and m, at every frame."""
    num_frames, batch_size, size = cs[1:].shape
    dtype = grad_out.dtype
    to_h, to_m = weight_hh.to(dtype), None if weight_hr is None else weight_hr.to(dtype)
    i, f, g, o = gates.chunk(4, dim=2)
    tanh_c = cs[1:].tanh()
    m = tanh_c * o
    dm_to_dc = o - m * tanh_c  # o (1 - tanh(c)^2)
    dm_to_do = m * (1.0 - o)
    dc_to_ifg = torch.stack(
        [g * i * (1.0 - i), cs[:-1] * f * (1.0 - f), i * (1.0 - g * g)], dim=2
    )  # (T, N, 3, H)

    grad_gates = grad_out.new_empty(num_frames, batch_size, 4, size)
    grad_hs = torch.empty_like(grad_out, memory_format=torch.contiguous_format)
    dc = torch.zeros_like(cs[0])
    for t in range(num_frames - 1, -1, -1):
        dh = grad_hs[t]
        if t == num_frames - 1:
            dh.copy_(grad_out[t])
        else:
            torch.addmm(grad_out[t], grad_gates[t + 1].view(batch_size, -1), to_h, out=dh)
        dm = dh if to_m is None else torch.mm(dh, to_m)
        dc.addcmul_(dm.to(dc.dtype), dm_to_dc[t])
        torch.mul(dc.unsqueeze(1), dc_to_ifg[t], out=grad_gates[t, :, :3])
        torch.mul(dm, dm_to_do[t], out=grad_gates[t, :, 3])
        dc.mul_(f[t])
    return grad_gates.view(num_frames, batch_size, 4 * size), grad_hs, m.to(dtype)
