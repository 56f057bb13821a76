"""What do decode and streaming-decode have in common? Test sets in, a line of result each out.

Names and meanings of the options are the original's (icefall's decode.py and streaming_decode.py).
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from snowmelt.cli.recognition_options import (
    FastBeamDefaults,
    LoadedSearch,
    add_model_options,
    add_search_options,
    load,
    load_search,
    search_options,
    weights_choice,
)

if TYPE_CHECKING:
    from snowmelt.checkpoint.experiment import ExperimentConfig
    from snowmelt.evaluate.report import Score
    from snowmelt.evaluate.utterances import Hypothesis, Utterance
    from snowmelt.runtime.backend import SpeechModel
    from snowmelt.runtime.load import WeightsChoice
    from snowmelt.search.methods import SearchOptions

__all__ = ["add_scoring_options", "print_scores"]


_Recognise = Callable[["SpeechModel", LoadedSearch, "Sequence[Utterance]"], "list[Hypothesis]"]


def add_scoring_options(parser: argparse.ArgumentParser, defaults: FastBeamDefaults) -> None:
    """Which experiment is tested on what, and how it recognises."""
    _add_corpus_options(parser)
    add_model_options(parser)
    add_search_options(parser, defaults)
    parser.epilog = (
        "--epoch, --avg and --decoding-method take lists, as in --epoch 28,29,30 --avg 1,5,9: all "
        "combinations are scored, and a table of them ends the output."
    )


def print_scores(args: argparse.Namespace, recognise: _Recognise, *, is_streaming: bool) -> int:
    """Score the test sets; one line of result a set on standard output, of several runs a table.

    Args:
        args: values of `add_scoring_options`.
        recognise: model, search and utterances in, one row each out, sorted by id.
        is_streaming: whether it recognises in real chunks, for the names of the files.
    """
    from snowmelt.checkpoint.experiment import load_experiment

    # All that can be wrong with the options is found before hours go into the first run.
    config, tokenizer = load_experiment(args.exp_dir)
    runs = [
        _Run(own, weights_choice(own).resolved(args.exp_dir), search_options(own))
        for own in _combinations(args)
    ]
    for run in runs:
        _require_checkpoints(args.exp_dir, run.weights)
    searches = [load_search(args, run.search, tokenizer) for run in runs]
    table: list[tuple[_Run, list[Score]]] = []
    model, loaded = None, None
    for run, search in zip(runs, searches, strict=True):
        if loaded != run.weights:
            model = None  # the memory of one model is enough
            model, loaded = load(args.exp_dir, run.weights, run.args), run.weights
        assert model is not None
        scores = []
        for score in _scored(run, model, search, recognise, config, is_streaming=is_streaming):
            print(score, flush=True)
            scores.append(score)
        table.append((run, scores))
    if len(table) > 1:
        print(_table(table), flush=True)
    return 0


class _Run(NamedTuple):
    """One combination of the lists: options with one value each, and what they mean."""

    args: argparse.Namespace
    weights: "WeightsChoice"
    search: "SearchOptions"


def _combinations(args: argparse.Namespace) -> list[argparse.Namespace]:
    """One of each list; the methods change fastest, so that a model is loaded once for all."""
    lists = [
        [(value,) for value in values] if values else [None] for values in (args.epoch, args.avg)
    ]
    return [
        argparse.Namespace(
            **{**vars(args), "epoch": epoch, "avg": avg, "decoding_method": (method,)}
        )
        for epoch in lists[0]
        for avg in lists[1]
        for method in args.decoding_method or ("greedy_search",)
    ]


def _require_checkpoints(exp_dir: Path, weights: "WeightsChoice") -> None:
    from snowmelt.checkpoint.average import find_checkpoints

    assert weights.avg is not None, weights
    find_checkpoints(
        exp_dir,
        epoch=weights.epoch,
        iteration=weights.iteration,
        avg=weights.avg,
        use_averaged_model=weights.use_averaged_model,
    )


def _scored(
    run: _Run,
    model: "SpeechModel",
    search: LoadedSearch,
    recognise: _Recognise,
    config: "ExperimentConfig",
    *,
    is_streaming: bool,
) -> "Iterator[Score]":
    from snowmelt.evaluate.report import DecodingSettings
    from snowmelt.evaluate.score import score_splits

    args = run.args
    return score_splits(
        lambda utterances: recognise(model, search, utterances),
        DecodingSettings(
            weights=run.weights,
            decode_chunk_len=model.backend.decode_chunk_len,
            context_size=model.backend.scorer.context_size,
            search=run.search,
            hotwords="" if args.hotwords_file is None else args.hotwords_file.stem,
            hotwords_score=args.hotwords_score,
            is_streaming=is_streaming,
            encoder=config.model.encoder,
            head=model.head,
        ),
        weights=model.weights,
        exp_dir=args.exp_dir,
        # Words of one corpus are not found with the decoder of another.
        corpus=args.corpus or config.data.part_of_head(args.head).corpus,
        data_dir=args.data_dir,
        manifest_dir=args.manifest_dir,
        splits=args.splits,
    )


def _table(rows: "Sequence[tuple[_Run, list[Score]]]") -> str:
    """Word error rates of all runs, a line each, the columns aligned."""
    names = [score.test_set for score in rows[0][1]]
    weights_name = "iter" if rows[0][0].weights.iteration else "epoch"
    lines = [[weights_name, "avg", "method", *names]]
    for run, scores in rows:
        weights = run.weights
        lines.append(
            [
                str(weights.iteration or weights.epoch),
                str(weights.avg),
                run.search.decoding_method,
                *(f"{score.stats.wer:.2f}" for score in scores),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _add_corpus_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("test sets")
    group.add_argument(
        "--exp-dir", type=Path, required=True, metavar="DIR", help="folder of the experiment"
    )
    group.add_argument("--corpus", metavar="NAME", help="(default: the one trained on)")
    group.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="prepared corpora (default: data)"
    )
    group.add_argument(
        "--manifest-dir",
        type=Path,
        default=Path("data/fbank"),
        metavar="DIR",
        help="manifests of corpora that are prepared elsewhere (default: data/fbank)",
    )
    group.add_argument(
        "--splits",
        nargs="+",
        choices=("test", "dev", "train"),
        default=["test", "dev"],
        metavar="SPLIT",
        help="test, dev, train (default: test dev)",
    )
