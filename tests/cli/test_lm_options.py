"""Which files do the options of language models name?"""

import argparse
from pathlib import Path

import numpy as np
import pytest

from snowmelt.cli.lm_options import load_lms
from snowmelt.cli.recognition_options import add_search_options, search_options
from snowmelt.core.errors import ConfigError
from snowmelt.search.methods import LanguageModels
from snowmelt.text.arpa import write_arpa
from snowmelt.text.grammar import grammar_from_arpa
from snowmelt.text.kneser_ney import estimate_kneser_ney
from snowmelt.text.symbols import SymbolTable
from snowmelt.text.tokenizer import build_chars

_TOKENIZER = build_chars(["AB"])
_METHOD = "modified_beam_search_"


def lms_of(method: str, *arguments: str) -> LanguageModels:
    parser = argparse.ArgumentParser()
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
        lms_of("lm_rescore", "--lm-type", "rnn")
    assert "'rnn' is no type of language model that can be read" in capsys.readouterr().err
