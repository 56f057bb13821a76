"""How does a model of torch modules serve as a backend?

States of streams that are decoded together stay together: a stream holds the batch's state and its
row in it. Nothing is copied while the same streams come again in the same order; rows are gathered
when a stream joins or leaves.

Invariant: the encoder runs in evaluation mode without gradients; arrays go in and come out, on the
CPU. The search (prediction network and joiner) always runs on the CPU: one copy a chunk instead of
one a frame.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from snowmelt.checkpoint.weights_hash import weights_sha256
from snowmelt.models.decoder import Decoder
from snowmelt.models.state import stack_states
from snowmelt.presets.frames import FrontEnd
from snowmelt.search.scorer import FloatArray, IntArray

__all__ = ["TorchBackend", "TorchScorer", "decoder_tables"]


class TorchScorer:
    """Prediction network and joiner of a transducer; see `search.scorer.Scorer`.

    An eager prediction network is one table for each place of the context: the vector of a context
    is the sum of a row of each, and a ReLU. A matrix product is left for the projection only.

    Args:
        model: a transducer in evaluation mode; its decoder and joiner are copied to the CPU if they
            are not there.
        unk_id: id that is never emitted; None if there is none.
    """

    def __init__(self, model: nn.Module, unk_id: int | None) -> None:
        parts: Any = model
        self._joiner = _on_cpu(parts.joiner)
        self._decoder = _on_cpu(parts.decoder)
        self._tables: list[Tensor] = []
        if isinstance(self._decoder, Decoder):
            self._tables = decoder_tables(self._decoder)
        self.context_size: int = parts.decoder.context_size
        self.blank_id: int = parts.decoder.blank_id
        self.unk_id = unk_id

    def decode(self, contexts: IntArray) -> FloatArray:
        """(M, context_size) int64 -> (M, J) float32."""
        with torch.inference_mode():
            decoder_out = self._decoder_out(torch.from_numpy(contexts))
            decoder_proj: FloatArray = self._joiner.decoder_proj(decoder_out).numpy()
        return decoder_proj

    def _decoder_out(self, contexts: Tensor) -> Tensor:
        """(M, context_size) -> (M, C)."""
        if not self._tables:  # a TorchScript program
            return cast(Tensor, self._decoder(contexts, need_pad=False)).squeeze(1)
        # A negative id is the last row of a table, which is zero.
        rows = contexts.clamp(min=-1)
        decoder_out = self._tables[0][rows[:, 0]]
        for place in range(1, self.context_size):
            decoder_out = decoder_out + self._tables[place][rows[:, place]]
        return decoder_out.relu()

    def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
        """(M, J) and (M, J) float32 -> (M, V) float32 logits."""
        with torch.inference_mode():
            logits: FloatArray = self._joiner(
                torch.from_numpy(encoder_proj), torch.from_numpy(decoder_proj), project_input=False
            ).numpy()
        return logits


@torch.inference_mode()
def decoder_tables(decoder: Any) -> list[Tensor]:
    """What the tokens of a context add to the vector of a prediction network before its ReLU.

    Args:
        decoder: a `models.decoder.Decoder`, or what export makes of one.

    Returns:
        for each place of the context, oldest first, (V + 1, D): a row a token, the last one zero.
    """
    ids = torch.arange(decoder.vocab_size)
    embedded = decoder.embedding(ids)  # (V, D)
    tables = []
    for place in range(decoder.context_size):
        alone = torch.zeros(*embedded.shape, decoder.context_size)
        alone[:, :, place] = embedded
        table = decoder.conv(alone)[:, :, 0]
        tables.append(torch.cat([table, torch.zeros_like(table[:1])]))
    return tables


class _StreamingEncoder(Protocol):
    """What every encoder in `models` offers."""

    def __call__(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]: ...

    def init_state(self, num_streams: int, /) -> Any: ...

    def stream(self, x: Tensor, x_lens: Tensor, state: Any, /) -> tuple[Tensor, Tensor, Any]: ...


class _Windows(Protocol):
    """What an encoder reads: a model's configuration says it, or a file."""

    @property
    def decode_chunk_len(self) -> int: ...

    @property
    def front_end(self) -> FrontEnd: ...


