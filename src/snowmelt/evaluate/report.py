"""Where do the results of a test set go, and what are the files called?

    exp_dir/<decoding method>/             decode
    exp_dir/streaming/<decoding method>/   streaming-decode

Names and contents are the original's, so that its readers work.

Source: icefall, egs/librispeech/ASR: decode.py and streaming_decode.py of
pruned_transducer_stateless7_streaming and of lstm_transducer_stateless{,2} (the suffix and the
directories).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from snowmelt.checkpoint.heads import MAIN_HEAD
from snowmelt.evaluate.latency import Latency
from snowmelt.evaluate.utterances import Hypothesis
from snowmelt.runtime.load import WeightsChoice
from snowmelt.search.methods import LM_METHODS, NGRAM_METHODS, SearchOptions
from snowmelt.text.wer import WerStats, save_results

__all__ = [
    "DecodingSettings",
    "Score",
    "result_dir",
    "result_key",
    "result_suffix",
    "write_report",
]

_logger = logging.getLogger(__name__)

_DEFAULTS: Final = SearchOptions()


@dataclass(frozen=True)
class DecodingSettings:
    """What a result depends on besides the test set; named in the files.

    Attributes:
        weights: which checkpoints, every number filled in.
        decode_chunk_len: feature frames of 10 ms.
        context_size: tokens the prediction network sees.
        search: the decoding method and its options.
        hotwords: name of the phrases that were listened for; empty if there were none.
        hotwords_score: bonus of each of their tokens.
        is_streaming: decoded in real chunks, not simulated.
        encoder: the model family.
        head: whose decoder and joiner, of a training on several corpora.
    """

    weights: WeightsChoice
    decode_chunk_len: int
    context_size: int
    search: SearchOptions = field(default_factory=SearchOptions)
    hotwords: str = ""
    hotwords_score: float = 0.0
    is_streaming: bool = False
    encoder: Literal["zipformer", "lstm"] = "zipformer"
    head: str = MAIN_HEAD


@dataclass(frozen=True)
class Score:
    """Word errors of a test set; as text, the original's line `[test-greedy_search] %WER 3.17%...`.

    Attributes:
        test_set: its name.
        key: see `result_key`.
        stats: the errors.
        latency: how late the words came; None if that was not measured.
    """

    test_set: str
    key: str
    stats: WerStats
    latency: Latency | None = None

    def __str__(self) -> str:
        return f"[{self.test_set}-{self.key}] {self.stats}"


def result_dir(exp_dir: Path, settings: DecodingSettings) -> Path:
    """Folder of the result files."""
    parent = exp_dir / "streaming" if settings.is_streaming else exp_dir
    return parent / settings.search.decoding_method


def result_suffix(settings: DecodingSettings) -> str:
    """The part of a result file's name that tells the settings.

    The chunk length is named where it changes the words: not for an LSTM, which is causal. What is
    not in the original's names is added where it differs from the default, so that no result hides
    another: a head, hotwords, a blank penalty, a temperature, the compatible search, and options
    that the original's streaming names leave out.
    """
    weights = settings.weights
    number = f"iter-{weights.iteration}" if weights.iteration > 0 else f"epoch-{weights.epoch}"
    suffix = f"{number}-avg-{weights.avg}"
    if settings.encoder == "zipformer":
        suffix += f"-streaming-chunk-size-{settings.decode_chunk_len}"
    suffix += _search_suffix(settings)
    search = settings.search
    if search.blank_penalty:
        suffix += f"-blank-penalty-{search.blank_penalty}"
    if search.temperature != 1.0:
        suffix += f"-temperature-{search.temperature}"
    if settings.hotwords:
        suffix += f"-hotwords-{settings.hotwords}-score-{settings.hotwords_score}"
    if search.icefall_compat:
        suffix += "-icefall-compat"
    if settings.head != MAIN_HEAD:
        suffix += f"-head-{settings.head}"
    return suffix + ("-use-averaged-model" if weights.use_averaged_model else "")


def result_key(settings: DecodingSettings) -> str:
    """What the original calls the results in its logs and in wer-summary."""
    search = settings.search
    method = search.decoding_method
    if "beam_search" not in method:
        return method
    if "fast_beam_search" in method:
        key = (
            f"beam_{search.beam}_max_contexts_{search.max_contexts}_max_states_{search.max_states}"
        )
        if "nbest" in method:
            key += f"_num_paths_{search.num_paths}_nbest_scale_{search.nbest_scale}"
        return key + (f"_ngram_lm_scale_{search.ngram_lm_scale}" if "LG" in method else "")
    is_active_paths = settings.is_streaming and settings.encoder == "zipformer"
    name = "num_active_paths" if is_active_paths else "beam_size"
    return f"{name}_{search.beam_size}"


def write_report(
    rows: Sequence[Hypothesis], test_set: str, settings: DecodingSettings, exp_dir: Path
) -> Score:
    """Write recogs-, errs- and wer-summary- files of a test set.

    Raises:
        UserError: a file cannot be written.
    """
    folder, suffix = result_dir(exp_dir, settings), result_suffix(settings)
    key = result_key(settings)
    stats = save_results({key: [row.row for row in rows]}, test_set, suffix, folder)[key]
    _logger.info("Wrote detailed error stats to %s", folder / f"errs-{test_set}-{suffix}.txt")
    return Score(test_set, key, stats)


def _search_suffix(settings: DecodingSettings) -> str:
    """The method's part; the original's streaming Zipformer names only fast_beam_search's."""
    search = settings.search
    method = search.decoding_method
    leaves_out = settings.is_streaming and settings.encoder == "zipformer"
    suffix = ""
    if "fast_beam_search" in method:
        suffix += (
            f"-beam-{search.beam}-max-contexts-{search.max_contexts}-max-states-{search.max_states}"
        )
        if "nbest" in method:
            suffix += f"-nbest-scale-{search.nbest_scale}-num-paths-{search.num_paths}"
        if "LG" in method:
            suffix += f"-ngram-lm-scale-{search.ngram_lm_scale}"
        return suffix
    if "beam_search" in method:
        if not leaves_out or search.beam_size != _DEFAULTS.beam_size:
            suffix += f"-{method}-beam-size-{search.beam_size}"
        if method == "beam_search" and search.max_sym_per_frame is not None:
            suffix += f"-max-sym-per-frame-{search.max_sym_per_frame}"
        return suffix + _lm_suffix(settings)
    max_sym = search.max_sym_per_frame or 1
    if not leaves_out:
        suffix += f"-context-{settings.context_size}"
    if not leaves_out or max_sym != 1:
        suffix += f"-max-sym-per-frame-{max_sym}"
    return suffix


def _lm_suffix(settings: DecodingSettings) -> str:
    """The language models' part; the original names them only with --use-shallow-fusion."""
    search = settings.search
    method, lm_type = search.decoding_method, search.lm_type
    if settings.encoder == "lstm" and lm_type == "rnn":
        lm_type = "rnnlm"  # as that recipe calls it
    suffix = f"-{lm_type}-lm-scale-{search.lm_scale}" if method in LM_METHODS else ""
    if "LODR" in method:
        suffix += f"-LODR-{search.tokens_ngram}gram-scale-{search.ngram_lm_scale}"
    elif method in NGRAM_METHODS:
        suffix += f"-{search.tokens_ngram}gram-ngram-lm-scale-{search.ngram_lm_scale}"
    return suffix
