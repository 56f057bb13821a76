"""Which transducer turns a sequence of tokens into the words that it spells?

Invariant: state 0 is start and end and stands between words; a word is written on the first arc
of its spelling; all scores are 0. Token 0 never occurs in a spelling, so label 0 is epsilon.

Source: icefall, egs/librispeech/ASR/local/prepare_lang_bpe.py.
"""

import numpy as np

from snowmelt.core.errors import DataError
from snowmelt.text.lexicon import Lexicon
from snowmelt.text.symbols import BACKOFF, SymbolTable
from snowmelt.text.transducer import Transducer, transducer_from_arcs

__all__ = ["lexicon_to_transducer"]


def lexicon_to_transducer(
    lexicon: Lexicon, tokens: SymbolTable, words: SymbolTable, *, has_backoff_loop: bool
) -> Transducer:
    """The lexicon as a transducer from tokens to words (L).

    Args:
        lexicon: its entries; with disambiguation symbols for a graph to be determinized.
        tokens: ids of tokens, disambiguation symbols included.
        words: ids of words.
        has_backoff_loop: whether the loop `#0`:`#0` stands between words, which lets the backoff
            of an n-gram through.

    Raises:
        DataError: a token or word is in no table, or a spelling holds token 0.
    """
    arcs: list[tuple[int, int, int, int]] = []
    num_states = 1
    for word, spelling in lexicon:
        labels = [tokens[token] for token in spelling]
        if 0 in labels:
            raise DataError(
                f"the lexicon spells {word!r} with {tokens.symbol(0)!r}",
                "token 0 stands for silence and cannot be part of a word",
            )
        inner = range(num_states, num_states + len(labels) - 1)
        num_states += len(inner)
        outputs = [words[word]] + [0] * len(inner)
        arcs += zip([0, *inner], [*inner, 0], labels, outputs, strict=True)
    if has_backoff_loop:
        arcs.append((0, 0, tokens[BACKOFF], words[BACKOFF]))
    final_scores = np.full(num_states, -np.inf)
    final_scores[0] = 0.0
    src, dst, ilabels, olabels = np.array(arcs, dtype=np.int32).reshape(-1, 4).T
    return transducer_from_arcs(0, src, dst, ilabels, olabels, np.zeros(len(arcs)), final_scores)
