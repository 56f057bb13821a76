"""Phrases typed as plain words become tokens of the model, or a message that names them."""

import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.search.hotwords import Hotword, hotword_graph, parse_hotwords
from snowmelt.text.tokenizer import build_chars, build_words

_WORDS = build_words(["SNOW MELT MELTS"])  # ids 3 MELT, 4 MELTS, 5 SNOW


def _parse(text: str, tokenizer=_WORDS) -> tuple[Hotword, ...]:
    return parse_hotwords(text, tokenizer, score=1.5, name="phrases.txt")


def test_phrases_and_scores():
    assert _parse("SNOW MELT\n\n  MELTS   SNOW :2.5 \nMELT:3\n") == (
        Hotword("SNOW MELT", (5, 3), 1.5),
        Hotword("MELTS SNOW", (4, 5), 2.5),
        Hotword("MELT", (3,), 3.0),
    )


def test_letters_are_those_of_the_vocabulary():
    assert _parse("Snow")[0].text == "SNOW"
    assert _parse("Snow", build_chars(["snow"]))[0].text == "snow"
    assert _parse("Snow", build_chars(["Snow snow"]))[0].text == "Snow"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "SNOW\nRAIN MELTS",
            "phrases.txt line 2: the model's vocabulary cannot spell 'RAIN MELTS'",
        ),
        ("SNOW :warm", "phrases.txt line 1 has the score 'warm'"),
        ("SNOW :", "phrases.txt line 1 has the score ''"),
        ("SNOW :inf", "phrases.txt line 1 has the score 'inf'"),
        (":2.0 SNOW", "phrases.txt line 1 is ':2.0 SNOW'"),
        (":2.0", "phrases.txt line 1 is ':2.0'"),
        ("\n \n", "phrases.txt holds no phrase"),
    ],
)
def test_nothing_is_passed_over_silently(text, message):
    with pytest.raises(ConfigError) as error:
        _parse(text)
    assert message in str(error.value)


def test_the_graph_follows_the_rule():
    hotwords = _parse("SNOW\nSNOW MELT")
    for compat, total in ((False, 3.0), (True, 1.5)):
        graph = hotword_graph(hotwords, icefall_compat=compat)
        score, state = graph.step(0, 5)
        more, state = graph.step(state, 3)
        assert score + more + graph.final_score(state) == total
