"""What is wrong with a corpus? Facts about its utterances in, findings out.

    missing, unreadable, lfs-pointer, wrong-rate      the sound cannot be had
    silent, clipped                                   it is no speech, or spoilt
    duplicate, duplicate-across-splits                it is there twice
    too-long, too-short, too-few-frames               it cannot be learnt from
    no-transcript, unknown-characters, rate-outlier   the transcript does not fit
    speaker-in-two-splits                             a test of known voices

Invariant: pure functions; an utterance may have several findings, and each says why in words.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from lhotse.cut import Cut

from snowmelt.audio.fbank import FbankConfig
from snowmelt.data.audit.duplicates import same_sounds
from snowmelt.data.audit.sound import SoundFacts
from snowmelt.data.cuts import cut_text
from snowmelt.presets.frames import num_encoder_frames
from snowmelt.text.tokenizer import Tokenizer

__all__ = [
    "DEFECTS",
    "FATAL_DEFECTS",
    "AuditLimits",
    "Finding",
    "Utterance",
    "count_by_defect",
    "find_defects",
    "in_order",
    "manifest_defects",
    "sound_defects",
]

DEFECTS: Final = (
    "missing",
    "lfs-pointer",
    "unreadable",
    "wrong-rate",
    "silent",
    "clipped",
    "duplicate",
    "duplicate-across-splits",
    "too-long",
    "too-short",
    "too-few-frames",
    "no-transcript",
    "unknown-characters",
    "rate-outlier",
    "speaker-in-two-splits",
)

# With these a training would stop, or its result would be worth nothing. All others cost no more
# than the utterances themselves.
FATAL_DEFECTS: Final = frozenset(
    {
        "missing",
        "lfs-pointer",
        "unreadable",
        "wrong-rate",
        "duplicate-across-splits",
        "speaker-in-two-splits",
    }
)

_TRAIN: Final = "train"
# Nobody learns from the other splits: only what can be no utterance at all is too long there.
_OTHER_SPLITS_FACTOR: Final = 2.0

# So many seconds around the speech count as speech, or a single short word would be an outlier.
_PAUSE_S: Final = 0.3
# A spread is not measured on fewer utterances.
_MIN_FOR_SPREAD: Final = 30
# People differ at least so much, however even a small corpus may be.
_MIN_SPREAD: Final = 0.1
# The median absolute deviation of normal numbers is this much of their standard deviation.
_MAD_OF_NORMAL: Final = 0.6745

# What corpora write where they do not know who speaks; GigaSpeech does so everywhere.
_NOBODY: Final = frozenset({"n/a", "na", "none", "unk", "unknown", "<unk>"})

# Without a vocabulary: characters in fewer of the utterances than this are suspected.
_RARE_SHARE: Final = 0.001


@dataclass(frozen=True)
class AuditLimits:
    """Where something begins to be a defect.

    Attributes:
        min_utterance_s, max_utterance_s: length of a training utterance in seconds; utterances of
            other splits may be twice as long.
        min_level_db: an utterance whose loudest 25 ms are below is silent, decibels of full scale.
        max_clipped: share of samples on flat tops.
        min_chars_per_s, max_chars_per_s: characters, without blanks, in a second of speech.
        max_rate_deviation: how far the logarithm of that rate may lie from the corpus's median,
            in standard deviations (estimated from the median deviation).
        min_similarity: correlation of two utterances' energies over time and frequency, of
            equal length within 20 ms, from which they are one recording.
    """

    min_utterance_s: float = 0.3
    max_utterance_s: float = 20.0
    min_level_db: float = -50.0
    max_clipped: float = 0.0005
    min_chars_per_s: float = 1.0
    max_chars_per_s: float = 25.0
    max_rate_deviation: float = 8.0
    min_similarity: float = 0.985


class Utterance(NamedTuple):
    """A cut of a split, and what was heard; None: nobody has listened."""

    split: str
    cut: Cut
    facts: SoundFacts | None


class Finding(NamedTuple):
    """One defect of one utterance."""

    defect: str
    split: str
    cut_id: str
    detail: str

    @property
    def is_fatal(self) -> bool:
        """Whether training must not start."""
        return self.defect in FATAL_DEFECTS


def find_defects(
    utterances: Sequence[Utterance],
    *,
    limits: AuditLimits,
    tokenizer: Tokenizer | None = None,
    fbank: FbankConfig | None = None,
) -> list[Finding]:
    """Everything that is wrong, in the order of `DEFECTS`, then of the utterances.

    Args:
        utterances: of all splits, in order.
        limits: see there.
        tokenizer: counts tokens and knows which characters there are. None: words are counted
            instead, and characters that are rare or that training has not are suspected.
        fbank: says how many feature frames an utterance has.
    """
    return in_order(
        [
            *manifest_defects(utterances, limits=limits, tokenizer=tokenizer, fbank=fbank),
            *sound_defects(utterances, limits=limits),
        ]
    )


def manifest_defects(
    utterances: Sequence[Utterance],
    *,
    limits: AuditLimits,
    tokenizer: Tokenizer | None = None,
    fbank: FbankConfig | None = None,
) -> list[Finding]:
    """What manifests alone tell; arguments as for `find_defects`."""
    fbank = FbankConfig() if fbank is None else fbank
    return [
        *_each(utterances, lambda u: _of_length(u, limits, tokenizer, fbank)),
        *_unknown_characters(utterances, tokenizer),
        *_known_speakers(utterances),
    ]


def sound_defects(utterances: Sequence[Utterance], *, limits: AuditLimits) -> list[Finding]:
    """What is heard: of the utterances that have facts."""
    return [
        *_each(utterances, _of_file),
        *_each(utterances, lambda u: _of_sound(u, limits)),
        *_duplicates(utterances, limits),
        *_rate_outliers(utterances, limits),
    ]


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in the order of `DEFECTS`, those of one defect as they came."""
    order = {name: n for n, name in enumerate(DEFECTS)}
    return sorted(findings, key=lambda finding: order[finding.defect])


