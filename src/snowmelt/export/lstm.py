"""What is left of the LSTM encoder when it only recognises? One forward, for windows of any length.

Invariant: the numbers of `models.lstm.encoder.Lstm` in evaluation (tests hold the two together);
weights are shared with the model, whose scales are folded in already. States are icefall's pair,
layers first. torch.jit.script compiles all of it.

Source: icefall, egs/librispeech/ASR/lstm_transducer_stateless2/{lstm,lstmp}.py.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.export.layers import ConstantNorm, Swish, inference_convolutions, valid_frames
from snowmelt.models.lstm.encoder import Lstm, LstmStack
from snowmelt.models.lstm.layer import LstmLayer
from snowmelt.models.lstm.projected import ProjectedLstm
from snowmelt.models.lstm.subsampling import Conv2dSubsampling

__all__ = ["InferenceLstm"]


class InferenceLstm(nn.Module):
    """The encoder of a trained model, scriptable.

    Args:
        encoder: the trained encoder, scales folded.
        unroll: write the loop over frames out when the module is traced: a graph without loops for
            windows of one length. Otherwise a traced module keeps the loop and takes any length.
    """

    def __init__(self, encoder: Lstm, *, unroll: bool = False) -> None:
        super().__init__()
        self.num_features: int = encoder.num_features
        self.num_encoder_layers: int = encoder.num_encoder_layers
        self.d_model: int = encoder.d_model
        self.rnn_hidden_size: int = encoder.rnn_hidden_size
        self.encoder_embed = _Embedding(encoder.encoder_embed)
        self.encoder = _Stack(encoder.encoder, unroll)

    def forward(
        self, x: Tensor, x_lens: Tensor, states: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """The next frames of streams, or whole utterances from fresh states.

        Args:
            x: (N, 4k + 5, F).
            x_lens: (N,) valid frames of each window.
            states: h (L, N, C), c (L, N, H).

        Returns:
            (N, k, C), its lengths (N,) int64, and the new states.
        """
        lens = valid_frames(x_lens, 5, 4)
        out, states = self.advance(x, lens, states)
        return out, lens, states

    @torch.jit.export
    def get_init_states(
        self,
        batch_size: int = 1,
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> tuple[Tensor, Tensor]:
        """State of streams that have heard nothing."""
        like = self.encoder_embed.out.weight
        h = torch.zeros(
            self.num_encoder_layers, batch_size, self.d_model, dtype=like.dtype, device=device
        )
        c = torch.zeros(
            self.num_encoder_layers,
            batch_size,
            self.rnn_hidden_size,
            dtype=like.dtype,
            device=device,
        )
        return h, c

    @torch.jit.export
    def advance(
        self,
        x: Tensor,
        lens: Tensor | None,
        states: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Encoder frames (N, k, C) and new states; lens None: all frames are valid."""
        x = self.encoder_embed(x).transpose(0, 1)
        x, states = self.encoder(x, lens, states)
        return x.transpose(0, 1), states


class _Embedding(nn.Module):
    def __init__(self, embedding: Conv2dSubsampling) -> None:
        super().__init__()
        self.conv = inference_convolutions(embedding.conv)
        self.out = embedding.out
        self.out_norm = ConstantNorm(embedding.out_norm)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.unsqueeze(1))
        out: Tensor = self.out_norm(self.out(x.transpose(1, 2).flatten(2)))
        return out


class _Stack(nn.Module):
    def __init__(self, stack: LstmStack, unroll: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _Layer(cast(LstmLayer, layer), unroll) for layer in stack.layers
        )

    def forward(
        self,
        x: Tensor,
        lens: Tensor | None,
        states: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hs, cs = states[0].unbind(0), states[1].unbind(0)
        new_h: list[Tensor] = []
        new_c: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, h, c = layer(x, lens, hs[i], cs[i])
            new_h.append(h)
            new_c.append(c)
        return x, (torch.stack(new_h), torch.stack(new_c))


class _Layer(nn.Module):
    def __init__(self, layer: LstmLayer, unroll: bool) -> None:
        super().__init__()
        self.unroll: bool = unroll
        self.lstm = _Weights(layer.lstm)
        feed_forward = layer.feed_forward
        self.feed_forward = nn.Sequential(
            feed_forward[0], nn.Identity(), Swish(), nn.Identity(), feed_forward[4]
        )
        self.norm_final = ConstantNorm(layer.norm_final)

    def forward(
        self,
        x: Tensor,
        lens: Tensor | None,
        h: Tensor,
        c: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        lstm = self.lstm
        bias = lstm.bias_ih_l0 + lstm.bias_hh_l0
        gates = F.linear(x, lstm.weight_ih_l0, bias)
        if self.unroll:
            y, h, c = _recurrence(gates, lstm.weight_hh_l0, lstm.weight_hr_l0, h, c, lens)
        else:
            y, h, c = _kept_loop(gates, lstm.weight_hh_l0, lstm.weight_hr_l0, h, c, lens)
        x = x + y
        return self.norm_final(x + self.feed_forward(x)), h, c


class _Weights(nn.Module):
    """The weights of a `ProjectedLstm` under their names."""

    weight_hr_l0: Tensor | None

    def __init__(self, lstm: ProjectedLstm) -> None:
        super().__init__()
        self.weight_ih_l0 = lstm.weight_ih_l0
        self.weight_hh_l0 = lstm.weight_hh_l0
        self.bias_ih_l0 = lstm.bias_ih_l0
        self.bias_hh_l0 = lstm.bias_hh_l0
        self.weight_hr_l0 = lstm.weight_hr_l0


def _recurrence(
    gates: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    h: Tensor,
    c: Tensor,
    lens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (T, N, P) and the state after each stream's last valid frame.

    Args:
        gates: (T, N, 4H), what the inputs give.
        weight_hh: (4H, P).
        weight_hr: (P, H) or None.
        h: (N, P).
        c: (N, H).
        lens: (N,) or None.
    """
    outputs: list[Tensor] = []
    # Turned once, not at every frame: an exporter would store the turned weights as often.
    recurrent = weight_hh.t()
    projection = None if weight_hr is None else weight_hr.t()
    for t, gate in enumerate(gates.unbind(0)):
        i, f, g, o = (gate + torch.matmul(h, recurrent)).split(c.size(1), dim=-1)
        new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        new_h = o.sigmoid() * new_c.tanh()
        if projection is not None:
            new_h = torch.matmul(new_h, projection)
        outputs.append(new_h)
        if lens is None:
            h, c = new_h, new_c
        else:
            is_valid = (lens > t).unsqueeze(1)
            h, c = torch.where(is_valid, new_h, h), torch.where(is_valid, new_c, c)
    return torch.stack(outputs), h, c


_kept_loop = torch.jit.script_if_tracing(_recurrence)
