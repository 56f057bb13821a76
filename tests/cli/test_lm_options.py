"""Which files do the options of language models name?"""

import argparse
from pathlib import Path

import numpy as np
import pytest

from snowmelt.cli.lm_options import load_lms
from snowmelt.cli.recognition_options import (
    add_model_options,
    add_search_options,
    search_options,
)
from snowmelt.core.errors import ConfigError
from snowmelt.runtime.backends.torch_lm import TorchLm
from snowmelt.search.methods import LanguageModels
from snowmelt.text.arpa import write_arpa
from snowmelt.text.grammar import grammar_from_arpa
from snowmelt.text.kneser_ney import estimate_kneser_ney
from snowmelt.text.symbols import SymbolTable
from snowmelt.text.tokenizer import build_chars
from tests.runtime.tiny_lm import save_tiny_lm

_TOKENIZER = build_chars(["AB"])
_METHOD = "modified_beam_search_"


def lms_of(method: str, *arguments: str) -> LanguageModels:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    add_search_options(parser)
    method = _METHOD + method
    args = parser.parse_args(
        ["--decoding-method", method, "--ngram-lm-scale=-0.1", *map(str, arguments)]
    )
    return load_lms(args, search_options(args), _TOKENIZER)


@pytest.fixture
def lang_dir(tmp_path: Path) -> Path:
    for order in (2, 3):
        model = estimate_kneser_ney(["A B A", "B B A B", "A A A B"], order)
        write_arpa(tmp_path / f"{order}gram.arpa", model)
    return tmp_path


def test_only_the_models_that_are_needed_are_read(lang_dir: Path) -> None:
    lang = ("--lang-dir", str(lang_dir))
    for method, has in (
        ("lm_shallow_fusion", (True, False)),
        ("ngram_rescoring", (False, True)),
        ("LODR", (True, True)),
        ("lm_rescore", (True, False)),
        ("lm_rescore_LODR", (True, True)),
    ):
        assert tuple(lm is not None for lm in lms_of(method, *lang)) == has
    parser = argparse.ArgumentParser()
    add_search_options(parser)
    args = parser.parse_args([])
    assert load_lms(args, search_options(args), _TOKENIZER) == (None, None)


def test_an_fst_is_the_arpa_file_it_was_made_of(lang_dir: Path) -> None:
    arguments = ("--lang-dir", str(lang_dir), "--tokens-ngram", "3")
    (_, from_arpa) = lms_of("ngram_rescoring", *arguments)
    ids = {token: i for i, token in enumerate(_TOKENIZER.id_to_token)}
    model = estimate_kneser_ney(["A B A", "B B A B", "A A A B"], 3)
    table = SymbolTable({**ids, "#0": 77})
    grammar_from_arpa(model, table).write_text(lang_dir / "3gram.fst.txt")
    (_, from_fst) = lms_of("ngram_rescoring", *arguments, "--backoff-id", "77")
    assert from_arpa is not None and from_fst is not None
    token = np.array([ids["A"]])
    rows = [lm.scores(lm.advance([lm.start()], token)) for lm in (from_arpa, from_fst)]
    assert rows[0] == pytest.approx(rows[1], abs=1e-5)
    with pytest.raises(ConfigError, match=r"3gram.fst.txt holds token id 77"):
        lms_of("ngram_rescoring", *arguments)


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="modified_beam_search_lm_rescore needs a language model"):
        lms_of("lm_rescore")
    with pytest.raises(ConfigError, match=r"holds no 5gram.fst.txt and no 5gram.arpa"):
        lms_of("lm_rescore", "--lm-exp-dir", str(tmp_path), "--lm-type", "5gram")


def test_other_types_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lms_of("lm_rescore", "--lm-type", "gru")
    assert "'gru' is no type of language model that can be read" in capsys.readouterr().err


@pytest.mark.parametrize("lm_type", ["rnn", "transformer"])
def test_neural_models_are_read(tmp_path: Path, lm_type: str) -> None:
    save_tiny_lm(tmp_path, lm_type, _TOKENIZER)
    arguments = ("--lm-type", lm_type, "--lm-exp-dir", str(tmp_path))
    for method in ("lm_shallow_fusion", "lm_rescore"):
        (lm, ngram) = lms_of(method, *arguments)
        assert isinstance(lm, TorchLm) and ngram is None
    (chosen, _) = lms_of("lm_rescore", *arguments, "--lm-epoch", "2", "--lm-avg", "2")
    assert chosen is not None
    assert chosen.scores([chosen.start()]) != pytest.approx(lm.scores([lm.start()]))
    with pytest.raises(ConfigError, match=r"no 3gram\.arpa \(hint: of a neural model say which, "):
        lms_of("lm_rescore", "--lm-exp-dir", str(tmp_path))


def test_sizes_of_the_original_are_compared(tmp_path: Path) -> None:
    for lm_type in ("rnn", "transformer"):
        save_tiny_lm(tmp_path / lm_type, lm_type, _TOKENIZER)
    rnn = ("--lm-type", "rnn", "--lm-exp-dir", str(tmp_path / "rnn"))
    right = ("--lm-vocab-size", "6", "--rnn-lm-hidden-dim", "8", "--rnn-lm-tie-weights", "1")
    # Those of the other type are not looked at, nor is what the original needs for its methods.
    lms_of("lm_rescore", *rnn, *right, "--transformer-lm-nhead", "7", "--use-shallow-fusion", "1")
    with pytest.raises(ConfigError, match="has hidden_dim 8, not 2048"):
        lms_of("lm_rescore", *rnn, "--rnn-lm-hidden-dim", "2048")
    transformer = ("--transformer-lm-exp-dir", str(tmp_path / "transformer"))
    lms_of("lm_rescore", "--lm-type", "transformer", *transformer, "--transformer-lm-nhead", "2")
    with pytest.raises(ConfigError, match="modified_beam_search_lm_rescore needs a language model"):
        lms_of("lm_rescore", "--lm-type", "rnn", *transformer)
