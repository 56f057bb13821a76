"""Which options do decode, streaming-decode and transcribe share?

Names and meanings are the original's (icefall's decode.py and streaming_decode.py).
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from snowmelt.cli.arguments import (
    add_bool,
    finite_float,
    finite_floats,
    natural_int,
    positive_float,
    positive_int,
    positive_ints,
    words,
)
from snowmelt.cli.dimension_options import add_dimension_options, check_stated
from snowmelt.cli.lm_options import add_lm_options, load_lms
from snowmelt.core.errors import ConfigError

if TYPE_CHECKING:
    from snowmelt.evaluate.oracle import Oracle
    from snowmelt.runtime.backend import SpeechModel
    from snowmelt.runtime.load import WeightsChoice
    from snowmelt.runtime.model_files import ModelFiles
    from snowmelt.search.method import SearchMethod
    from snowmelt.search.methods import SearchOptions
    from snowmelt.text.graph import DecodingGraph
    from snowmelt.text.tokenizer import Tokenizer

__all__ = [
    "OFFLINE_DEFAULTS",
    "STREAMING_DEFAULTS",
    "FastBeamDefaults",
    "LoadedSearch",
    "add_model_options",
    "add_search_options",
    "add_weights_options",
    "load",
    "load_search",
    "search_options",
    "weights_choice",
]

_logger = logging.getLogger(__name__)

_Value = TypeVar("_Value")


class FastBeamDefaults(NamedTuple):
    """Options of fast_beam_search whose defaults differ between the original's programs."""

    beam: float
    max_contexts: int
    max_states: int


OFFLINE_DEFAULTS: Final = FastBeamDefaults(20.0, 8, 64)
STREAMING_DEFAULTS: Final = FastBeamDefaults(4.0, 4, 32)


