"""What is scored? Utterances: an id, the words that were said, and a way to the sound.

Invariant: sound is loaded when an utterance's turn comes, never all at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lhotse.cut import Cut

from snowmelt.audio.samples import Float32Array
from snowmelt.data.alignment import TimedWord
from snowmelt.data.cuts import AudioCache, cut_text, cut_words, load_samples
from snowmelt.runtime.recognizer import RecognitionResult

__all__ = ["Hypothesis", "Utterance", "from_cuts"]


@dataclass(frozen=True)
class Utterance:
    """One item of a test set.

    Attributes:
        utterance_id: unique in the test set.
        words: what was said.
        duration_s: length of the sound in seconds.
        load: gives the sample rate and the samples, (num_samples,) float32; may raise UserError.
        timed_words: the words with their times, where the corpus knows them; otherwise empty.
        speaker: who said it; empty if that is not known.
    """

    utterance_id: str
    words: list[str]
    duration_s: float
    load: Callable[[], tuple[int, Float32Array]]
    timed_words: tuple[TimedWord, ...] = ()
    speaker: str = ""


@dataclass(frozen=True)
class Hypothesis:
    """What was recognised in an utterance.

    Attributes:
        utterance: what was said.
        nbest: what was recognised, at least one; the first is what counts.
    """

    utterance: Utterance
    nbest: tuple[RecognitionResult, ...]

    @property
    def row(self) -> tuple[str, list[str], list[str]]:
        """Utterance id, words said, words recognised: a row of the result files."""
        return self.utterance.utterance_id, self.utterance.words, self.nbest[0].text.split()


def from_cuts(cuts: Iterable[Cut]) -> list[Utterance]:
    """Utterances of lhotse cuts, in their order."""
    cache = AudioCache(max_bytes=0)  # every cut is heard once

    def loader(cut: Cut) -> Callable[[], tuple[int, Float32Array]]:
        return lambda: (int(cut.sampling_rate), load_samples(cut, cache))

    return [
        Utterance(
            cut.id,
            cut_text(cut).split(),
            float(cut.duration),
            loader(cut),
            _timed_words(cut),
            _speaker(cut),
        )
        for cut in cuts
    ]


def _timed_words(cut: Cut) -> tuple[TimedWord, ...]:
    return tuple(
        TimedWord(word.symbol, word.start, round(word.start + word.duration, ndigits=8))
        for word in cut_words(cut)
    )


def _speaker(cut: Cut) -> str:
    speakers = {supervision.speaker or "" for supervision in cut.supervisions}
    return speakers.pop() if len(speakers) == 1 else ""