class _Row(NamedTuple):
    """One stream's encoder state: a row of the state of the batch it was last decoded in."""

    batch: Any
    row: int


class TorchBackend:
    """A streaming transducer in torch; see `runtime.backend.Backend`.

    Args:
        model: a transducer with `encoder`, `decoder` and `joiner`, weights loaded; put into
            evaluation mode and on `device`.
        config: gives the chunk length and what the front end sees.
        unk_id: id that is never emitted.
        device: where the encoder runs.
    """

    def __init__(
        self,
        model: nn.Module,
        config: _Windows,
        *,
        unk_id: int | None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        model.eval().to(self._device)
        self._model = model
        parts: Any = model
        self._encoder = cast(_StreamingEncoder, parts.encoder)
        self._encoder_proj = parts.joiner.encoder_proj
        self._new_state = self._encoder.init_state(1)
        self.scorer = TorchScorer(model, unk_id)
        self.decode_chunk_len = config.decode_chunk_len
        self.front_end = config.front_end

    def weights_sha256(self) -> str:
        """One number for all weights, as they take part in calculations."""
        return weights_sha256(self._model.state_dict())

    def init_state(self) -> _Row:
        """State of a stream that has heard nothing."""
        return _Row(self._new_state, 0)

    def encode(
        self, features: FloatArray, feature_lens: IntArray, states: Sequence[_Row]
    ) -> tuple[FloatArray, IntArray, list[_Row]]:
        """Advance N streams by one window each; see `Backend.encode`."""
        with torch.inference_mode():
            encoder_out, lens, batch = self._encoder.stream(
                *self._inputs(features, feature_lens), _gathered(states)
            )
            encoder_proj = self._encoder_proj(encoder_out)
        return _to_numpy(encoder_proj), _to_numpy(lens), [_Row(batch, n) for n in range(len(lens))]

    def encode_whole(
        self, features: FloatArray, feature_lens: IntArray
    ) -> tuple[FloatArray, IntArray]:
        """Encode whole utterances; see `Backend.encode_whole`."""
        with torch.inference_mode():
            encoder_out, lens = self._encoder(*self._inputs(features, feature_lens))
            encoder_proj = self._encoder_proj(encoder_out)
        return _to_numpy(encoder_proj), _to_numpy(lens)

    def _inputs(self, features: FloatArray, feature_lens: IntArray) -> tuple[Tensor, Tensor]:
        return (
            torch.from_numpy(features).to(self._device),
            torch.from_numpy(feature_lens).to(self._device),
        )


def _gathered(states: Sequence[_Row]) -> Any:
    """One batched state with the rows of `states`, in their order."""
    parts = []
    # Neighbours that were decoded together before: usually all of them, but those that just joined.
    for _, group in itertools.groupby(states, key=lambda state: id(state.batch)):
        members = list(group)
        batch, rows = members[0].batch, [state.row for state in members]
        leaf = _first_leaf(batch)
        is_whole = rows == list(range(leaf.shape[0]))
        index = torch.tensor(rows, device=leaf.device)
        parts.append(batch if is_whole else _selected(batch, index))
    return parts[0] if len(parts) == 1 else stack_states(parts)


def _selected(tree: Any, index: Tensor) -> Any:
    """The streams `index` of a state, in that order."""
    if isinstance(tree, Tensor):
        return tree.index_select(0, index)
    parts = [_selected(part, index) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def _first_leaf(tree: Any) -> Tensor:
    while not isinstance(tree, Tensor):
        tree = tree[0]
    return tree


def _on_cpu(module: Any) -> Any:
    if all(parameter.device.type == "cpu" for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).cpu()


def _to_numpy(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()
