"""What do decode and streaming-decode have in common? Test sets in, a line of result each out.

Names and meanings of the options are the original's (icefall's decode.py and streaming_decode.py).
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from snowmelt.cli.arguments import positive_int
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
from snowmelt.cli.table import aligned

if TYPE_CHECKING:
    from snowmelt.checkpoint.experiment import ExperimentConfig
    from snowmelt.evaluate.partials import PartialLog
    from snowmelt.evaluate.report import Score
    from snowmelt.evaluate.utterances import Hypothesis, Utterance
    from snowmelt.runtime.backend import SpeechModel
    from snowmelt.runtime.load import WeightsChoice
    from snowmelt.search.methods import SearchOptions

__all__ = ["Recognise", "Run", "add_scoring_options", "planned_runs", "print_scores", "scored_runs"]


Recognise = Callable[["SpeechModel", LoadedSearch, "Sequence[Utterance]"], "list[Hypothesis]"]


def add_scoring_options(parser: argparse.ArgumentParser, defaults: FastBeamDefaults) -> None:
    """Which experiment is tested on what, and how it recognises."""
    _add_corpus_options(parser)
    add_model_options(parser)
    add_search_options(parser, defaults)
    parser.add_argument(
        "--num-nbest",
        type=positive_int,
        default=1,
        metavar="N",
        help="most hypotheses of an utterance in results-*.json, of searches that know several "
        "(default: 1)",
    )
    parser.epilog = (
        "--epoch, --avg, --decoding-method, --lm-scale and --ngram-lm-scale take lists, as in "
        "--epoch 28,29,30 --avg 1,5,9: all combinations are scored, and a table of them ends the "
        "output."
    )


def print_scores(
    args: argparse.Namespace,
    recognise: Recognise,
    *,
    is_streaming: bool,
    partials: "PartialLog | None" = None,
) -> int:
    """Score the test sets; one line of result a set on standard output, of several runs a table.

    Args:
        args: values of `add_scoring_options`.
        recognise: model, search and utterances in, one row each out, sorted by id.
        is_streaming: whether it recognises in real chunks, for the names of the files.
        partials: what `recognise` fills while it works: the latency is printed and kept too.
    """
    from snowmelt.evaluate.latency import latency_text

    runs = planned_runs(args)
    table: list[tuple[Run, list[Score]]] = []
    for run, scores in scored_runs(runs, recognise, is_streaming=is_streaming, partials=partials):
        known = []
        for score in scores:
            print(score, flush=True)
            if score.latency is not None:
                name = f"{score.test_set}-{score.key}"
                print(latency_text(name, score.latency), flush=True)
            known.append(score)
        table.append((run, known))
    if len(table) > 1:
        print(_table(table), flush=True)
    return 0


class Run(NamedTuple):
    """One combination of the lists: options with one value each, and what they mean."""

    args: argparse.Namespace
    config: "ExperimentConfig"
    weights: "WeightsChoice"
    search: "SearchOptions"
    loaded_search: LoadedSearch


def planned_runs(args: argparse.Namespace) -> list[Run]:
    """All combinations of the lists.

    Raises:
        UserError: something is wrong with one of them: it is found before hours go into the first.
    """
    from snowmelt.checkpoint.experiment import load_experiment

    config, tokenizer = load_experiment(args.exp_dir)
    choices = [
        (own, weights_choice(own).resolved(args.exp_dir), search_options(own))
        for own in _combinations(args)
    ]
    for _, weights, _ in choices:
        _checkpoints(args.exp_dir, weights)
    lms: dict[Any, Any] = {}
    return [
        Run(own, config, weights, search, load_search(args, search, tokenizer, lms))
        for own, weights, search in choices
    ]


def scored_runs(
    runs: Sequence[Run],
    recognise: Recognise,
    *,
    is_streaming: bool,
    partials: "PartialLog | None" = None,
    reuse: bool = False,
) -> "Iterator[tuple[Run, Iterator[Score]]]":
    """Score runs one after the other.

    Args:
        runs: of `planned_runs`.
        recognise, is_streaming, partials: as in `print_scores`.
        reuse: take what was kept of an earlier measurement of the latency, where it fits.

    Yields:
        each run with its scores, which must be taken before the next run.
    """
    rankings = _Rankings(recognise)
    model, loaded = None, None
    for run in runs:
        if loaded != run.weights:
            model = None  # the memory of one model is enough
            model, loaded = load(run.args.exp_dir, run.weights, run.args), run.weights
        assert model is not None
        # Partial results cannot be had from an earlier recognition.
        hypotheses = (
            rankings.of(run, model)
            if partials is None
            else partial(recognise, model, run.loaded_search)
        )
        yield (
            run,
            _scored(
                run, model, hypotheses, is_streaming=is_streaming, partials=partials, reuse=reuse
            ),
        )


class _Rankings:
    """Recognises a test set once for all scales of a method that ranks at the end."""

    def __init__(self, recognise: Recognise) -> None:
        self._recognise = recognise
        self._of: tuple[Any, ...] = ()
        self._rows: dict[tuple[str, ...], list[Hypothesis]] = {}

    def of(
        self, run: Run, model: "SpeechModel"
    ) -> "Callable[[Sequence[Utterance]], list[Hypothesis]]":
        """What finds the hypotheses of a run."""
        search = run.loaded_search
        if not search.is_rescored:
            return partial(self._recognise, model, search)

        from snowmelt.evaluate.rescored import rescored

        decoded = (run.weights, replace(run.search, lm_scale=0.0, ngram_lm_scale=0.0))
        if decoded != self._of:
            self._of, self._rows = decoded, {}

        def ranked(utterances: "Sequence[Utterance]") -> "list[Hypothesis]":
            test_set = tuple(utterance.utterance_id for utterance in utterances)
            if test_set not in self._rows:
                self._rows[test_set] = self._recognise(model, search, utterances)
            return rescored(
                self._rows[test_set],
                lm_scale=run.search.lm_scale,
                ngram_lm_scale=run.search.ngram_lm_scale,
                num_nbest=run.args.num_nbest,
            )

        return ranked


def _combinations(args: argparse.Namespace) -> list[argparse.Namespace]:
    """One of each list; the methods change fastest, so that a model is loaded once for all."""
    lists = [
        [(value,) for value in values] if values else [None] for values in (args.epoch, args.avg)
    ]
    return [
        argparse.Namespace(
            **{
                **vars(args),
                "epoch": epoch,
                "avg": avg,
                "decoding_method": (method,),
                "lm_scale": (lm_scale,),
                "ngram_lm_scale": (ngram_lm_scale,),
            }
        )
        for epoch in lists[0]
        for avg in lists[1]
        for method in args.decoding_method or ("greedy_search",)
        for lm_scale, ngram_lm_scale in _scales(args, method)
    ]


def _scales(args: argparse.Namespace, method: str) -> list[tuple[float, float]]:
    """Scales of the language model and of the n-gram; those without a use are not varied."""
    from snowmelt.search.methods import LG_METHODS, LM_METHODS, NGRAM_METHODS

    lm_scales = args.lm_scale if method in LM_METHODS else args.lm_scale[:1]
    uses_ngram = method in (*NGRAM_METHODS, *LG_METHODS)
    ngram_scales = args.ngram_lm_scale if uses_ngram else args.ngram_lm_scale[:1]
    return [(lm_scale, ngram_scale) for lm_scale in lm_scales for ngram_scale in ngram_scales]


def _checkpoints(exp_dir: Path, weights: "WeightsChoice") -> tuple[Path, ...]:
    """The files of a choice; all of them exist."""
    from snowmelt.checkpoint.average import find_checkpoints

    assert weights.avg is not None, weights
    return find_checkpoints(
        exp_dir,
        epoch=weights.epoch,
        iteration=weights.iteration,
        avg=weights.avg,
        use_averaged_model=weights.use_averaged_model,
    ).files


def _scored(
    run: Run,
    model: "SpeechModel",
    hypotheses: "Callable[[Sequence[Utterance]], list[Hypothesis]]",
    *,
    is_streaming: bool,
    partials: "PartialLog | None",
    reuse: bool,
) -> "Iterator[Score]":
    from snowmelt.evaluate.report import DecodingSettings
    from snowmelt.evaluate.score import score_splits

    args = run.args
    return score_splits(
        hypotheses,
        DecodingSettings(
            weights=run.weights,
            decode_chunk_len=model.backend.decode_chunk_len,
            context_size=model.backend.scorer.context_size,
            search=run.search,
            hotwords="" if args.hotwords_file is None else args.hotwords_file.stem,
            hotwords_score=args.hotwords_score,
            is_streaming=is_streaming,
            encoder=run.config.model.encoder,
            head=model.head,
        ),
        weights=model.weights,
        exp_dir=args.exp_dir,
        # Words of one corpus are not found with the decoder of another.
        corpus=args.corpus or run.config.data.part_of_head(args.head).corpus,
        data_dir=args.data_dir,
        manifest_dir=args.manifest_dir,
        splits=args.splits,
        about=_about(args, model),
        partials=partials,
        inputs="" if partials is None else _inputs(run, model),
        reuse=reuse,
    )


# What a command knows of itself; all else was chosen by the user.
_NO_OPTIONS: Final = frozenset({"command", "fast_beam_defaults", "knows_reference"})


def _about(args: argparse.Namespace, model: "SpeechModel") -> dict[str, Any]:
    """Weights and options, for the JSON files."""
    from snowmelt.runtime.backends.torch_eager import TorchBackend

    backend = model.backend
    return {
        "weights": model.weights,
        "weights_sha256": backend.weights_sha256() if isinstance(backend, TorchBackend) else None,
        "options": {
            name: value for name, value in sorted(vars(args).items()) if name not in _NO_OPTIONS
        },
    }


# Options that change no result, or that another part of the digest stands for.
_NO_INPUTS: Final = frozenset(
    {
        *("command", "exp_dir", "corpus", "data_dir", "manifest_dir", "splits"),
        *("latency", "force", "output_dir", "num_decode_streams", "num_threads", "device"),
        *("epoch", "iter", "avg", "use_averaged_model", "decode_chunk_len"),
        *("decoding_method", "beam", "fast_beam_defaults", "knows_reference", "num_nbest"),
    }
)


def _inputs(run: Run, model: "SpeechModel") -> str:
    """A number for all that words and their times depend on besides the test set."""
    from snowmelt._version import __version__
    from snowmelt.evaluate.latency_file import digest_of_inputs

    options = {key: value for key, value in vars(run.args).items() if key not in _NO_INPUTS}
    exp_dir = run.args.exp_dir
    paths = [exp_dir / "config.yaml", *_checkpoints(exp_dir, run.weights)]
    paths += [value for value in options.values() if isinstance(value, Path)]
    values = {
        "version": __version__,
        "search": run.search,
        "weights": run.weights,
        "decode_chunk_len": model.backend.decode_chunk_len,
        **{key: value for key, value in options.items() if not isinstance(value, Path)},
    }
    return digest_of_inputs(values, paths)


def _table(rows: "Sequence[tuple[Run, list[Score]]]") -> str:
    """Word error rates of all runs, a line each, the columns aligned."""
    names = [score.test_set for score in rows[0][1]]
    weights_name = "iter" if rows[0][0].weights.iteration else "epoch"
    # Scales are columns where they vary.
    scales = [
        name
        for name in ("lm_scale", "ngram_lm_scale")
        if len({getattr(run.search, name) for run, _ in rows}) > 1
    ]
    lines = [[weights_name, "avg", "method", *scales, *names]]
    for run, scores in rows:
        weights = run.weights
        lines.append(
            [
                str(weights.iteration or weights.epoch),
                str(weights.avg),
                run.search.decoding_method,
                *(f"{getattr(run.search, name):g}" for name in scales),
                *(f"{score.stats.wer:.2f}" for score in scores),
            ]
        )
    return aligned(lines)


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
