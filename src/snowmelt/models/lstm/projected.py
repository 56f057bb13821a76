"""What is one LSTM layer: weights, their scales, and the frames of a batch?

Invariants: one layer, one direction, time first. Parameter names are those of torch's LSTM, with
`_scale` behind them for the scales.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/scaling.py, ScaledLSTM.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.models.lstm.recurrence import lstm_recurrence
from snowmelt.models.regularisers import filter_gradients
from snowmelt.models.regularisers.common import acts
from snowmelt.models.scaled_layers import initial_weight_scale, initialise_weight

__all__ = ["ProjectedLstm", "ScaledLstm"]


class _Weights(NamedTuple):
    """What multiplies and what is added; `hr` is None without a projection."""

    ih: Tensor  # (4H, C)
    hh: Tensor  # (4H, P)
    bias: Tensor  # (4H,)
    hr: Tensor | None  # (P, H)


class ProjectedLstm(nn.Module):
    """An LSTM whose output is a projection of its cells; the form without scales.

    Args:
        input_size: C.
        hidden_size: H, cells.
        proj_size: P, channels of the output; 0: no projection, P = H.
    """

    weight_hr_l0: nn.Parameter | None

    def __init__(self, input_size: int, hidden_size: int, proj_size: int = 0) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = proj_size if proj_size > 0 else hidden_size
        width = 4 * hidden_size
        self.weight_ih_l0 = nn.Parameter(torch.empty(width, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(width, self.output_size))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(width))
        self.bias_hh_l0 = nn.Parameter(torch.zeros(width))
        self.weight_hr_l0 = None
        if proj_size > 0:
            self.weight_hr_l0 = nn.Parameter(torch.empty(proj_size, hidden_size))
        for name, parameter in self.named_parameters():
            if name.startswith("weight"):
                initialise_weight(parameter)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """All frames of a batch.

        Args:
            x: (T, N, C), T >= 1.
            h: (N, P) at the frame before the first one.
            c: (N, H), likewise.

        Returns:
            h at every frame, which is the output (T, N, P), and c at every frame (T, N, H).
        """
        return self._run(x, h, c, self._weights())

    def _weights(self) -> _Weights:
        bias = self.bias_ih_l0 + self.bias_hh_l0
        return _Weights(self.weight_ih_l0, self.weight_hh_l0, bias, self.weight_hr_l0)

    def _run(self, x: Tensor, h: Tensor, c: Tensor, weights: _Weights) -> tuple[Tensor, Tensor]:
        gates_in = F.linear(x, weights.ih, weights.bias)
        return lstm_recurrence(gates_in, weights.hh, weights.hr, h, c)


class ScaledLstm(ProjectedLstm):
    """The same with a scale beside each of its weights and biases, as it is trained.

    Args:
        input_size, hidden_size, proj_size: as in `ProjectedLstm`.
        grad_norm_threshold: of `filter_gradients`, through which its gradients go in training.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int = 0,
        *,
        grad_norm_threshold: float = 10.0,
    ) -> None:
        super().__init__(input_size, hidden_size, proj_size)
        self.grad_norm_threshold = grad_norm_threshold
        for name, _ in list(self.named_parameters()):
            # All weights as if their fan-in were the number of cells.
            is_weight = name.startswith("weight")
            scale = initial_weight_scale(hidden_size) if is_weight else torch.tensor(0.0)
            setattr(self, f"{name}_scale", nn.Parameter(scale))

    def folded(self) -> ProjectedLstm:
        """The form without scales of the same function."""
        proj_size = 0 if self.weight_hr_l0 is None else self.output_size
        plain = ProjectedLstm(self.input_size, self.hidden_size, proj_size)
        plain.to(self.weight_ih_l0)
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                parameter.copy_(self._scaled(name))
        return plain

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """All frames of a batch; see `ProjectedLstm.forward`."""
        names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
        if self.weight_hr_l0 is not None:
            names.append("weight_hr_l0")
        scaled = [self._scaled(name) for name in names]
        if acts(self, x):
            x, scaled = filter_gradients(self.grad_norm_threshold, x, scaled)
        ih, hh, bias_ih, bias_hh, *hr = scaled
        return self._run(x, h, c, _Weights(ih, hh, bias_ih + bias_hh, hr[0] if hr else None))

    def _scaled(self, name: str) -> Tensor:
        # By name, not from a list: parameters may be replaced.
        value: Tensor = getattr(self, name) * getattr(self, f"{name}_scale").exp()
        return value