def _each(
    utterances: Sequence[Utterance], check: Callable[[Utterance], Iterable[tuple[str, str]]]
) -> Iterable[Finding]:
    for utterance in utterances:
        for defect, detail in check(utterance):
            yield Finding(defect, utterance.split, utterance.cut.id, detail)


def _of_file(utterance: Utterance) -> Iterable[tuple[str, str]]:
    facts = utterance.facts
    if facts is not None and facts.problem:
        yield facts.problem, facts.detail


def _of_sound(utterance: Utterance, limits: AuditLimits) -> Iterable[tuple[str, str]]:
    facts = _heard(utterance)
    if facts is None:
        return
    if facts.level_db < limits.min_level_db:
        yield (
            "silent",
            f"its loudest 25 ms are at {facts.level_db:.0f} dB, below {limits.min_level_db:.0f}",
        )
    if facts.clipped > limits.max_clipped:
        yield (
            "clipped",
            f"{100 * facts.clipped:.2g} % of its samples lie on flat tops, more than "
            f"{100 * limits.max_clipped:.2g} %",
        )


def _of_length(
    utterance: Utterance, limits: AuditLimits, tokenizer: Tokenizer | None, fbank: FbankConfig
) -> Iterable[tuple[str, str]]:
    split, cut, _ = utterance
    longest = limits.max_utterance_s * (1.0 if split == _TRAIN else _OTHER_SPLITS_FACTOR)
    if cut.duration > longest:
        yield "too-long", f"{cut.duration:.2f} s, more than {longest:g}"
    if cut.duration < limits.min_utterance_s:
        yield "too-short", f"{cut.duration:.3f} s, less than {limits.min_utterance_s:g}"
    text = cut_text(cut)
    if not text:
        yield "no-transcript", "its transcript is empty"
        return
    num_frames = num_encoder_frames(fbank.num_frames(round(cut.duration * fbank.sample_rate)))
    num_tokens = len(text.split() if tokenizer is None else tokenizer.encode(text))
    if num_frames < num_tokens:
        what = "words" if tokenizer is None else "tokens"
        yield "too-few-frames", f"{num_tokens} {what} in {num_frames} encoder frames"


def _duplicates(utterances: Sequence[Utterance], limits: AuditLimits) -> Iterable[Finding]:
    heard = [u for u in utterances if (facts := _heard(u)) is not None and facts.digest]
    sounds = [facts for u in heard if (facts := u.facts) is not None]
    for later, earlier in same_sounds(
        sounds, [u.cut.duration for u in heard], min_similarity=limits.min_similarity
    ):
        split, cut, _ = heard[later]
        other_split, other, _ = heard[earlier]
        if other_split == split:
            yield Finding("duplicate", split, cut.id, f"the same sound as {other.id}")
        else:
            where = f"the same sound as {other.id} of {other_split}"
            yield Finding("duplicate-across-splits", split, cut.id, where)


