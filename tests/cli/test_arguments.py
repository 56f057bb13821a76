"""Words that become values, and the one line that says why they do not."""

import argparse

import pytest

from snowmelt.cli.arguments import add_bool, parse_bool, positive_int


@pytest.mark.parametrize(("word", "value"), [("1", True), ("YES", True), ("f", False)])
def test_words_for_yes_and_no(word: str, value: bool) -> None:
    assert parse_bool(word) is value


def test_a_flag_may_stand_alone_or_carry_a_word() -> None:
    parser = argparse.ArgumentParser()
    add_bool(parser, "--use-it", default=False, help="use it")
    values = [parser.parse_args(words).use_it for words in ([], ["--use-it"], ["--use-it", "no"])]
    assert values == [False, True, False]


def test_positive_numbers() -> None:
    assert positive_int("12") == 12
    for word in ("0", "-3", "1.5", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a whole number of at least 1"):
            positive_int(word)
