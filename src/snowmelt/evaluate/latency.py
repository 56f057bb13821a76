"""How late do words come? Delays in seconds of sound, and the computing time beside them.

    emission delay    sound heard when a word appears and stays, minus the true end of the word
    first partial     sound heard when the first text appears; also from the start of the speech
    complete          sound heard when the text is what it will be, minus the end of the speech
    final             sound heard when nothing can change any more, minus the end of the speech
    revised           share of the texts shown that the next one takes back in part
    real-time factor  seconds of computing for a second of sound

What is counted from words needs a corpus that knows when they were said, and only words that were
recognised are counted.

Invariant: a pure function of what was shown; all but the real-time factor are the same on every
machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from snowmelt.evaluate.partials import PartialLog, Shown, standing_since
from snowmelt.evaluate.utterances import Utterance
from snowmelt.text.wer import align

__all__ = ["Latency", "Spread", "emission_delays", "latency_text", "measure"]


class Spread(NamedTuple):
    """Some values in few numbers.

    Attributes:
        number: how many values.
        mean: their mean.
        p50: half of them are not above it.
        p90: nine of ten are not above it.
    """

    number: int
    mean: float
    p50: float
    p90: float


@dataclass(frozen=True)
class Latency:
    """Of a test set; None where nothing could be counted.

    Attributes:
        chunk_s: seconds of a chunk.
        look_ahead_s: seconds beyond the end of a chunk that must be heard before it is decoded.
        emission_delay_s: of words.
        first_partial_s: of utterances, from the start of the sound.
        first_partial_after_onset_s: of utterances, from the true start of the first word.
        complete_s: of utterances, from the true end of the last word.
        final_s: of utterances, likewise; includes the silence of the tail.
        num_updates: texts that were shown.
        num_revised: of these, texts that the next one did not begin with.
        rtf: real-time factor, with as many streams at once as were asked for.
    """

    chunk_s: float
    look_ahead_s: float
    emission_delay_s: Spread | None
    first_partial_s: Spread | None
    first_partial_after_onset_s: Spread | None
    complete_s: Spread | None
    final_s: Spread | None
    num_updates: int
    num_revised: int
    rtf: float

    @property
    def revised(self) -> float:
        """Share of the texts shown that were taken back in part, 0 to 1."""
        return self.num_revised / self.num_updates if self.num_updates else 0.0


def measure(log: PartialLog, utterances: Sequence[Utterance], elapsed_s: float) -> Latency:
    """Latency of a test set that has just been recognised.

    Args:
        log: what was shown.
        utterances: the test set.
        elapsed_s: seconds that it took.
    """
    shown = [log.shown.get(utterance.utterance_id, Shown()) for utterance in utterances]
    timed = [
        (utterance, own)
        for utterance, own in zip(utterances, shown, strict=True)
        if utterance.words and [word.word for word in utterance.timed_words] == utterance.words
    ]
    spoken = [(utterance, own) for utterance, own in timed if own.updates]
    audio_s = sum(utterance.duration_s for utterance in utterances)
    return Latency(
        chunk_s=round(log.chunk_s, 6),
        look_ahead_s=round(log.look_ahead_s, 6),
        emission_delay_s=_spread(delay for u, own in spoken for delay in emission_delays(u, own)),
        first_partial_s=_spread(own.updates[0].heard_s for own in shown if own.updates),
        first_partial_after_onset_s=_spread(
            own.updates[0].heard_s - u.timed_words[0].start_s for u, own in spoken
        ),
        complete_s=_spread(own.updates[-1].heard_s - u.timed_words[-1].end_s for u, own in spoken),
        final_s=_spread(own.heard_s - u.timed_words[-1].end_s for u, own in timed),
        num_updates=sum(len(own.updates) for own in shown),
        num_revised=sum(
            not after.text.startswith(before.text)
            for own in shown
            for before, after in zip(own.updates, own.updates[1:], strict=False)
        ),
        rtf=elapsed_s / audio_s if audio_s else 0.0,
    )


def emission_delays(utterance: Utterance, shown: Shown) -> list[float]:
    """Seconds from the end of each word that was recognised until it stood; may be below 0."""
    since = standing_since(shown.updates)
    found = shown.updates[-1].text.split()
    delays = []
    said_place = found_place = 0
    for said, heard in align(utterance.words, found):
        if said is not None and said == heard:
            delays.append(since[found_place] - utterance.timed_words[said_place].end_s)
        said_place += said is not None
        found_place += heard is not None
    return delays


def latency_text(name: str, latency: Latency) -> str:
    """The figures for a terminal.

    Args:
        name: of the test set and the search.
        latency: of it.
    """
    rows: Mapping[str, Spread | None] = {
        "emission delay of words": latency.emission_delay_s,
        "first partial from the start of the sound": latency.first_partial_s,
        "first partial from the start of speech": latency.first_partial_after_onset_s,
        "text complete after the end of speech": latency.complete_s,
        "result final after the end of speech": latency.final_s,
    }
    lines = [f"[{name}] {'seconds of sound':<42}  {'mean':>6}  {'p50':>6}  {'p90':>6}  of"]
    lines += [
        f"[{name}] {label:<42}  {spread.mean:6.3f}  {spread.p50:6.3f}  {spread.p90:6.3f}  "
        f"{spread.number}"
        for label, spread in rows.items()
        if spread is not None
    ]
    lines.append(
        f"[{name}] chunk {latency.chunk_s:g} s, look-ahead {latency.look_ahead_s:g} s; "
        f"revised {100 * latency.revised:.2f} % of {latency.num_updates} texts; "
        f"real-time factor {latency.rtf:.4f}"
    )
    return "\n".join(lines)


def _spread(values: Iterable[float]) -> Spread | None:
    known = np.array(list(values), np.float64)
    if not len(known):
        return None
    p50, p90 = np.percentile(known, (50, 90))
    return Spread(len(known), *(round(float(value), 6) for value in (known.mean(), p50, p90)))
