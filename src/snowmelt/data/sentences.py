"""How does text become batches for a language model? Sentences as token ids, a flat array of them.

A sentence is read from its beginning to its end: inputs are `<sos/eos>` and its tokens, targets its
tokens and `<sos/eos>`. A sentence that is too long is cut into pieces, each of which goes on from
the last token of the one before: none begins or ends where the sentence does not.

Invariant: batches are a function of (texts, settings, seed, epoch); see `data.sampler`.
"""

import hashlib
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import DataError
from snowmelt.core.progress import progress_bar
from snowmelt.data.sampler import DurationBatchSampler
from snowmelt.text.symbols import read_lines
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["SentenceBatch", "Sentences", "encode_sentences", "read_sentences", "split_off_dev"]

# One sentence in so many is kept for validation where no dev text is given.
_DEV_SHARE: Final = 50

# What a place without a token holds, in inputs and in targets: no sentence has a blank.
PADDING: Final = 0


class SentenceBatch(NamedTuple):
    """N pieces of sentences, padded behind.

    Attributes:
        inputs: (N, S) int64.
        targets: (N, S) int64, what follows each input; `PADDING` where there is none.
        num_words: words that the pieces stand for, ends of sentences included.
    """

    inputs: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    num_words: int


@dataclass(frozen=True)
class Sentences:
    """Pieces of sentences, one behind the other.

    Attributes:
        inputs: (all tokens,) ids.
        targets: (all tokens,) ids.
        splits: (pieces + 1,) where each piece begins.
        num_words: (pieces,) words of each, ends of sentences included; a word is where it ends.
        num_unknown: tokens that the vocabulary cannot say.
    """

    inputs: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int64]
    num_words: npt.NDArray[np.int32]
    num_unknown: int

    def __len__(self) -> int:
        return len(self.splits) - 1

    def content_hash(self) -> str:
        """SHA-256 (hexadecimal) of all tokens: equal for equal texts only."""
        return hashlib.sha256(self.targets.tobytes()).hexdigest()

    def sampler(self, max_tokens: int, *, seed: int, shuffle: bool = True) -> DurationBatchSampler:
        """Batches of pieces, limited in padded tokens; a piece's duration is its length."""
        return DurationBatchSampler(
            np.diff(self.splits).tolist(), float(max_tokens), seed=seed, shuffle=shuffle
        )

    def batch(self, indices: Sequence[int]) -> SentenceBatch:
        """The batch of these pieces."""
        lens = np.diff(self.splits)[list(indices)]
        inputs = np.full((len(indices), int(lens.max())), PADDING, np.int64)
        targets = inputs.copy()
        for row, (index, length) in enumerate(zip(indices, lens.tolist(), strict=True)):
            own = slice(self.splits[index], self.splits[index] + length)
            inputs[row, :length] = self.inputs[own]
            targets[row, :length] = self.targets[own]
        return SentenceBatch(inputs, targets, int(self.num_words[list(indices)].sum()))


def read_sentences(paths: Iterable[Path]) -> Iterator[str]:
    """The lines of text files, plain or packed with gzip; empty ones are left out.

    Raises:
        DataError: a file is missing, damaged or not UTF-8.
    """
    for path in paths:
        for _, line in read_lines(path, "text"):
            if line.strip():
                yield line.strip()


def split_off_dev(sentences: Iterable[str]) -> tuple[list[str], list[str]]:
    """One in fifty sentences apart, for validation: the same sentence is always on the same side.

    Returns:
        the others, and those.
    """
    rest: list[str] = []
    dev: list[str] = []
    for sentence in sentences:
        is_dev = zlib.crc32(sentence.encode("utf-8")) % _DEV_SHARE == 0
        (dev if is_dev else rest).append(sentence)
    return rest, dev


def encode_sentences(
    sentences: Iterable[str], tokenizer: Tokenizer, *, max_len: int, name: str
) -> Sentences:
    """Token ids of sentences.

    Args:
        sentences: one text each.
        tokenizer: the transducer's.
        max_len: longest piece, in tokens.
        name: what to call them in messages and progress.

    Raises:
        DataError: there is no sentence, or one spells a special token.
    """
    inputs, targets, splits, num_words = array("i"), array("i"), array("q", [0]), array("i")
    end, num_unknown = tokenizer.sos_eos_id, 0
    starts_word = np.array([token.startswith("▁") for token in tokenizer.id_to_token])
    starts_word[tokenizer.unk_id] = tokenizer.kind == "words"
    with progress_bar(f"reading {name}") as progress:
        for sentence in sentences:
            ids = tokenizer.encode(sentence)
            if not ids:
                continue
            num_unknown += ids.count(tokenizer.unk_id)
            given, wanted = [end, *ids], [*ids, end]
            inputs.extend(given)
            targets.extend(wanted)
            # A piece counts the words that begin in it, and the end of the sentence.
            counted = starts_word[wanted]
            counted[0] = counted[-1] = True
            for begin in range(0, len(wanted), max_len):
                piece = counted[begin : begin + max_len]
                splits.append(splits[-1] + len(piece))
                num_words.append(int(piece.sum()))
            progress.advance()
    if len(splits) == 1:
        raise DataError(f"{name} holds no sentence", "one sentence a line is needed")
    return Sentences(
        np.frombuffer(inputs, np.int32),
        np.frombuffer(targets, np.int32),
        np.frombuffer(splits, np.int64),
        np.frombuffer(num_words, np.int32),
        num_unknown,
    )
