"""Models small enough to be worked out by hand, for every test of a search."""

import numpy as np

from snowmelt.search.scorer import FloatArray, IntArray


class ToyScorer:
    """V = 6, C = 2: logits[v] = ((3 tau + 5 v + 7 (c0 + 2 c1)) mod 11) / 2.

    A frame is the number tau alone (J = 1); c0, c1 is the history, c1 the newest token; ids are
    used as they are, so -1 and 0 differ.
    """

    context_size = 2
    blank_id = 0
    vocab_size = 6

    def __init__(self, unk_id: int | None = None) -> None:
        self.unk_id = unk_id
        self.num_joined_rows = 0

    def decode(self, contexts: IntArray) -> FloatArray:
        return (7 * (contexts[:, :1] + 2 * contexts[:, 1:])).astype(np.float32)

    def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
        assert encoder_proj.shape == decoder_proj.shape
        self.num_joined_rows += len(encoder_proj)
        tokens = np.arange(self.vocab_size, dtype=np.float32)
        return (np.mod(3 * encoder_proj + 5 * tokens + decoder_proj, 11) / 2).astype(np.float32)


class OneTokenScorer(ToyScorer):
    """Prefers token 1 everywhere."""

    def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
        return np.tile(np.eye(self.vocab_size, dtype=np.float32)[1], (len(encoder_proj), 1))


def toy_batch() -> tuple[FloatArray, IntArray]:
    """Two utterances, of frames 0..7 and 10..14; the padding of the second is not zero."""
    encoder_proj = np.full((2, 8, 1), 1e3, dtype=np.float32)
    encoder_proj[0, :, 0] = np.arange(8)
    encoder_proj[1, :5, 0] = np.arange(10, 15)
    return encoder_proj, np.array([8, 5])


class RandomScorer:
    """V tokens whose logits are a fixed random function of frame and history; any float type.

    The frame is a number that is looked up (J = 1), as is the history's hash.
    """

    context_size = 2
    blank_id = 0

    def __init__(
        self,
        vocab_size: int = 4,
        seed: int = 0,
        dtype: type = np.float32,
        unk_id: int | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.unk_id = unk_id
        self._logits = np.random.default_rng(seed).normal(0, 2, (64, 64, vocab_size)).astype(dtype)

    def decode(self, contexts: IntArray) -> FloatArray:
        code = (contexts[:, :1] + 1) * (self.vocab_size + 1) + contexts[:, 1:] + 1
        return code.astype(np.float32)

    def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
        frames, codes = encoder_proj[:, 0].astype(int), decoder_proj[:, 0].astype(int)
        return self._logits[frames, codes]


def frames_batch(*lens: int) -> tuple[FloatArray, IntArray]:
    """Utterances of these lengths for `RandomScorer`, no frame twice; padding must not be read."""
    encoder_proj = np.full((len(lens), max(lens, default=0), 1), 1e6, dtype=np.float32)
    first = 0
    for n, num in enumerate(lens):
        encoder_proj[n, :num, 0] = (first + np.arange(num)) % 64
        first += num
    return encoder_proj, np.array(lens, dtype=np.int64)
