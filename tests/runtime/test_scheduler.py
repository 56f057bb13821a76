"""Sources side by side: packing, joining and leaving, failures that stay alone."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from snowmelt.core.errors import AudioError
from snowmelt.runtime.recognizer import OnlineRecognizer
from snowmelt.runtime.scheduler import AudioSource, decode_ready, recognize
from tests.runtime.fakes import HIGH, LOW, burst, fake_model, silence


def _source(name: str, *parts, rate: int = 16000, block: int = 3000) -> AudioSource:
    sound = np.concatenate(parts)
    blocks = (sound[i : i + block] for i in range(0, len(sound), block))
    return AudioSource(name, lambda: (rate, blocks))


def _sources() -> list[AudioSource]:
    return [
        _source("long", silence(1.0), burst(LOW), silence(1.0), burst(HIGH)),
        _source("short", burst(HIGH)),
        _source("eight", burst(LOW, rate=8000), silence(0.3, 8000), rate=8000),
        _source("empty of words", silence(0.7)),
        _source("last", burst(LOW), burst(HIGH), burst(LOW), silence(0.2)),
    ]


_WORDS = {0: "LOW HIGH", 1: "HIGH", 2: "LOW", 3: "", 4: "LOW HIGH LOW"}


@pytest.mark.parametrize("max_streams", [1, 2, 3, 50])
def test_words_do_not_depend_on_the_number_of_streams(max_streams):
    model = fake_model()
    outcomes = list(recognize(OnlineRecognizer(model), _sources(), max_streams=max_streams))
    assert {o.index: o.result.text for o in outcomes} == _WORDS
    assert all(o.result.is_final and o.error is None for o in outcomes)
    assert max(model.backend.batch_sizes) == min(max_streams, 5)


def test_streams_join_when_others_have_left():
    model = fake_model()
    outcomes = list(recognize(OnlineRecognizer(model), _sources(), max_streams=2))
    # The first one is the longest: the others pass it by, one after the other.
    assert outcomes[0].name == "short"
    assert model.backend.batch_sizes.count(2) > model.backend.batch_sizes.count(1)


def test_duration_is_that_of_the_sound_without_its_tail():
    outcomes = recognize(OnlineRecognizer(fake_model()), _sources(), max_streams=1)
    durations = [outcome.duration_s for outcome in outcomes]
    assert durations == pytest.approx([2.2, 0.1, 0.4, 0.7, 0.5], abs=1e-3)


def test_sources_are_opened_when_their_turn_comes_and_closed_when_it_ends():
    opened: list[str] = []
    closed: list[str] = []

    def source(name: str) -> AudioSource:
        def blocks() -> Iterator[np.ndarray]:
            try:
                yield burst(LOW)
            finally:
                closed.append(name)

        def open_source():
            opened.append(name)
            return 16000, blocks()

        return AudioSource(name, open_source)

    outcomes = recognize(OnlineRecognizer(fake_model()), map(source, "abc"), max_streams=1)
    assert next(outcomes).name == "a"
    assert (opened, closed) == (["a"], ["a"])
    outcomes.close()
    assert opened == ["a"]


@pytest.mark.parametrize("max_streams", [1, 3])
def test_a_source_that_fails_ends_alone(max_streams):
    def fails_at_once():
        raise AudioError("no such file")

    def fails_midway() -> Iterator[np.ndarray]:
        yield np.concatenate([burst(HIGH), silence(2.0)])
        raise AudioError("truncated")

    bad_samples = np.array([0.0, np.nan], np.float32)
    sources = [
        _sources()[0],
        AudioSource("missing", fails_at_once),
        AudioSource("truncated", lambda: (16000, fails_midway())),
        AudioSource("nan", lambda: (16000, iter([burst(LOW), bad_samples]))),
        _sources()[4],
    ]
    outcomes = {
        o.name: o
        for o in recognize(OnlineRecognizer(fake_model()), sources, max_streams=max_streams)
    }
    assert str(outcomes["missing"].error) == "no such file"
    assert str(outcomes["truncated"].error) == "truncated"
    assert "NaN" in str(outcomes["nan"].error)
    assert all(outcomes[name].result is None for name in ("missing", "truncated", "nan"))
    assert outcomes["long"].result.text == _WORDS[0]
    assert outcomes["last"].result.text == _WORDS[4]


def test_partial_results_grow_to_the_final_one():
    partials: list[str] = []
    outcomes = list(
        recognize(
            OnlineRecognizer(fake_model()),
            _sources()[:1],
            max_streams=1,
            on_partial=lambda source, result: partials.append(result.text),
        )
    )
    assert partials[0] == "" and partials[-1] == outcomes[0].result.text == "LOW HIGH"
    assert all(b.startswith(a) for a, b in pairwise(partials))


def test_decode_ready_packs_only_what_is_ready():
    model = fake_model()
    recognizer = OnlineRecognizer(model)
    streams = [recognizer.create_stream() for _ in range(5)]
    for stream in streams[:4]:
        stream.accept_waveform(16000, silence(0.5))
    assert decode_ready(recognizer, streams, max_batch_size=3) == streams[:4]
    assert model.backend.batch_sizes == [3, 1]
    assert decode_ready(recognizer, streams, max_batch_size=3) == []


def test_no_sources_no_outcomes():
    assert list(recognize(OnlineRecognizer(fake_model()), [], max_streams=4)) == []
