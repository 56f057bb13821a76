"""A test set of tones that the fake model understands, and of noise for the real one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, Recording, SupervisionSegment

from snowmelt.evaluate.utterances import Hypothesis, Utterance
from snowmelt.runtime.recognizer import RecognitionResult
from snowmelt.runtime.words import Word
from tests.runtime.fakes import HIGH, LOW, burst, silence
from tests.runtime.tiny import noise


def tones(*words: int) -> np.ndarray:
    """Each word as a tone, with pauses, cut off at the end of the last one."""
    parts = [part for word in words for part in (silence(0.2), burst(word))]
    return np.concatenate(parts)


def tone_utterances(spoken: Sequence[Sequence[int]]) -> list[Utterance]:
    """Utterances u0, u1, ... with true transcripts."""
    names = {LOW: "LOW", HIGH: "HIGH"}
    utterances = []
    for n, words in enumerate(spoken):
        sound = tones(*words)
        text = [names[word] for word in words]
        load = lambda sound=sound: (16000, sound)  # noqa: E731
        utterances.append(Utterance(f"u{n}", text, len(sound) / 16000, load))
    return utterances


def utterance(utterance_id: str, text: str, speaker: str = "") -> Utterance:
    """One whose sound nobody asks for."""

    def load() -> tuple[int, np.ndarray]:
        raise NotImplementedError

    return Utterance(utterance_id, text.split(), 10.0, load, speaker=speaker)


def hypothesis(utterance: Utterance, *texts: str) -> Hypothesis:
    """Recognised words, the best first; a word of a token in every second."""
    return Hypothesis(utterance, tuple(_recognised(text, -n) for n, text in enumerate(texts)))


def _recognised(text: str, log_prob: float) -> RecognitionResult:
    words = text.split()
    times = tuple(float(n) for n in range(len(words)))
    return RecognitionResult(
        text=text,
        tokens=tuple(f"▁{word}" for word in words),
        timestamps=times,
        token_ends=tuple(time + 0.32 for time in times),
        token_logprobs=(-0.5,) * len(words),
        words=tuple(
            Word(word, time, time + 0.32, 0.6) for word, time in zip(words, times, strict=True)
        ),
        start_time=0.0,
        is_final=True,
        stable_text=text,
        log_prob=log_prob,
        confidence=0.5,
    )


@dataclass(frozen=True)
class NoiseCorpus:
    """Three utterances a split, at 8 kHz for one of them."""

    folder: Path
    name: str = "noise"
    test_sets: tuple[str, ...] = ("test",)
    varies_with_epoch: bool = False

    def prepare(self, archive: Path | None = None) -> None:
        raise NotImplementedError

    def cuts(self, split: str, epoch: int = 0) -> CutSet:
        self.folder.mkdir(parents=True, exist_ok=True)
        cuts = []
        for n in range(3):
            rate = 8000 if n == 1 else 16000
            path = self.folder / f"{split}-{n}.wav"
            soundfile.write(path, noise(0.5 + 0.4 * n, seed=n, rate=rate), rate)
            recording = Recording.from_file(path)
            cut = recording.to_cut()
            cut.id = f"{split}-{n}"
            cut.supervisions = [
                SupervisionSegment(cut.id, recording.id, 0.0, recording.duration, text="A BC")
            ]
            cuts.append(cut)
        return CutSet.from_cuts(cuts if split != "train" else [])
