"""Does an exported model compute what the trained one computes? Random chunks through both.

Streams carry their states from chunk to chunk, some join later than others, and the history of the
prediction network holds -1: what a foreign runtime will do with the files.

Invariant: the same seed asks the same questions; nothing is written.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from snowmelt.core.errors import SnowmeltError
from snowmelt.runtime.backend import Backend
from snowmelt.search.scorer import FloatArray, IntArray

__all__ = ["BATCH_SIZES", "TOLERANCE", "Differences", "compare", "verify"]

# Largest difference of an exported float32 model, per frame and channel.
TOLERANCE: Final = 1e-4

BATCH_SIZES: Final = (1, 3)

# More chunks than the left context holds, so that every part of a cache has been filled and moved.
_NUM_CHUNKS: Final = 7

_SEED: Final = 20230207

# Log-mel energies of speech lie about here.
_FEATURE_MEAN: Final = -6.0
_FEATURE_STD: Final = 4.0


class Differences(NamedTuple):
    """Largest absolute differences of what the three networks give."""

    encoder: float
    decoder: float
    joiner: float

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.1e}" for name, value in self._asdict().items())


def verify(reference: Backend, exported: Backend, *, num_features: int, vocab_size: int) -> str:
    """Compare an exported float32 model with the trained one.

    Args:
        reference, exported: the two, with the same chunk length.
        num_features: F.
        vocab_size: V.

    Returns:
        one line for people.

    Raises:
        SnowmeltError: they differ by more than 1e-4, which is a fault of the exporter.
    """
    differences = compare(reference, exported, num_features=num_features, vocab_size=vocab_size)
    if not max(differences) <= TOLERANCE:  # NaN too
        raise SnowmeltError(
            f"the exported model differs from the trained one by more than {TOLERANCE}: "
            f"{differences}; nothing was written"
        )
    batches = " and ".join(map(str, BATCH_SIZES))
    return f"verified on {_NUM_CHUNKS} random chunks of {batches} streams: differs by {differences}"


def compare(
    reference: Backend, exported: Backend, *, num_features: int, vocab_size: int
) -> Differences:
    """Largest differences of two models on the same random input; arguments as `verify`."""
    rng = np.random.default_rng(_SEED)
    encoder = max(_encoder(reference, exported, n, num_features, rng) for n in BATCH_SIZES)
    decoder, joiner = 0.0, 0.0
    for n in BATCH_SIZES:
        contexts = _contexts(n, reference.scorer.context_size, vocab_size, rng)
        ours, theirs = reference.scorer.decode(contexts), exported.scorer.decode(contexts)
        decoder = max(decoder, _difference(ours, theirs))
        frames = rng.normal(size=ours.shape).astype(np.float32)
        joiner = max(
            joiner,
            _difference(reference.scorer.join(frames, ours), exported.scorer.join(frames, ours)),
        )
    return Differences(encoder, decoder, joiner)


def _encoder(
    reference: Backend,
    exported: Backend,
    num_streams: int,
    num_features: int,
    rng: np.random.Generator,
) -> float:
    window = reference.decode_chunk_len + reference.front_end.window_overlap
    states: list[tuple[Any, Any]] = [
        (reference.init_state(), exported.init_state()) for _ in range(num_streams)
    ]
    largest = 0.0
    for chunk in range(_NUM_CHUNKS):
        # Stream n joins at chunk n, and the order changes: no stream is known by its place.
        rows = np.arange(min(chunk + 1, num_streams))[:: 1 if chunk % 2 else -1]
        shape = (len(rows), window, num_features)
        features = rng.normal(_FEATURE_MEAN, _FEATURE_STD, shape).astype(np.float32)
        lens = np.full(len(rows), window, dtype=np.int64)
        ours, our_lens, our_states = reference.encode(features, lens, [states[r][0] for r in rows])
        theirs, their_lens, their_states = exported.encode(
            features, lens, [states[r][1] for r in rows]
        )
        assert our_lens.tolist() == their_lens.tolist(), (our_lens, their_lens)
        largest = max(largest, _difference(ours, theirs))
        for row, our_state, their_state in zip(rows, our_states, their_states, strict=True):
            states[row] = our_state, their_state
    return largest


def _contexts(
    num_rows: int, context_size: int, vocab_size: int, rng: np.random.Generator
) -> IntArray:
    contexts = rng.integers(0, vocab_size, (num_rows + 2, context_size))
    contexts[0] = 0
    contexts[0, :-1] = -1  # how every search begins
    contexts[1] = -1
    return contexts.astype(np.int64)


def _difference(ours: FloatArray, theirs: FloatArray) -> float:
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max())
