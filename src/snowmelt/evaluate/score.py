"""How is a model scored on the test sets of a corpus, from cuts to result files?

Invariant: knows no recognizer; `decode` and `streaming_decode` hand in how utterances become words.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from snowmelt.checkpoint.experiment import load_experiment
from snowmelt.core.errors import DataError
from snowmelt.core.log import setup_logging
from snowmelt.data.corpora import Corpus, open_corpus, selection_of
from snowmelt.evaluate.edges import edge_errors
from snowmelt.evaluate.latency import measure
from snowmelt.evaluate.latency_file import read_latency, write_latency
from snowmelt.evaluate.partials import PartialLog
from snowmelt.evaluate.report import (
    DecodingSettings,
    Score,
    result_dir,
    result_suffix,
    write_report,
)
from snowmelt.evaluate.transcripts import write_transcripts
from snowmelt.evaluate.utterances import Hypothesis, Utterance, from_cuts
from snowmelt.evaluate.word_times import word_times

__all__ = ["score_splits"]

_logger = logging.getLogger(__name__)

# Test sets of any corpus may be called so; "test-clean" tells by itself where it is from.
_COMMON_NAMES: Final = frozenset({"train", "dev", "test"})


def score_splits(
    recognise: Callable[[Sequence[Utterance]], list[Hypothesis]],
    settings: DecodingSettings,
    *,
    weights: str,
    exp_dir: Path,
    corpus: str,
    data_dir: Path,
    manifest_dir: Path,
    splits: Sequence[Literal["train", "dev", "test"]],
    about: Mapping[str, Any],
    partials: PartialLog | None = None,
    inputs: str = "",
    reuse: bool = False,
) -> Iterator[Score]:
    """Score splits of a corpus and write their result files.

    Args:
        recognise: utterances in, what was recognised in each out, sorted by id.
        settings: what the files are named after.
        weights: which files the weights came from, for the log.
        exp_dir: the experiment; result files and the log go below it.
        corpus: name of the corpus.
        data_dir: folder of prepared corpora.
        manifest_dir: folder of the manifests of other corpora.
        splits: which parts, in order; test stands for all test sets of the corpus.
        about: what else the results depend on, kept in the JSON files: values that JSON knows.
        partials: what `recognise` fills while it works: the latency is measured then.
        inputs: with `partials`, of `latency_file.digest_of_inputs`.
        reuse: with `partials`, a test set whose latency was kept is not recognised again.

    Yields:
        the word errors of each test set; as text, the line that the original prints.

    Raises:
        UserError: the corpus is not prepared, or holds no utterance in a split.
    """
    data = load_experiment(exp_dir)[0].data
    source = open_corpus(corpus, data_dir, manifest_dir, selection=selection_of(data, corpus))
    # All test sets are looked up before hours go into the first of them.
    test_sets = [
        (_shown_name(corpus, test_set), _utterances(source, test_set))
        for split in splits
        for test_set in (source.test_sets if split == "test" else (split,))
    ]
    folder, suffix = result_dir(exp_dir, settings), result_suffix(settings)
    setup_logging(folder / f"log-decode-{suffix}-{time.strftime('%Y-%m-%d-%H-%M-%S')}")
    _logger.info("Weights: %s", weights)
    _logger.info("%s", settings)
    for name, utterances in test_sets:
        if partials is not None and reuse:
            kept = read_latency(name, utterances, settings=settings, exp_dir=exp_dir, inputs=inputs)
            if kept is not None:
                _logger.info("%s: measured before", name)
                yield kept
                continue
        start = time.perf_counter()
        rows = recognise(utterances)
        elapsed_s = time.perf_counter() - start
        audio_s = sum(utterance.duration_s for utterance in utterances)
        _logger.info(
            "%s: %d utterances, %.1f s of sound in %.1f s (RTF %.4f)",
            name,
            len(utterances),
            audio_s,
            elapsed_s,
            elapsed_s / audio_s,
        )
        score = write_report(rows, name, settings, exp_dir)
        if partials is not None:
            score = dataclasses.replace(score, latency=measure(partials, utterances, elapsed_s))
            write_latency(
                score, utterances, partials, settings=settings, exp_dir=exp_dir, inputs=inputs
            )
        times = word_times(rows)
        write_transcripts(rows, score, settings, exp_dir, about=about, times=times)
        if times is not None:
            _logger.info("%s: %s", name, times)
        _logger.info("%s", score)
        _logger.info("%s: %s", name, edge_errors(hypothesis.row for hypothesis in rows))
        yield score


def _shown_name(corpus: str, test_set: str) -> str:
    return f"{corpus}-{test_set}" if test_set.lower() in _COMMON_NAMES else test_set


def _utterances(corpus: Corpus, test_set: str) -> list[Utterance]:
    utterances = from_cuts(corpus.cuts(test_set))
    if not utterances:
        raise DataError(f"the {test_set} split of {corpus.name} holds no utterance")
    return utterances
