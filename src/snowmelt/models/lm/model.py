"""How probable is each token after those before it? A table of tokens around a causal core.

    token -> its vector -> core (LSTM or transformer) -> projection -> scores of the next token

Invariant: state is a value, passed in and handed back; scoring a sentence token by token, or cut
into pieces in any way, gives what scoring it at once gives.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

__all__ = ["Core", "TokenLm"]


class Core(Protocol):
    """The part of the model that has a memory; `State` values have the stream as first axis."""

    @property
    def input_dim(self) -> int:
        """Channels it takes."""

    @property
    def output_dim(self) -> int:
        """Channels it gives."""

    def init_state(self, num_streams: int, like: Tensor) -> Any:
        """State of N streams that have read nothing, of the type and on the device of a tensor."""

    def __call__(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(N, S, input_dim) and a state -> (N, S, output_dim) and the state after S tokens."""

    def stack(self, states: Sequence[Any]) -> Any:
        """One state of all streams of several states."""

    def unstack(self, state: Any) -> list[Any]:
        """One state a stream; each holds its own memory only."""


class TokenLm(nn.Module):
    """A language model over V tokens; see the module's docstring.

    Args:
        vocab_size: V.
        core: `LstmCore` or `TransformerCore`.
        tie_weights: the vectors that tokens enter as are those that outputs are compared with.
        dropout: of the tokens' vectors and of the core's output, in training.
    """

    def __init__(
        self, vocab_size: int, core: nn.Module, *, tie_weights: bool, dropout: float
    ) -> None:
        super().__init__()
        sizes = cast(Core, core)
        dim = sizes.input_dim
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, dim)
        # Outputs are compared with these vectors too, so they are short; inputs are made longer.
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.core = core
        self.projection: nn.Module = nn.Identity()
        if sizes.output_dim != dim:
            self.projection = nn.Linear(sizes.output_dim, dim)
        self.output = nn.Linear(dim, vocab_size)
        nn.init.zeros_(self.output.bias)
        if tie_weights:
            self.output.weight = self.embedding.weight
        self.dropout = nn.Dropout(dropout)

    def init_state(self, num_streams: int) -> Any:
        """State of N streams that have read nothing, not even the sentence's beginning."""
        return self._core.init_state(num_streams, self.embedding.weight)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Unnormalised scores of what follows each token.

        Args:
            tokens: (N, S) int64, S at least 1.
            state: of N streams; None: they have read nothing.

        Returns:
            (N, S, V), and the state after the tokens.
        """
        if state is None:
            state = self.init_state(len(tokens))
        x = self.embedding(tokens) * self.embedding.embedding_dim**0.5
        x, state = self._core(self.dropout(x), state)
        return self.output(self.projection(self.dropout(x))), state

    def score(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """As `forward`, with natural logs of probabilities: the sum over V is 1."""
        logits, state = self(tokens, state)
        return torch.log_softmax(logits, dim=-1), state

    def stack(self, states: Sequence[Any]) -> Any:
        """One state of all streams of several states, in their order."""
        return self._core.stack(states)

    def unstack(self, state: Any) -> list[Any]:
        """One state a stream; each holds its own memory only."""
        return self._core.unstack(state)

    @property
    def _core(self) -> Core:
        return cast(Core, self.core)
