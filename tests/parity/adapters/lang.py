"""Kind lang.lg: lexicon, grammar and their graph, step by step from file to file.

An FSA of the cases is rows (source, destination, label) with one final state, the last; -1 is the
label into it. The state where an FSA starts is 0.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from snowmelt.text.arpa import read_arpa
from snowmelt.text.grammar import grammar_from_arpa
from snowmelt.text.graph import DecodingGraph, graph_from_k2_arcs
from snowmelt.text.lexicon import (
    add_disambiguation,
    disambiguated_tokens,
    read_lexicon,
    spell_words,
    validate_lexicon,
    write_lexicon,
)
from snowmelt.text.lexicon_fst import lexicon_to_transducer
from snowmelt.text.lg import compile_lg
from snowmelt.text.symbols import SymbolTable
from snowmelt.text.tokenizer import load_tokenizer
from snowmelt.text.transducer import Transducer, transducer_from_arcs
from tests.parity.cases import Run
from tests.text.paths import best_path

__all__ = ["KINDS"]


def _lang(run: Run) -> dict[str, Any]:
    return _CALLS[run.call](run)


def _tokens(run: Run) -> dict[str, Any]:
    tokenizer = load_tokenizer(run.inputs()["bpe_model"])
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save(directory)
        return {"tokens": _text(Path(directory) / "tokens.txt")}


def _lexicon(run: Run) -> dict[str, Any]:
    inputs = run.inputs()
    tokenizer = load_tokenizer(inputs["bpe_model"])
    lexicon = spell_words(SymbolTable.read(inputs["words"]), tokenizer)
    validate_lexicon(lexicon, SymbolTable.read(inputs["tokens"]))
    disambiguated, max_disambiguation = add_disambiguation(lexicon)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_lexicon(folder / "lexicon", lexicon)
        write_lexicon(folder / "lexicon_disambig", disambiguated)
        disambiguated_tokens(tokenizer.id_to_token, max_disambiguation).write(folder / "tokens")
        return {name: _text(folder / name) for name in run.outputs}


def _lexicon_fsa(run: Run) -> dict[str, Any]:
    inputs = run.inputs()
    transducer = lexicon_to_transducer(
        read_lexicon(inputs["lexicon"]),
        SymbolTable.read(inputs["tokens"]),
        SymbolTable.read(inputs["words"]),
        has_backoff_loop=run.params["need_self_loops"],
    )
    return _fsa(transducer)


def _grammar_text(run: Run) -> dict[str, Any]:
    inputs = run.inputs()
    words = SymbolTable.read(inputs["words"])
    grammar = grammar_from_arpa(read_arpa(inputs["arpa"]), words)
    with tempfile.TemporaryDirectory() as directory:
        grammar.write_text(Path(directory) / "G.fst.txt")
        return {"fst_text": _text(Path(directory) / "G.fst.txt")}


def _grammar_fsa(run: Run) -> dict[str, Any]:
    return _fsa(Transducer.read_text(run.inputs()["fst_text"]))


def _path_score(run: Run) -> dict[str, Any]:
    """The best path through the stored graph, and through the one compiled from L and G."""
    inputs = run.inputs()
    folder = run.case.path.parent
    words = SymbolTable.read(folder / "words.txt")
    tokens = SymbolTable.read(folder / "tokens.txt")
    lg = {name: tensor.numpy() for name, tensor in inputs["LG"].items()}
    stored = graph_from_k2_arcs(lg["arcs"], lg["scores"], lg["aux_row_splits"], lg["aux_values"])
    lexicon, grammar = (
        _transducer(run.case.tensors_with(prefix)) for prefix in ("L_disambig.", "G.")
    )
    compiled = compile_lg(lexicon, grammar, tokens, words)
    results = [_best(graph, inputs["tokens"], words) for graph in (stored, compiled)]
    assert results[0]["output_words"] == results[1]["output_words"], run.id
    assert abs(results[0]["best_score"] - results[1]["best_score"]) < 1e-3, run.id
    return results[1]


def _best(graph: DecodingGraph, tokens: list[int], words: SymbolTable) -> dict[str, Any]:
    score, word_ids = best_path(graph, tokens)
    return {"best_score": score, "output_words": [words.symbol(i) for i in word_ids]}


def _fsa(transducer: Transducer) -> dict[str, Any]:
    """The transducer with one final state, as k2 has it: start and state 0 change their names."""
    names = np.arange(transducer.num_states)
    names[[0, transducer.start]] = names[[transducer.start, 0]]
    final = np.flatnonzero(np.isfinite(transducer.final_scores))
    src = np.concatenate([names[transducer.src], names[final]])
    dst = np.concatenate([names[transducer.dst], np.full(len(final), len(names))])
    labels = np.concatenate([transducer.ilabels, np.full(len(final), -1)])
    outputs = np.concatenate([transducer.olabels, np.full(len(final), -1)])
    scores = np.concatenate([transducer.scores, transducer.final_scores[final]])
    order = np.argsort(src, kind="stable")
    return {
        "arcs": np.stack([src, dst, labels], axis=1)[order],
        "scores": scores[order],
        "aux_labels": outputs[order],
    }


def _transducer(fsa: dict[str, Tensor]) -> Transducer:
    src, dst, labels = fsa["arcs"].numpy().T
    scores, outputs = fsa["scores"].numpy(), fsa["aux_labels"].numpy()
    is_final = labels == -1
    final_scores = np.full(int(dst.max()), -np.inf)
    final_scores[src[is_final]] = scores[is_final]
    kept = ~is_final
    return transducer_from_arcs(
        0, src[kept], dst[kept], labels[kept], outputs[kept], scores[kept], final_scores
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


_CALLS = {
    "tokens_from_bpe": _tokens,
    "prepare_lang": _lexicon,
    "lexicon_to_fsa": _lexicon_fsa,
    "arpa_to_fst": _grammar_text,
    "fst_to_fsa": _grammar_fsa,
    "path_score": _path_score,
}

KINDS = {"lang.lg": _lang}
