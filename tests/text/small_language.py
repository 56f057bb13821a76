"""A language of nine words, and slow ways to score its sentences: by dictionaries, word by word."""

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from snowmelt.text.arpa import ArpaModel, write_arpa
from snowmelt.text.lexicon import Lexicon, add_disambiguation, disambiguated_tokens
from snowmelt.text.lexicon_fst import lexicon_to_transducer
from snowmelt.text.modified_kneser_ney import estimate_modified_kneser_ney
from snowmelt.text.symbols import SymbolTable, word_table
from snowmelt.text.transducer import Transducer

__all__ = [
    "LEXICON",
    "TOKENS",
    "WORDS",
    "SlowNgrams",
    "lexicon_transducer",
    "random_sentences",
    "segmentations",
    "word_model",
]

# Equal spellings (TWO, TOO, TO), beginnings of others (A, TEA), a word the grammar lacks (NEVER).
LEXICON: Lexicon = [
    ("A", ("a",)),
    ("AT", ("a", "t")),
    ("ATE", ("a", "t", "e")),
    ("TEA", ("t", "e")),
    ("TEAT", ("t", "e", "t")),
    ("TO", ("t", "o")),
    ("TOO", ("t", "o")),
    ("TWO", ("t", "o")),
    ("NEVER", ("n", "e")),
    ("<UNK>", ("e", "e")),
]
WORDS = word_table([word for word, _ in LEXICON])
TOKENS = disambiguated_tokens(["<blk>", "a", "e", "n", "o", "t"], 3)


def lexicon_transducer() -> Transducer:
    disambiguated, _ = add_disambiguation(LEXICON)
    return lexicon_to_transducer(disambiguated, TOKENS, WORDS, has_backoff_loop=True)


def random_sentences(seed: int, num_sentences: int = 60) -> list[str]:
    rng = random.Random(seed)
    words = ["A", "AT", "ATE", "TEA", "TEAT", "TO", "TOO", "TWO"]
    weights = [8, 5, 3, 3, 2, 5, 2, 1]
    return [
        " ".join(rng.choices(words, weights, k=rng.randint(0, 6))) for _ in range(num_sentences)
    ]


def word_model(seed: int, order: int) -> ArpaModel:
    return estimate_modified_kneser_ney(random_sentences(seed), order)


def segmentations(tokens: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All ways to read tokens as words."""
    if not tokens:
        yield ()
    for word, spelling in LEXICON:
        if tuple(tokens[: len(spelling)]) == tuple(spelling):
            for rest in segmentations(tokens[len(spelling) :]):
                yield (word, *rest)


class SlowNgrams:
    """An n-gram model as dictionaries; natural logs."""

    def __init__(self, model: ArpaModel) -> None:
        self.order = model.order
        self.log_probs: dict[tuple[str, ...], float] = {}
        self.backoffs: dict[tuple[str, ...], float] = {}
        for table in model.tables:
            rows = zip(table.ids, table.log10_probs, table.log10_backoffs, strict=True)
            for ids, log10_prob, log10_backoff in rows:
                ngram = tuple(model.words[i] for i in ids)
                self.log_probs[ngram] = float(log10_prob) * math.log(10)
                backoff = 0.0 if math.isnan(log10_backoff) else float(log10_backoff)
                self.backoffs[ngram] = backoff * math.log(10)

    def by_arpa_rule(self, sentence: Sequence[str]) -> float:
        """The probability that the model states."""
        return sum(self.next(before, word) for before, word in self._steps(sentence))

    def next(self, before: Sequence[str], word: str) -> float:
        history = tuple(before)[max(0, len(before) - self.order + 1) :]
        if (*history, word) in self.log_probs:
            return self.log_probs[(*history, word)]
        if not history:
            return -math.inf
        return self.backoffs.get(history, 0.0) + self.next(history[1:], word)

    def best_path(self, sentence: Sequence[str]) -> float:
        """The best over all ways to back off, whether an n-gram is listed or not."""
        return self._best(("<s>",), [*sentence, "</s>"])

    def _best(self, history: tuple[str, ...], words: Sequence[str]) -> float:
        if not words:
            return 0.0
        history = history[max(0, len(history) - self.order + 1) :]
        best = -math.inf
        if (*history, words[0]) in self.log_probs:
            best = self.log_probs[(*history, words[0])]
            best += self._best((*history, words[0]), words[1:])
        if history:
            best = max(best, self.backoffs.get(history, 0.0) + self._best(history[1:], words))
        return best

    @staticmethod
    def _steps(sentence: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
        words = ["<s>", *sentence, "</s>"]
        return ((words[:i], words[i]) for i in range(1, len(words)))


def arpa_file(path: Path, model: ArpaModel) -> Path:
    write_arpa(path, model)
    return path


def table_of(*symbols: str) -> SymbolTable:
    return SymbolTable({symbol: i for i, symbol in enumerate(symbols)})