def _unknown_characters(
    utterances: Sequence[Utterance], tokenizer: Tokenizer | None
) -> Iterable[Finding]:
    texts = [cut_text(u.cut) for u in utterances]
    strange = _suspects(utterances, texts) if tokenizer is None else None
    for (split, cut, _), text in zip(utterances, texts, strict=True):
        if tokenizer is not None and tokenizer.unk_id not in tokenizer.encode(text):
            continue
        if tokenizer is None:
            found = sorted(set(text) & (strange or set()))
            detail = f"not in the other transcripts: {_shown(found)}"
        else:
            found = [w for w in text.split() if tokenizer.unk_id in tokenizer.encode(w)]
            detail = f"not in the vocabulary: {' '.join(found[:5])}"
        if found:
            yield Finding("unknown-characters", split, cut.id, detail)


def _suspects(utterances: Sequence[Utterance], texts: Sequence[str]) -> set[str]:
    """Characters that training does not have, or that few utterances have.

    A rare letter is a letter as long as it is one of the usual alphabet's: Q and Z are rare.
    """
    counts: dict[str, int] = defaultdict(int)
    in_training = set()
    for (split, _, _), text in zip(utterances, texts, strict=True):
        for character in set(text) - {" "}:
            counts[character] += 1
            if split == _TRAIN:
                in_training.add(character)
    if not counts:
        return set()
    usual = max(counts, key=lambda c: counts[c])
    rare = max(1.0, _RARE_SHARE * len(texts))
    suspects = {c for c in counts if counts[c] <= rare and _alphabet(c) != _alphabet(usual)}
    return suspects | (set(counts) - in_training if in_training else set())


def _alphabet(character: str) -> tuple[bool, bool, bool, bool]:
    """Characters of one kind: A to Z; others with a case of the same sort; and so on."""
    return character.isascii(), character.isalpha(), character.isupper(), character.islower()


def _shown(characters: Iterable[str]) -> str:
    return " ".join(f"{c!r} (U+{ord(c):04X})" for c in characters)


def _rate_outliers(utterances: Sequence[Utterance], limits: AuditLimits) -> Iterable[Finding]:
    kept, rates = [], []
    for utterance in utterances:
        facts = _heard(utterance)
        num_chars = len(cut_text(utterance.cut).replace(" ", ""))
        if facts is not None and num_chars and facts.level_db >= limits.min_level_db:
            kept.append(utterance)
            rates.append((num_chars + 1) / (facts.speech_s + _PAUSE_S))
    if not rates:
        return
    logs: npt.NDArray[np.float64] = np.log(rates)
    median = float(np.median(logs))
    spread = max(float(np.median(np.abs(logs - median))) / _MAD_OF_NORMAL, _MIN_SPREAD)
    is_measured = len(logs) >= _MIN_FOR_SPREAD
    for (split, cut, _), rate, log in zip(kept, rates, logs, strict=True):
        deviation = (log - median) / spread if is_measured else 0.0
        if (
            not limits.min_chars_per_s <= rate <= limits.max_chars_per_s
            or abs(deviation) > limits.max_rate_deviation
        ):
            yield Finding(
                "rate-outlier",
                split,
                cut.id,
                f"{rate:.1f} characters a second of speech, the median is {np.exp(median):.1f}",
            )


def _known_speakers(utterances: Sequence[Utterance]) -> Iterable[Finding]:
    """The utterances outside training whose speakers have spoken there, or in an earlier split."""
    splits_of: dict[str, dict[str, None]] = defaultdict(dict)
    for split, cut, _ in utterances:
        for speaker in _speakers(cut):
            splits_of[speaker][split] = None
    for split, cut, _ in utterances:
        for speaker in _speakers(cut):
            splits = list(splits_of[speaker])
            if len(splits) > 1 and split != splits[0]:
                detail = f"its speaker {speaker} is in {splits[0]} too"
                yield Finding("speaker-in-two-splits", split, cut.id, detail)


def _speakers(cut: Cut) -> list[str]:
    speakers = {s.speaker for s in cut.supervisions if s.speaker}
    return sorted(name for name in speakers if name.casefold() not in _NOBODY)


def _heard(utterance: Utterance) -> SoundFacts | None:
    facts = utterance.facts
    return None if facts is None or facts.problem else facts


def count_by_defect(findings: Iterable[Finding]) -> Mapping[str, int]:
    """Number of findings of each defect that was found, in the order of `DEFECTS`."""
    counts = dict.fromkeys(DEFECTS, 0)
    for finding in findings:
        counts[finding.defect] += 1
    return {name: count for name, count in counts.items() if count}
