"""What does an LSTM language model remember? One vector pair a layer, whatever it has read.

Invariant: see `models.lm.model`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from snowmelt.models.state import stack_states, unstack_states

__all__ = ["LstmCore", "LstmLmState"]


class LstmLmState(NamedTuple):
    """N streams: `hidden` and `cell`, (N, num_layers, hidden_dim) each."""

    hidden: Tensor
    cell: Tensor


class LstmCore(nn.Module):
    """LSTM layers, one on top of the other.

    Args:
        embedding_dim: channels in.
        hidden_dim: cells of a layer, channels out.
        num_layers: layers.
        dropout: between layers, in training.
    """

    def __init__(
        self, embedding_dim: int, hidden_dim: int, num_layers: int, *, dropout: float
    ) -> None:
        super().__init__()
        self.input_dim = embedding_dim
        self.output_dim = hidden_dim
        self.num_layers = num_layers
        self.lstm = nn.LSTM(
            embedding_dim,
            hidden_dim,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )

    def init_state(self, num_streams: int, like: Tensor) -> LstmLmState:
        """See `Core`."""
        zeros = like.new_zeros(num_streams, self.num_layers, self.output_dim)
        return LstmLmState(zeros, zeros)

    def forward(self, x: Tensor, state: LstmLmState) -> tuple[Tensor, LstmLmState]:
        """See `Core`."""
        # torch wants the layer first, and its states in the type of the input.
        hidden, cell = (s.transpose(0, 1).to(x.dtype).contiguous() for s in state)
        out, (hidden, cell) = self.lstm(x, (hidden, cell))
        return out, LstmLmState(hidden.transpose(0, 1), cell.transpose(0, 1))

    def stack(self, states: Sequence[LstmLmState]) -> LstmLmState:
        """See `Core`."""
        return stack_states(states)

    def unstack(self, state: LstmLmState) -> list[LstmLmState]:
        """See `Core`."""
        return [LstmLmState(*(s.clone() for s in own)) for own in unstack_states(state)]
