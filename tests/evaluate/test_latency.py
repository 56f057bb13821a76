"""Figures of latency, worked out by hand."""

import pytest

from snowmelt.data.alignment import TimedWord
from snowmelt.evaluate.latency import Spread, emission_delays, latency_text, measure
from snowmelt.evaluate.partials import PartialLog, Shown, Update
from snowmelt.evaluate.utterances import Utterance


def _utterance(utterance_id, *timed, words=None):
    timed_words = tuple(TimedWord(*word) for word in timed)
    said = [word.word for word in timed_words] if words is None else words
    return Utterance(utterance_id, said, 2.0, lambda: None, timed_words)


def _shown(heard_s, *updates):
    return Shown([Update(*update) for update in updates], heard_s, 1)


def _log(**shown):
    log = PartialLog()
    log.chunk_s, log.look_ahead_s, log.shown = 0.32, 0.0775, shown
    return log


ONE_TWO = (("ONE", 0.1, 0.4), ("TWO", 0.6, 1.0))


def test_only_words_that_were_recognised_are_counted():
    utterance = _utterance("u", *ONE_TWO, ("THREE", 1.2, 1.5))
    shown = _shown(2.4, (0.7, "ONE"), (1.3, "ONE FREE"), (1.6, "ONE THREE"))
    assert emission_delays(utterance, shown) == pytest.approx([0.3, 0.1])
    inserted = _shown(2.4, (0.7, "OH ONE"), (1.0, "OH ONE TWO"))
    assert emission_delays(utterance, inserted) == pytest.approx([0.3, 0.0])


def test_all_figures():
    utterances = [_utterance("a", *ONE_TWO), _utterance("b", *ONE_TWO)]
    log = _log(
        a=_shown(2.0, (0.7, "ONE"), (1.0, "WON"), (1.3, "ONE TWO")),
        b=_shown(3.0, (0.4, "ONE"), (1.1, "ONE TWO")),
    )
    latency = measure(log, utterances, elapsed_s=1.0)
    assert latency.emission_delay_s is not None
    # ONE 0.9 (it had gone) and 0.0, TWO 0.3 and 0.1.
    assert latency.emission_delay_s == pytest.approx(Spread(4, 0.325, 0.2, 0.72))
    assert latency.first_partial_s == pytest.approx(Spread(2, 0.55, 0.55, 0.67))
    assert latency.first_partial_after_onset_s == pytest.approx(Spread(2, 0.45, 0.45, 0.57))
    assert latency.complete_s == pytest.approx(Spread(2, 0.2, 0.2, 0.28))
    assert latency.final_s == pytest.approx(Spread(2, 1.5, 1.5, 1.9))
    assert (latency.num_updates, latency.num_revised) == (5, 2)
    assert latency.revised == 0.4
    assert latency.rtf == 0.25
    assert (latency.chunk_s, latency.look_ahead_s) == (0.32, 0.0775)


def test_a_longer_word_in_the_place_of_its_beginning_is_no_revision():
    log = _log(a=_shown(2.0, (0.7, "SEVEN"), (1.0, "SEVENTEEN")))
    latency = measure(log, [_utterance("a", words=["SEVENTEEN"])], 1.0)
    assert (latency.num_updates, latency.num_revised) == (2, 0)


def test_without_times_there_are_no_delays():
    # No times, times of other words, nothing recognised.
    utterances = [
        _utterance("a", words=["ONE"]),
        _utterance("b", *ONE_TWO, words=["ONE"]),
        _utterance("c", *ONE_TWO),
    ]
    log = _log(a=_shown(2.0, (0.7, "ONE")), b=_shown(2.0, (0.9, "ONE")), c=_shown(2.5))
    latency = measure(log, utterances, 1.0)
    assert latency.emission_delay_s is None and latency.complete_s is None
    assert latency.first_partial_after_onset_s is None
    assert latency.first_partial_s == pytest.approx(Spread(2, 0.8, 0.8, 0.88))
    assert latency.final_s == pytest.approx(Spread(1, 1.5, 1.5, 1.5))
    text = latency_text("digits-test-greedy_search", latency)
    assert "emission" not in text
    assert "first partial from the start of the sound    0.800   0.800   0.880  2" in text
    assert text.splitlines()[-1] == (
        "[digits-test-greedy_search] chunk 0.32 s, look-ahead 0.0775 s; revised 0.00 % of 2 texts; "
        "real-time factor 0.1667"
    )


def test_nothing_at_all():
    latency = measure(_log(), [], 0.0)
    assert latency.first_partial_s is None and latency.revised == 0.0 and latency.rtf == 0.0
