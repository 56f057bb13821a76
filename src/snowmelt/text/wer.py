"""How wrong are the words? Alignments, word error rates, and the three result files.

Invariant: counts follow kaldialign's tie rule (insertion before deletion before substitution), and
the files are byte for byte those of icefall, so old scripts and old results can be compared.

Source: icefall, icefall/utils.py and decode.py of the recipes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from snowmelt.core.files import write_text

__all__ = ["Result", "WerStats", "align", "save_results", "score"]

Result: TypeAlias = tuple[str, Sequence[str], Sequence[str]]
"""One utterance: its id, the reference words, the recognised words."""

Alignment: TypeAlias = list[tuple[str | None, str | None]]

# Stands for nothing on one side of an error. Only printed: a word "*" is an ordinary word.
_GAP_TEXT: Final = "*"

_Key = TypeVar("_Key", str, tuple[str, str])


@dataclass(frozen=True)
class WerStats:
    """Word errors of some utterances."""

    num_ref_words: int
    insertions: int
    deletions: int
    substitutions: int

    @property
    def errors(self) -> int:
        """All errors."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def correct(self) -> int:
        """Reference words that were recognised."""
        return self.num_ref_words - self.deletions - self.substitutions

    @property
    def wer(self) -> float:
        """Word error rate in per cent; without reference words 0, or inf if there are errors."""
        if self.num_ref_words == 0:
            return float("inf") if self.errors else 0.0
        return 100.0 * self.errors / self.num_ref_words

    def __str__(self) -> str:
        return (
            f"%WER {self.wer:.2f}% [{self.errors} / {self.num_ref_words}, "
            f"{self.insertions} ins, {self.deletions} del, {self.substitutions} sub ]"
        )


def align(ref: Sequence[str], hyp: Sequence[str]) -> Alignment:
    """The cheapest alignment, every error costing 1.

    Returns:
        Pairs (reference word, recognised word); None where one side has nothing.

    Example:
        >>> align(["a", "b"], ["b", "a"])
        [('a', None), ('b', 'b'), (None, 'a')]
    """
    import kaldialign

    # As integers no word can be mistaken for the gap.
    word_ids: dict[str, int] = {}
    ref_ids = [word_ids.setdefault(word, len(word_ids)) for word in ref]
    hyp_ids = [word_ids.setdefault(word, len(word_ids)) for word in hyp]
    words: list[str | None] = [*word_ids, None]  # index -1: the gap
    return [(words[a], words[b]) for a, b in kaldialign.align(ref_ids, hyp_ids, -1)]


def score(results: Iterable[Result]) -> WerStats:
    """Errors summed over utterances."""
    return _tally(results).stats


def save_results(
    results: Mapping[str, Sequence[Result]],
    test_set: str,
    suffix: str,
    res_dir: str | Path,
    *,
    icefall_compat: bool = False,
) -> dict[str, WerStats]:
    """Write recognised words, error details and the summary of one test set.

    Files in `res_dir` (made if missing), each written whole or not at all:
    `recogs-{test_set}-{suffix}.txt`, `errs-{test_set}-{suffix}.txt`,
    `wer-summary-{test_set}-{suffix}.txt`.

    Args:
        results: decoding setting -> utterances; they are sorted by id. With more than one
            setting the recogs and errs files of each carry its name before the suffix.
        test_set: name of the test set.
        suffix: says how the results came about.
        res_dir: where to write.
        icefall_compat: with several settings all use the same recogs and errs files, so that
            the last one is left, as in the original.

    Returns:
        Setting -> errors, best setting first.

    Raises:
        UserError: a file cannot be written.
    """
    directory = Path(res_dir)
    stats: dict[str, WerStats] = {}
    for setting, utterances in results.items():
        utterances = sorted((cut_id, list(ref), list(hyp)) for cut_id, ref, hyp in utterances)
        tally = _tally(utterances)
        is_only = icefall_compat or len(results) == 1
        name = f"{test_set}-{suffix}.txt" if is_only else f"{test_set}-{setting}-{suffix}.txt"
        write_text(directory / f"recogs-{name}", _recogs(utterances))
        write_text(directory / f"errs-{name}", _errs(tally))
        stats[setting] = tally.stats
    ranked = dict(sorted(stats.items(), key=lambda item: _rounded(item[1])))
    lines = ["settings\tWER"] + [f"{key}\t{_rounded(value)}" for key, value in ranked.items()]
    write_text(directory / f"wer-summary-{test_set}-{suffix}.txt", "\n".join(lines) + "\n")
    return ranked


@dataclass
class _WordCounts:
    correct: int = 0
    ref_substituted: int = 0
    hyp_substituted: int = 0
    inserted: int = 0
    deleted: int = 0

    @property
    def errors(self) -> int:
        return self.ref_substituted + self.hyp_substituted + self.inserted + self.deleted


