"""Result files have the original's names and places."""

import pytest

from snowmelt.evaluate.report import (
    DecodingSettings,
    result_dir,
    result_key,
    result_suffix,
    write_report,
)
from snowmelt.runtime.load import WeightsChoice
from snowmelt.search.methods import SearchOptions
from tests.evaluate.corpus import hypothesis, utterance

_EPOCHS = WeightsChoice(epoch=30, avg=9)


@pytest.mark.parametrize(
    ("settings", "suffix"),
    [
        (
            DecodingSettings(_EPOCHS, 32, 2),
            "epoch-30-avg-9-streaming-chunk-size-32-context-2-max-sym-per-frame-1"
            "-use-averaged-model",
        ),
        (
            DecodingSettings(
                WeightsChoice(iteration=400, avg=2, use_averaged_model=False),
                64,
                2,
                SearchOptions(max_sym_per_frame=3, blank_penalty=0.5),
            ),
            "iter-400-avg-2-streaming-chunk-size-64-context-2-max-sym-per-frame-3"
            "-blank-penalty-0.5",
        ),
        (
            DecodingSettings(_EPOCHS, 32, 2, is_streaming=True),
            "epoch-30-avg-9-streaming-chunk-size-32-use-averaged-model",
        ),
        (
            DecodingSettings(_EPOCHS, 32, 2, SearchOptions(max_sym_per_frame=2), is_streaming=True),
            "epoch-30-avg-9-streaming-chunk-size-32-max-sym-per-frame-2-use-averaged-model",
        ),
        (
            DecodingSettings(_EPOCHS, 32, 2, encoder="lstm"),
            "epoch-30-avg-9-context-2-max-sym-per-frame-1-use-averaged-model",
        ),
        (
            DecodingSettings(_EPOCHS, 32, 2, encoder="lstm", is_streaming=True),
            "epoch-30-avg-9-context-2-max-sym-per-frame-1-use-averaged-model",
        ),
        (
            DecodingSettings(_EPOCHS, 32, 2, head="giga"),
            "epoch-30-avg-9-streaming-chunk-size-32-context-2-max-sym-per-frame-1-head-giga"
            "-use-averaged-model",
        ),
        (
            DecodingSettings(_EPOCHS, 32, 2, SearchOptions("modified_beam_search")),
            "epoch-30-avg-9-streaming-chunk-size-32-modified_beam_search-beam-size-4"
            "-use-averaged-model",
        ),
        (
            DecodingSettings(
                _EPOCHS,
                32,
                2,
                SearchOptions("modified_beam_search", temperature=2.0, icefall_compat=True),
                hotwords="names",
                hotwords_score=1.5,
                encoder="lstm",
            ),
            "epoch-30-avg-9-modified_beam_search-beam-size-4-temperature-2.0"
            "-hotwords-names-score-1.5-icefall-compat-use-averaged-model",
        ),
        (
            DecodingSettings(_EPOCHS, 32, 2, SearchOptions("beam_search", max_sym_per_frame=2)),
            "epoch-30-avg-9-streaming-chunk-size-32-beam_search-beam-size-4"
            "-max-sym-per-frame-2-use-averaged-model",
        ),
        (
            DecodingSettings(
                _EPOCHS, 32, 2, SearchOptions("modified_beam_search"), is_streaming=True
            ),
            "epoch-30-avg-9-streaming-chunk-size-32-use-averaged-model",
        ),
        (
            DecodingSettings(
                _EPOCHS,
                32,
                2,
                SearchOptions("modified_beam_search", beam_size=8),
                is_streaming=True,
            ),
            "epoch-30-avg-9-streaming-chunk-size-32-modified_beam_search-beam-size-8"
            "-use-averaged-model",
        ),
        (
            DecodingSettings(
                _EPOCHS,
                32,
                2,
                SearchOptions(
                    "modified_beam_search_LODR", lm_type="5gram", lm_scale=0.4, ngram_lm_scale=-0.16
                ),
            ),
            "epoch-30-avg-9-streaming-chunk-size-32-modified_beam_search_LODR-beam-size-4"
            "-5gram-lm-scale-0.4-LODR-2gram-scale--0.16-use-averaged-model",
        ),
        (
            DecodingSettings(_EPOCHS, 32, 2, SearchOptions("modified_beam_search_lm_rescore")),
            "epoch-30-avg-9-streaming-chunk-size-32-modified_beam_search_lm_rescore-beam-size-4"
            "-3gram-lm-scale-0.3-use-averaged-model",
        ),
        (
            DecodingSettings(
                _EPOCHS,
                32,
                2,
                SearchOptions("modified_beam_search_lm_shallow_fusion", lm_type="rnn"),
                encoder="lstm",
            ),
            "epoch-30-avg-9-modified_beam_search_lm_shallow_fusion-beam-size-4"
            "-rnnlm-lm-scale-0.3-use-averaged-model",
        ),
        (
            DecodingSettings(_EPOCHS, 32, 2, SearchOptions("modified_beam_search_ngram_rescoring")),
            "epoch-30-avg-9-streaming-chunk-size-32-modified_beam_search_ngram_rescoring"
            "-beam-size-4-2gram-ngram-lm-scale-0.01-use-averaged-model",
        ),
    ],
)
def test_suffix(settings, suffix):
    assert result_suffix(settings) == suffix


def test_files_and_line(tmp_path):
    rows = [hypothesis(utterance("u1", "A B"), "A C"), hypothesis(utterance("u2", "D"), "D")]
    settings = DecodingSettings(_EPOCHS, 32, 2)
    score = write_report(rows, "test", settings, tmp_path)
    assert str(score) == "[test-greedy_search] %WER 33.33% [1 / 3, 0 ins, 0 del, 1 sub ]"
    folder, suffix = tmp_path / "greedy_search", result_suffix(settings)
    assert result_dir(tmp_path, settings) == folder
    assert sorted(path.name for path in folder.iterdir()) == [
        f"errs-test-{suffix}.txt",
        f"recogs-test-{suffix}.txt",
        f"wer-summary-test-{suffix}.txt",
    ]
    summary = (folder / f"wer-summary-test-{suffix}.txt").read_text()
    assert summary == "settings\tWER\ngreedy_search\t33.33\n"
    recogs = (folder / f"recogs-test-{suffix}.txt").read_text().splitlines()
    assert recogs[:2] == ["u1:\tref=['A', 'B']", "u1:\thyp=['A', 'C']"]


def test_streaming_results_have_their_own_folder(tmp_path):
    settings = DecodingSettings(_EPOCHS, 32, 2, is_streaming=True)
    assert result_dir(tmp_path, settings) == tmp_path / "streaming" / "greedy_search"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (DecodingSettings(_EPOCHS, 32, 2), "greedy_search"),
        (DecodingSettings(_EPOCHS, 32, 2, SearchOptions("beam_search")), "beam_size_4"),
        (
            DecodingSettings(
                _EPOCHS, 32, 2, SearchOptions("modified_beam_search", beam_size=8), encoder="lstm"
            ),
            "beam_size_8",
        ),
        (
            DecodingSettings(
                _EPOCHS, 32, 2, SearchOptions("modified_beam_search"), is_streaming=True
            ),
            "num_active_paths_4",
        ),
    ],
)
def test_key(settings, key):
    assert result_key(settings) == key
