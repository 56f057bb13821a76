"""Where do the results of a test set go, and what are the files called?

    exp_dir/greedy_search/             decode
    exp_dir/streaming/greedy_search/   streaming-decode

Names and contents are the original's, so that its readers work.

Source: icefall, egs/librispeech/ASR: decode.py and streaming_decode.py of
pruned_transducer_stateless7_streaming and of lstm_transducer_stateless{,2} (the suffix and the
directories).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snowmelt.checkpoint.heads import MAIN_HEAD
from snowmelt.evaluate.utterances import Hypothesis
from snowmelt.runtime.load import WeightsChoice
from snowmelt.text.wer import save_results

__all__ = ["DecodingSettings", "result_dir", "result_suffix", "write_report"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodingSettings:
    """What a result depends on besides the test set; named in the files.

    Attributes:
        weights: which checkpoints, every number filled in.
        decode_chunk_len: feature frames of 10 ms.
        context_size: tokens the prediction network sees.
        decoding_method: "greedy_search".
        max_sym_per_frame: most tokens one encoder frame may emit.
        blank_penalty: subtracted from the logit of blank.
        is_streaming: decoded in real chunks, not simulated.
        encoder: the model family.
        head: whose decoder and joiner, of a training on several corpora.
    """

    weights: WeightsChoice
    decode_chunk_len: int
    context_size: int
    decoding_method: str = "greedy_search"
    max_sym_per_frame: int = 1
    blank_penalty: float = 0.0
    is_streaming: bool = False
    encoder: Literal["zipformer", "lstm"] = "zipformer"
    head: str = MAIN_HEAD


def result_dir(exp_dir: Path, settings: DecodingSettings) -> Path:
    """Folder of the result files."""
    parent = exp_dir / "streaming" if settings.is_streaming else exp_dir
    return parent / settings.decoding_method


def result_suffix(settings: DecodingSettings) -> str:
    """The part of a result file's name that tells the settings.

    The chunk length is named where it changes the words: not for an LSTM, which is causal. A head,
    a blank penalty, and several symbols per frame in streaming, are not in the original's names;
    they are added where they differ from the default, so that no result hides another.
    """
    weights = settings.weights
    number = f"iter-{weights.iteration}" if weights.iteration > 0 else f"epoch-{weights.epoch}"
    suffix = f"{number}-avg-{weights.avg}"
    if settings.encoder == "zipformer":
        suffix += f"-streaming-chunk-size-{settings.decode_chunk_len}"
    names_search = settings.encoder == "lstm" or not settings.is_streaming
    if names_search:
        suffix += f"-context-{settings.context_size}"
    if names_search or settings.max_sym_per_frame != 1:
        suffix += f"-max-sym-per-frame-{settings.max_sym_per_frame}"
    if settings.blank_penalty:
        suffix += f"-blank-penalty-{settings.blank_penalty}"
    if settings.head != MAIN_HEAD:
        suffix += f"-head-{settings.head}"
    return suffix + ("-use-averaged-model" if weights.use_averaged_model else "")


def write_report(
    rows: Sequence[Hypothesis], test_set: str, settings: DecodingSettings, exp_dir: Path
) -> str:
    """Write recogs-, errs- and wer-summary- files of a test set.

    Returns:
        the line that the original logs: `[test-greedy_search] %WER 3.17% [...]`.

    Raises:
        UserError: a file cannot be written.
    """
    folder, suffix = result_dir(exp_dir, settings), result_suffix(settings)
    key = settings.decoding_method
    stats = save_results({key: rows}, test_set, suffix, folder)[key]
    _logger.info("Wrote detailed error stats to %s", folder / f"errs-{test_set}-{suffix}.txt")
    return f"[{test_set}-{key}] {stats}"