def add_weights_options(group: argparse._ActionsContainer) -> None:
    """Which checkpoints of an experiment, and the chunk length."""
    group.add_argument(
        "--epoch", type=positive_ints, metavar="N", help="last epoch averaged (default: the newest)"
    )
    group.add_argument(
        "--iter",
        type=natural_int,
        default=0,
        metavar="N",
        help="above 0: average checkpoint-N.pt and those before it instead of epochs",
    )
    group.add_argument(
        "--avg",
        type=positive_ints,
        metavar="N",
        help="epochs or checkpoints averaged (default: 9, or as many as there are)",
    )
    add_bool(
        group,
        "--use-averaged-model",
        default=True,
        help="average over all batches of these epochs with the running means kept in training",
    )
    group.add_argument(
        "--head",
        default="main",
        metavar="NAME",
        help="of a training on several corpora: whose decoder and joiner (default: main)",
    )
    group.add_argument(
        "--decode-chunk-len",
        type=positive_int,
        metavar="FRAMES",
        help="chunk in feature frames of 10 ms (default: as trained)",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which weights, chunk length and device, and what may be said of the model besides."""
    group = parser.add_argument_group("model")
    add_weights_options(group)
    group.add_argument(
        "--bpe-model",
        type=Path,
        metavar="FILE",
        help="the vocabulary, for weights that come without (an experiment's own is compared)",
    )
    group.add_argument(
        "--tokens", type=Path, metavar="FILE", help="the same as tokens.txt; or both"
    )
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)"
    )
    group.add_argument(
        "--num-threads",
        type=positive_int,
        default=1,
        metavar="N",
        help="CPU threads of one calculation, at most one a core (default: 1)",
    )
    add_dimension_options(parser)


def add_search_options(
    parser: argparse.ArgumentParser, defaults: FastBeamDefaults = OFFLINE_DEFAULTS
) -> None:
    """How tokens are found.

    Args:
        parser: the parser to add to.
        defaults: what the original's program of this kind takes for fast_beam_search.
    """
    group = parser.add_argument_group("search")
    group.add_argument(
        "--decoding-method",
        "--method",
        type=words,
        metavar="NAME",
        help="greedy_search, beam_search, modified_beam_search, ... (default: greedy_search, or "
        "what a bundle says)",
    )
    group.add_argument(
        "--max-sym-per-frame",
        type=positive_int,
        metavar="N",
        help="most tokens that one encoder frame of 40 ms may emit (default: 1; beam_search: 5)",
    )
    group.add_argument(
        "--blank-penalty",
        type=finite_float,
        metavar="X",
        help="taken from the score of blank: fewer deletions, more insertions (default: 0, or what "
        "a bundle says)",
    )
    group.add_argument(
        "--temperature",
        type=positive_float,
        default=1.0,
        metavar="X",
        help="scores of the joiner are divided by it, not in greedy_search (default: 1)",
    )
    group.add_argument(
        "--beam-size",
        "--num-active-paths",
        "--num_active_paths",
        type=positive_int,
        default=4,
        metavar="N",
        help="hypotheses kept by beam_search and modified_beam_search (default: 4)",
    )
    group.add_argument(
        "--beam",
        type=positive_float,
        metavar="X",
        help="fast_beam_search: states this far below the best are dropped "
        f"(default: {defaults.beam:g})",
    )
    group.add_argument(
        "--max-contexts",
        type=positive_int,
        default=defaults.max_contexts,
        metavar="N",
        help=f"fast_beam_search: most contexts kept (default: {defaults.max_contexts})",
    )
    group.add_argument(
        "--max-states",
        type=positive_int,
        default=defaults.max_states,
        metavar="N",
        help=f"fast_beam_search: most states kept (default: {defaults.max_states})",
    )
    group.add_argument(
        "--num-paths",
        type=positive_int,
        default=200,
        metavar="N",
        help="nbest methods: paths taken from the lattice (default: 200)",
    )
    group.add_argument(
        "--nbest-scale",
        type=positive_float,
        default=0.5,
        metavar="X",
        help="nbest methods: scale of the lattice's scores (default: 0.5)",
    )
    group.add_argument(
        "--ngram-lm-scale",
        type=finite_floats,
        default=(0.01,),
        metavar="X",
        help="LG methods: scale of the graph's scores; LODR (below 0), ngram_rescoring: of the "
        "token n-gram's (default: 0.01)",
    )
    group.add_argument(
        "--lang-dir",
        type=Path,
        metavar="DIR",
        help="LG methods: folder of the language, with LG.npz and words.txt",
    )
    group.add_argument(
        "--graph",
        type=Path,
        metavar="FILE",
        help="fast_beam_search methods: what may follow what, as OpenFst text of token and word "
        "ids or as .npz; instead of --lang-dir",
    )
    group.add_argument(
        "--hotwords-file",
        "--context-file",
        type=Path,
        metavar="FILE",
        help="phrases to listen for, one a line, in plain words; PHRASE :2.5 has its own score",
    )
    group.add_argument(
        "--hotwords-score",
        "--context-score",
        type=finite_float,
        default=1.5,
        metavar="X",
        help="bonus of each token of a phrase (default: 1.5)",
    )
    add_bool(
        group,
        "--icefall-compat",
        default=False,
        help="search as the original does, faults included",
    )
    add_lm_options(parser)
    parser.set_defaults(fast_beam_defaults=defaults, knows_reference=False)


def search_options(
    args: argparse.Namespace, defaults: "SearchOptions | None" = None
) -> "SearchOptions":
    """The search that the options name.

    Args:
        args: values of `add_search_options`.
        defaults: method and blank penalty where no option names them; None: the usual ones.

    Raises:
        ConfigError: there is no such method, or several are given, or it needs what was said, which
            the command does not know.
    """
    from snowmelt.search.methods import ORACLE_METHODS, SearchOptions

    defaults = defaults or SearchOptions()
    method = defaults.decoding_method
    if args.decoding_method is not None:
        method = _single(args.decoding_method, "--decoding-method")
    if method in ORACLE_METHODS and not args.knows_reference:
        raise ConfigError(
            f"{method} chooses by what was really said, which this command does not know",
            f"score a test set with snowmelt decode, or choose {method.removesuffix('_oracle')}",
        )
    blank_penalty = defaults.blank_penalty if args.blank_penalty is None else args.blank_penalty
    beam = args.fast_beam_defaults.beam
    if args.beam is not None:
        beam = args.beam
        if method in ("beam_search", "modified_beam_search"):
            _logger.warning(
                "--beam %g has no effect on %s: its option is --beam-size", beam, method
            )
    return SearchOptions(
        decoding_method=method,
        max_sym_per_frame=args.max_sym_per_frame,
        blank_penalty=blank_penalty,
        temperature=args.temperature,
        beam_size=args.beam_size,
        beam=beam,
        max_contexts=args.max_contexts,
        max_states=args.max_states,
        num_paths=args.num_paths,
        nbest_scale=args.nbest_scale,
        ngram_lm_scale=_single(args.ngram_lm_scale, "--ngram-lm-scale"),
        lm_type=args.lm_type,
        lm_scale=_single(args.lm_scale, "--lm-scale"),
        tokens_ngram=args.tokens_ngram,
        icefall_compat=args.icefall_compat,
    )


class LoadedSearch(NamedTuple):
    """A search with all that it needs from files.

    Attributes:
        method: the search.
        word_table: the word of each word id, for a recognizer; None if the search finds no words.
        oracle: chooses among hypotheses by what was said; None if the method does not.
        is_rescored: whether all hypotheses of an utterance are wanted, to be ranked at any scale.
    """

    method: "SearchMethod[Any]"
    word_table: list[str] | None
    oracle: "Oracle | None" = None
    is_rescored: bool = False


def load_search(
    args: argparse.Namespace,
    options: "SearchOptions",
    tokenizer: "Tokenizer",
    known_lms: "dict[Any, Any] | None" = None,
) -> LoadedSearch:
    """The search itself, with what it reads from files.

    Args:
        args: values of the options.
        options: what `search_options` makes of them.
        tokenizer: of the transducer.
        known_lms: language models that several searches share, see `load_lms`.

    Raises:
        UserError: a file cannot be used, or the method has no use for it.
    """
    from snowmelt.core.files import require_file
    from snowmelt.search.hotwords import hotword_graph, parse_hotwords
    from snowmelt.search.methods import LG_METHODS, RESCORING_METHODS, build_search

    lms = load_lms(args, options, tokenizer, known_lms)
    is_rescored = options.decoding_method in RESCORING_METHODS
    # In a sweep --lang-dir is for the methods that need a language; as in the original, the others
    # walk along the trivial graph.
    needs_graph = args.graph or options.decoding_method in LG_METHODS
    graph = _decoding_graph(args, tokenizer) if needs_graph else None
    if args.hotwords_file is None:
        method = build_search(options, graph=graph, lms=lms)
        has_words = graph is not None and graph.has_words
        table = _word_table(args, graph) if graph and has_words else None
        return LoadedSearch(method, table, _oracle(options, tokenizer), is_rescored)
    path = require_file(args.hotwords_file, "the file of hotwords", error=ConfigError)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", "save it as UTF-8") from None
    hotwords = parse_hotwords(text, tokenizer, score=args.hotwords_score, name=str(path))
    for hotword in hotwords:
        pieces = " ".join(tokenizer.id_to_token[i] for i in hotword.token_ids)
        _logger.info("Hotword %s: %s (%g a token)", hotword.text, pieces, hotword.score)
    context_graph = hotword_graph(hotwords, icefall_compat=options.icefall_compat)
    method = build_search(options, context_graph=context_graph, graph=graph, lms=lms)
    return LoadedSearch(method, None, is_rescored=is_rescored)


def _oracle(options: "SearchOptions", tokenizer: "Tokenizer") -> "Oracle | None":
    from snowmelt.evaluate.oracle import Oracle
    from snowmelt.search.methods import ORACLE_METHODS

    if options.decoding_method not in ORACLE_METHODS:
        return None
    return Oracle(tokenizer, icefall_compat=options.icefall_compat)


def _decoding_graph(args: argparse.Namespace, tokenizer: "Tokenizer") -> "DecodingGraph | None":
    """The graph that --graph or --lang-dir names; None if neither is given."""
    from snowmelt.text.graph import DecodingGraph, read_fst_text

    lang_dir = args.lang_dir
    if args.graph is None and lang_dir is None:
        return None
    path = args.graph or lang_dir / "LG.npz"
    if path.suffix == ".npz":
        names = ("bpe.model", "words.txt") if lang_dir else ()
        made_from = [lang_dir / name for name in names if (lang_dir / name).exists()]
        return DecodingGraph.load(path, made_from=made_from)
    token_to_id = {token: i for i, token in enumerate(tokenizer.id_to_token)}
    return read_fst_text(path, token_to_id=token_to_id)


def _word_table(args: argparse.Namespace, graph: "DecodingGraph") -> list[str]:
    """The words of a graph, from words.txt of --lang-dir or else beside --graph."""
    from snowmelt.core.files import require_file
    from snowmelt.text.symbols import SymbolTable

    path = (args.lang_dir or args.graph.parent) / "words.txt"
    require_file(
        path,
        "the graph finds words, but their table",
        error=ConfigError,
        hint="give the folder that holds the graph's words.txt with --lang-dir",
    )
    table = SymbolTable.read(path)
    words = [""] * (int(graph.words.max()) + 1)
    for word_id in set(graph.words.tolist()):
        words[word_id] = table.symbol(word_id)
    return words


def weights_choice(args: argparse.Namespace) -> "WeightsChoice":
    """The weights that the options name.

    Raises:
        ConfigError: several epochs or averages are given.
    """
    from snowmelt.runtime.load import WeightsChoice

    return WeightsChoice(
        epoch=None if args.epoch is None else _single(args.epoch, "--epoch"),
        iteration=args.iter,
        avg=None if args.avg is None else _single(args.avg, "--avg"),
        use_averaged_model=args.use_averaged_model,
    )


def load(
    path: "Path | ModelFiles", weights: "WeightsChoice | None", args: argparse.Namespace
) -> "SpeechModel":
    """Load the model as the options say, and set the number of threads.

    Raises:
        UserError: it cannot be loaded, or is not what the options say it is.
    """
    from snowmelt.runtime.load import load_model

    model = load_model(
        path,
        weights=weights,
        head=args.head,
        decode_chunk_len=args.decode_chunk_len,
        num_left_chunks=args.num_left_chunks,
        tokenizer=_vocabulary(args),
        device=args.device,
        num_threads=min(args.num_threads, os.cpu_count() or 1),
    )
    check_stated(args, model, str(path))
    return model


def _vocabulary(args: argparse.Namespace) -> "Tokenizer | None":
    """What --bpe-model and --tokens name; None if neither is given."""
    from snowmelt.text.tokenizer import load_tokenizer, load_tokens, vocabulary_hash

    if args.tokens is None:
        return None if args.bpe_model is None else load_tokenizer(args.bpe_model)
    if args.bpe_model is None:
        kinds = (args.tokens.parent / name for name in ("tokenizer.yaml", "bpe.model"))
        is_alone = args.tokens.is_file() and not any(path.exists() for path in kinds)
        return (load_tokens if is_alone else load_tokenizer)(args.tokens)
    by_pieces, by_tokens = load_tokenizer(args.bpe_model), load_tokens(args.tokens)
    if vocabulary_hash(by_pieces) != vocabulary_hash(by_tokens):
        raise ConfigError(
            f"{args.bpe_model} ({by_pieces.vocab_size} tokens) and {args.tokens} "
            f"({by_tokens.vocab_size}) are different vocabularies",
            "take both from the same folder",
        )
    return by_pieces


def _single(values: Sequence[_Value], option: str) -> _Value:
    if len(values) > 1:
        listed = ",".join(map(str, values))
        raise ConfigError(f"{option} {listed}: this command takes one", f"{option} {values[0]}")
    return values[0]
