"""What does a recognizer need from a model? An encoder on arrays, a scorer, and the model's facts.

Invariant: a backend is shared by all streams and remembers none of them: everything that belongs
to a stream is in the state that is passed in and handed back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from snowmelt.audio.fbank import FbankConfig
from snowmelt.presets.frames import FrontEnd
from snowmelt.runtime.dimensions import Dimensions
from snowmelt.search.methods import SearchOptions
from snowmelt.search.scorer import FloatArray, IntArray, Scorer
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["Backend", "SpeechModel"]


class Backend(Protocol):
    """A streaming encoder with projected output; states are opaque to everybody else."""

    @property
    def scorer(self) -> Scorer:
        """Prediction network and joiner."""

    @property
    def decode_chunk_len(self) -> int:
        """Feature frames of 10 ms in a chunk."""

    @property
    def front_end(self) -> FrontEnd:
        """Tells by how many feature frames a window of k chunks is longer than they."""

    def init_state(self) -> Any:
        """Encoder state of a stream that has heard nothing."""

    def encode(
        self, features: FloatArray, feature_lens: IntArray, states: Sequence[Any]
    ) -> tuple[FloatArray, IntArray, list[Any]]:
        """Advance N streams by one window each.

        Args:
            features: (N, k * decode_chunk_len + front_end.window_overlap, F) float32, k >= 1; the
                numbers are those of k calls with one chunk each.
            feature_lens: (N,) int64, valid frames.
            states: N states; they stay valid and unchanged.

        Returns:
            projected encoder output (N, T, J) float32, its lengths (N,) int64, N new states.
        """

    def encode_whole(
        self, features: FloatArray, feature_lens: IntArray
    ) -> tuple[FloatArray, IntArray]:
        """Encode whole utterances at once: the same numbers as `encode`.

        Args:
            features: (N, T_feat, F) float32, padded with anything finite.
            feature_lens: (N,) int64.

        Returns:
            projected encoder output (N, T, J) float32 and its lengths (N,) int64.
        """


@dataclass(frozen=True)
class SpeechModel:
    """A trained model ready to recognise: what `load_model` gives and recognizers take.

    Attributes:
        backend: the network in some runtime.
        tokenizer: turns token ids into text.
        features: how samples become features.
        min_tail_s: least seconds of zero samples after the last sample (see `audio.tail`).
        weights: which files the weights came from, for people.
        head: whose decoder and joiner these are, of a training on several corpora.
        dimensions: what is known of its sizes, by the recipes' option names.
        search: how tokens are found where nothing else is asked for: a bundle says it.
    """

    backend: Backend
    tokenizer: Tokenizer
    features: FbankConfig = field(default_factory=FbankConfig)
    min_tail_s: float = 0.4
    weights: str = ""
    head: str = "main"
    dimensions: Dimensions = field(default_factory=dict)
    search: SearchOptions = field(default_factory=SearchOptions)
