"""Which options name the language models of a search, and which files are these?

Names are the original's (icefall's decode.py, lm_wrapper.py); `--lm-type 3gram` is ours. Options
that tell the sizes of a neural model are accepted and compared with what its config.yaml says.

Invariant: a model is read only if the method needs it.
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from snowmelt.cli.arguments import (
    add_bool,
    finite_floats,
    natural_int,
    parse_bool,
    positive_int,
)
from snowmelt.core.errors import ConfigError
from snowmelt.presets.language_models import LM_TYPES

if TYPE_CHECKING:
    from snowmelt.search.lm import LanguageModel, NgramScorer
    from snowmelt.search.methods import LanguageModels, SearchOptions
    from snowmelt.text.ngram import BackoffRule
    from snowmelt.text.tokenizer import Tokenizer

__all__ = ["add_lm_options", "load_lms"]

# Options of the original that tell a model's sizes -> fields of its configuration.
_SIZES: Final = {
    "rnn": {
        "lm_vocab_size": "vocab_size",
        "rnn_lm_embedding_dim": "embedding_dim",
        "rnn_lm_hidden_dim": "hidden_dim",
        "rnn_lm_num_layers": "num_layers",
        "rnn_lm_tie_weights": "tie_weights",
    },
    "transformer": {
        "lm_vocab_size": "vocab_size",
        "transformer_lm_embedding_dim": "encoder_dim",
        "transformer_lm_encoder_dim": "encoder_dim",
        "transformer_lm_dim_feedforward": "dim_feedforward",
        "transformer_lm_nhead": "nhead",
        "transformer_lm_num_layers": "num_layers",
        "transformer_lm_tie_weights": "tie_weights",
    },
}


def add_lm_options(parser: argparse.ArgumentParser) -> None:
    """Which language models, and how much they count."""
    group = parser.add_argument_group("language models, of the modified_beam_search_* methods")
    group.add_argument(
        "--lm-type",
        type=_lm_type,
        default="3gram",
        metavar="TYPE",
        help="rnn, transformer, or n-grams of tokens, as in 3gram or 5gram (default: 3gram)",
    )
    group.add_argument(
        "--lm-exp-dir",
        type=Path,
        metavar="DIR",
        help="folder of the language model: that of snowmelt train-lm, or with <N>gram.fst.txt or "
        "<N>gram.arpa (default for n-grams: --lang-dir)",
    )
    group.add_argument(
        "--transformer-lm-exp-dir",
        type=Path,
        metavar="DIR",
        help="the same, for --lm-type transformer only",
    )
    group.add_argument(
        "--lm-epoch",
        type=positive_int,
        metavar="N",
        help="rnn, transformer: last epoch averaged (default: the best on its dev text)",
    )
    group.add_argument(
        "--lm-avg",
        type=positive_int,
        default=1,
        metavar="N",
        help="rnn, transformer: epochs averaged (default: 1)",
    )
    group.add_argument(
        "--lm-scale",
        type=finite_floats,
        default=(0.3,),
        metavar="X",
        help="what the model's scores are multiplied by (default: 0.3)",
    )
    group.add_argument(
        "--tokens-ngram",
        type=positive_int,
        default=2,
        metavar="N",
        help="LODR and ngram_rescoring: order of the token n-gram in --lang-dir, which "
        "--ngram-lm-scale belongs to (default: 2)",
    )
    group.add_argument(
        "--backoff-id",
        type=natural_int,
        metavar="ID",
        help="id of #0 in the .fst.txt files (default: the size of the vocabulary)",
    )
    sizes = sorted({name for names in _SIZES.values() for name in names})
    for name in sizes:
        is_bool = name.endswith("tie_weights")
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=parse_bool if is_bool else positive_int,
            metavar="BOOL" if is_bool else "N",
            help="checked against the model's own config.yaml",
        )
    add_bool(group, "--use-shallow-fusion", default=False, help="accepted, without a meaning here")


def load_lms(
    args: argparse.Namespace,
    options: "SearchOptions",
    tokenizer: "Tokenizer",
    known: dict[Any, Any] | None = None,
) -> "LanguageModels":
    """The models that the method needs.

    Args:
        args: values of the options.
        options: what `search_options` makes of them.
        tokenizer: of the transducer.
        known: what was loaded for other searches with these options; this one's models are added.

    Raises:
        UserError: a file is missing or malformed, or is of another vocabulary.
    """
    from snowmelt.search.methods import (
        LM_METHODS,
        NGRAM_METHODS,
        RESCORING_METHODS,
        LanguageModels,
    )

    method = options.decoding_method
    known = {} if known is None else known
    lm_key = (options.lm_type, "arpa")
    # Whole sentences by the ARPA rule (the original: kenlm), tokens of a search by all paths.
    rule: BackoffRule = "arpa" if method in RESCORING_METHODS else "all_paths"
    ngram_key = (f"{options.tokens_ngram}gram", rule, "--lang-dir")
    if method in LM_METHODS and lm_key not in known:
        if options.lm_type in LM_TYPES:
            known[lm_key] = _neural_lm(args, options, tokenizer)
        else:
            folder = _folder(args.lm_exp_dir or args.lang_dir, method, "--lm-exp-dir")
            order = int(options.lm_type.removesuffix("gram"))
            known[lm_key] = _token_ngram(folder, order, tokenizer, args.backoff_id, "arpa")
    if method in NGRAM_METHODS and ngram_key not in known:
        folder = _folder(args.lang_dir, method, "--lang-dir")
        order = options.tokens_ngram
        known[ngram_key] = _token_ngram(folder, order, tokenizer, args.backoff_id, rule)
    return LanguageModels(
        known[lm_key] if method in LM_METHODS else None,
        known[ngram_key] if method in NGRAM_METHODS else None,
    )


def _neural_lm(
    args: argparse.Namespace, options: "SearchOptions", tokenizer: "Tokenizer"
) -> "LanguageModel[Any]":
    from snowmelt.runtime.load_lm import load_neural_lm

    folder, option = args.lm_exp_dir, "--lm-exp-dir"
    if options.lm_type == "transformer" and args.transformer_lm_exp_dir is not None:
        folder, option = args.transformer_lm_exp_dir, "--transformer-lm-exp-dir"
    return load_neural_lm(
        _folder(folder, options.decoding_method, option),
        options.lm_type,
        tokenizer,
        epoch=args.lm_epoch,
        avg=args.lm_avg,
        sizes={
            field: getattr(args, name)
            for name, field in _SIZES[options.lm_type].items()
            if getattr(args, name) is not None
        },
        device=args.device,
    )


def _folder(folder: Path | None, method: str, option: str) -> Path:
    if folder is None:
        raise ConfigError(f"{method} needs a language model", f"name its folder with {option}")
    return folder


def _token_ngram(
    folder: Path, order: int, tokenizer: "Tokenizer", backoff_id: int | None, rule: "BackoffRule"
) -> "NgramScorer":
    from snowmelt.search.lm import NgramScorer
    from snowmelt.text.arpa import read_arpa
    from snowmelt.text.grammar import grammar_from_arpa
    from snowmelt.text.ngram import NgramLm
    from snowmelt.text.symbols import BACKOFF, SymbolTable
    from snowmelt.text.transducer import Transducer

    vocab_size = len(tokenizer.id_to_token)
    fst, arpa = folder / f"{order}gram.fst.txt", folder / f"{order}gram.arpa"
    if fst.exists():
        path, grammar = fst, Transducer.read_text(fst)
        backoff_id = vocab_size if backoff_id is None else backoff_id
    elif arpa.exists():
        backoff_id = vocab_size
        ids = {token: i for i, token in enumerate(tokenizer.id_to_token)}
        path = arpa
        grammar = grammar_from_arpa(read_arpa(arpa), SymbolTable({**ids, BACKOFF: backoff_id}))
    else:
        hint = "name the folder of token n-grams with --lang-dir; snowmelt prepare makes them"
        if (folder / "config.yaml").exists():
            hint = f"of a neural model say which, --lm-type {' or '.join(LM_TYPES)}"
        raise ConfigError(f"{folder} holds no {fst.name} and no {arpa.name}", hint)
    labels = grammar.ilabels[grammar.ilabels != backoff_id]
    if len(labels) and labels.max() >= vocab_size:
        raise ConfigError(
            f"{path} holds token id {labels.max()}, the model knows {vocab_size} tokens",
            "use n-grams of the model's own tokens, and the --backoff-id they were made with",
        )
    return NgramScorer(NgramLm(grammar, backoff_id, rule), vocab_size)


def _lm_type(word: str) -> str:
    if word not in LM_TYPES and not re.fullmatch(r"[1-9]gram", word):
        raise argparse.ArgumentTypeError(
            f"{word!r} is no type of language model that can be read; give {', '.join(LM_TYPES)}, "
            "or an order of n-grams, as in 3gram"
        )
    return word
