"""Is a word lost where an utterance is cut off right at its first or last sound?

Every test set of a corpus becomes two. Utterances of `<corpus>-<test set>-cut` begin with the
first sound of their first word and end with the last of their last word;
`<corpus>-<test set>-silence` has the same with silence around them. Words that are lost in the one
and not in the other are lost to the cut.

Invariant: the samples between are those of the corpus; nothing is written.
"""

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from lhotse import CutSet, MonoCut
from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem
from lhotse.utils import fastcopy

from snowmelt.core.errors import DataError
from snowmelt.data.cuts import AudioCache, cut_words, load_samples

__all__ = ["SUFFIX", "EdgeCorpus", "cut_at_the_edges", "speech_borders"]

SUFFIX: Final = "-edges"

# So far below the loudest frame of a word it has not begun yet, or has ended. Of 1,000 spoken
# digits, whose recordings are cut tightly already, this takes away 10 ms at each end at the median
# (one speaker: 115 and 70 ms); at 20 dB sounds like the T of EIGHT would go.
_SPEECH_RANGE_DB: Final = 30.0
# Short, so that a border is near a sound's.
_FRAME_S: Final = 0.005

# A chunk and more on either side: nothing is missing that could be there.
_SILENCE_S: Final = 0.5

_KINDS: Final = ("cut", "silence")


class EdgeCorpus:
    """The test sets of another corpus, cut at the edges; see `snowmelt.data.corpora.Corpus`.

    Args:
        name: of the other corpus.
        test_sets: its test sets.
        cuts: the utterances of one of them.
    """

    varies_with_epoch: Final = False
    known_defects: Final = frozenset[str]()

    def __init__(
        self, name: str, test_sets: tuple[str, ...], cuts: Callable[[str], CutSet]
    ) -> None:
        self.name: Final = name + SUFFIX
        self._splits: Final = {
            f"{name}-{source}-{kind}": (source, kind) for source in test_sets for kind in _KINDS
        }
        self._cuts = cuts

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Two for each of the corpus: digits-test-cut and digits-test-silence."""
        return tuple(self._splits)

    def cuts(self, split: str, epoch: int = 0) -> CutSet:
        """The utterances of a test set; "test" is all of them, "dev" the dev set, cut.

        Raises:
            DataError: there is no such split, or an utterance is not a part of one recording.
        """
        if split == "test":
            return CutSet.from_cuts(cut for name in self.test_sets for cut in self.cuts(name))
        if split not in (*self._splits, "dev"):
            raise DataError(
                f"{self.name} has no split {split!r}", f"choose dev, {', '.join(self.test_sets)}"
            )
        source, kind = self._splits.get(split, ("dev", "cut"))
        cache = AudioCache(max_bytes=0)
        cuts: Iterable[Cut] = (cut_at_the_edges(cut, cache) for cut in self._cuts(source))
        if kind == "silence":
            cuts = (_in_silence(cut) for cut in cuts)
        return CutSet.from_cuts(cut.with_id(f"{cut.id}-{kind}") for cut in cuts)


def cut_at_the_edges(cut: Cut, cache: AudioCache) -> MonoCut:
    """An utterance without what comes before its first sound and after its last.

    Where the corpus knows when words are said, the loudness of the first and of the last word
    decide; otherwise that of the utterance.

    Raises:
        DataError: the utterance is not a part of one recording.
        UserError: its sound cannot be used.
    """
    if not isinstance(cut, MonoCut):
        raise DataError(f"cut {cut.id} is put together from several: it cannot be cut at its edges")
    samples = load_samples(cut, cache)
    rate = int(cut.sampling_rate)
    words = cut_words(cut) or [AlignmentItem("", 0.0, cut.duration)]
    spans = [
        (max(0, round(word.start * rate)), round((word.start + word.duration) * rate))
        for word in (words[0], words[-1])
    ]
    first = spans[0][0] + speech_borders(samples[slice(*spans[0])], rate)[0]
    last = spans[1][0] + speech_borders(samples[slice(*spans[1])], rate)[1]
    start_s, end_s = first / rate, last / rate
    shorter = cut.truncate(offset=start_s, duration=(last - first) / rate, preserve_id=True)
    if words[0].symbol:
        inside = [_within(word, start_s, end_s, cut.start) for word in words]
        shorter.supervisions = [fastcopy(shorter.supervisions[0], alignment={"word": inside})]
    return shorter


def speech_borders(samples: npt.NDArray[np.float32], sample_rate: int) -> tuple[int, int]:
    """First sample of the speech, and the first one after it.

    Args:
        samples: (num_samples,), speech with or without quiet around it.
        sample_rate: of the samples.

    Returns:
        (0, num_samples) if they are too short to tell.
    """
    frame_len = round(_FRAME_S * sample_rate)
    num_frames = len(samples) // frame_len
    if num_frames == 0:
        return 0, len(samples)
    frames = samples[: num_frames * frame_len].astype(np.float64).reshape(num_frames, frame_len)
    power = np.square(frames).mean(axis=1)
    (loud,) = np.nonzero(power >= power.max() * 10 ** (-_SPEECH_RANGE_DB / 10))
    # What is left over after the last whole frame belongs to it.
    end = len(samples) if loud[-1] == num_frames - 1 else (loud[-1] + 1) * frame_len
    return int(loud[0]) * frame_len, int(end)


def _in_silence(cut: Cut) -> Cut:
    whole = cut.duration + 2 * _SILENCE_S
    padded: Cut = cut.pad(duration=whole, direction="both", preserve_id=True)
    return padded


def _within(
    word: AlignmentItem, start_s: float, end_s: float, recording_offset_s: float
) -> AlignmentItem:
    """The word's times inside the borders, counted from the start of its recording."""
    start = max(word.start, start_s)
    end = min(word.start + word.duration, end_s)
    return word._replace(
        start=round(recording_offset_s + start, ndigits=8), duration=round(end - start, ndigits=8)
    )