@dataclass
class _Tally:
    """Everything that the errs file tells."""

    alignments: list[tuple[str, Alignment]] = field(default_factory=list)
    substitutions: Counter[tuple[str, str]] = field(default_factory=Counter)
    deletions: Counter[str] = field(default_factory=Counter)
    insertions: Counter[str] = field(default_factory=Counter)
    words: defaultdict[str, _WordCounts] = field(default_factory=lambda: defaultdict(_WordCounts))

    @property
    def stats(self) -> WerStats:
        counts = self.words.values()
        return WerStats(
            num_ref_words=sum(c.correct + c.ref_substituted + c.deleted for c in counts),
            insertions=self.insertions.total(),
            deletions=self.deletions.total(),
            substitutions=self.substitutions.total(),
        )


def _tally(results: Iterable[Result]) -> _Tally:
    tally = _Tally()
    for cut_id, ref, hyp in results:
        if isinstance(ref, str) or isinstance(hyp, str):
            raise TypeError(f"words of {cut_id} must be lists: split the text first")
        alignment = align(ref, hyp)
        tally.alignments.append((cut_id, alignment))
        for ref_word, hyp_word in alignment:
            if ref_word is None:
                assert hyp_word is not None
                tally.insertions[hyp_word] += 1
                tally.words[hyp_word].inserted += 1
            elif hyp_word is None:
                tally.deletions[ref_word] += 1
                tally.words[ref_word].deleted += 1
            elif ref_word != hyp_word:
                tally.substitutions[ref_word, hyp_word] += 1
                tally.words[ref_word].ref_substituted += 1
                tally.words[hyp_word].hyp_substituted += 1
            else:
                tally.words[ref_word].correct += 1
    return tally


def _recogs(utterances: Sequence[Result]) -> str:
    return "".join(
        f"{cut_id}:\tref={list(ref)}\n{cut_id}:\thyp={list(hyp)}\n"
        for cut_id, ref, hyp in utterances
    )


def _errs(tally: _Tally) -> str:
    stats = tally.stats
    lines = [
        f"%WER = {stats.wer:.2f}",
        f"Errors: {stats.insertions} insertions, {stats.deletions} deletions, "
        f"{stats.substitutions} substitutions, over {stats.num_ref_words} reference words "
        f"({stats.correct} correct)",
        "Search below for sections starting with PER-UTT DETAILS:, SUBSTITUTIONS:, DELETIONS:, "
        "INSERTIONS:, PER-WORD STATS:",
        "",
        "PER-UTT DETAILS: corr or (ref->hyp)  ",
        *(f"{cut_id}:\t{_aligned_text(alignment)}" for cut_id, alignment in tally.alignments),
        "",
        "SUBSTITUTIONS: count ref -> hyp",
        *(f"{count}   {ref} -> {hyp}" for (ref, hyp), count in _most_frequent(tally.substitutions)),
        "",
        "DELETIONS: count ref",
        *(f"{count}   {word}" for word, count in _most_frequent(tally.deletions)),
        "",
        "INSERTIONS: count hyp",
        *(f"{count}   {word}" for word, count in _most_frequent(tally.insertions)),
        "",
        "PER-WORD STATS: word  corr tot_errs count_in_ref count_in_hyp",
        *(
            f"{word}   {c.correct} {c.errors} {c.correct + c.ref_substituted + c.deleted} "
            f"{c.correct + c.hyp_substituted + c.inserted}"
            for word, c in sorted(
                tally.words.items(), key=lambda item: (item[1].errors, item[0]), reverse=True
            )
        ),
    ]
    return "\n".join(lines) + "\n"


def _aligned_text(alignment: Alignment) -> str:
    """`THE (CAT->BAT) SAT (*->DOWN)`: neighbouring errors share a pair of brackets."""
    parts: list[str] = []
    for is_correct, pairs in groupby(alignment, key=lambda pair: pair[0] == pair[1]):
        refs, hyps = zip(*pairs, strict=True)
        if is_correct:
            parts.extend(refs)
        else:
            parts.append(f"({_side(refs)}->{_side(hyps)})")
    return " ".join(parts)


def _side(words: Iterable[str | None]) -> str:
    return " ".join(word for word in words if word is not None) or _GAP_TEXT


def _most_frequent(counts: Counter[_Key]) -> list[tuple[_Key, int]]:
    return sorted(counts.items(), key=lambda item: (item[1], item[0]), reverse=True)


def _rounded(stats: WerStats) -> float:
    """The rate as the files print it: 2.5, not 2.50."""
    return float(f"{stats.wer:.2f}")
