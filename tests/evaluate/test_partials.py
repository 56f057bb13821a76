"""What was shown when: the clock is the sound, and a word stands from its last coming."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.evaluate.partials import PartialLog, Update, standing_since
from snowmelt.evaluate.streaming import streaming_decode
from snowmelt.evaluate.utterances import Utterance
from snowmelt.presets.frames import LSTM_FRONT_END, ZIPFORMER_FRONT_END
from snowmelt.runtime.recognizer import OnlineRecognizer
from tests.evaluate.corpus import tone_utterances
from tests.runtime.fakes import HIGH, LOW, fake_model, silence

FRONT_ENDS = [ZIPFORMER_FRONT_END, LSTM_FRONT_END]


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("chunk_len", [16, 32])
def test_the_clock_is_the_least_sound_that_shows_the_words(chunk_len, front_end):
    recognizer = OnlineRecognizer(fake_model(chunk_len, front_end=front_end))
    (utterance,) = tone_utterances([[LOW, HIGH, LOW, HIGH, LOW]])
    log = PartialLog()
    streaming_decode(recognizer, [utterance], num_decode_streams=1, partials=log)
    # The same sound sample by sample, nearly: blocks of 1 ms.
    stream = recognizer.create_stream()
    heard, shown = 0, []
    for start in range(0, 16 * 1500, 16):
        _, sound = utterance.load()
        stream.accept_waveform(16000, sound[start : start + 16])
        heard += len(sound[start : start + 16])
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
            shown.append((heard / 16000, recognizer.get_result(stream)))
    changes = [s for n, s in enumerate(shown) if s[1] != (shown[n - 1][1] if n else "")]
    updates = log.shown["u0"].updates
    assert len(changes) >= 2
    for (heard_s, text), update in zip(changes, updates, strict=False):
        assert update.text == text
        assert update.heard_s == pytest.approx(heard_s, abs=0.001)


def test_the_number_of_streams_and_other_utterances_change_nothing():
    utterances = tone_utterances([[LOW, HIGH], [HIGH] * 7, [LOW]])
    utterances.append(Utterance("u3", [], 0.5, lambda: (16000, silence(0.5))))
    recognizer = OnlineRecognizer(fake_model())
    logs = []
    for num_streams in (1, 4):
        log = PartialLog()
        streaming_decode(recognizer, utterances, num_decode_streams=num_streams, partials=log)
        logs.append(log.shown)
    assert logs[0] == logs[1] and len(logs[0]) == 4
    assert logs[0]["u3"].updates == [] and logs[0]["u3"].heard_s > 0.0
    assert logs[0]["u1"].updates[-1].text == " ".join(["HIGH"] * 7)
    alone = PartialLog()
    streaming_decode(recognizer, utterances[2:3], num_decode_streams=1, partials=alone)
    assert alone.shown["u2"] == logs[0]["u2"]


def test_the_silence_of_the_tail_counts_as_heard():
    recognizer = OnlineRecognizer(fake_model(64))
    log = PartialLog()
    streaming_decode(recognizer, tone_utterances([[LOW, HIGH]]), num_decode_streams=1, partials=log)
    assert (log.chunk_s, log.look_ahead_s) == pytest.approx((0.64, 0.0775))
    # 0.6 s of sound and 0.4 s of tail do not fit into 0.64 s.
    assert log.shown["u0"].heard_s == pytest.approx(2 * 0.64 + 0.0775)


def test_several_chunks_at_once_are_refused():
    recognizer = OnlineRecognizer(fake_model(), max_chunks=2)
    with pytest.raises(ValueError, match="max_chunks"):
        PartialLog().begin(recognizer)


def test_a_word_that_goes_and_comes_again_stands_from_then():
    texts = ["ONE", "ONE TWO", "ONE", "ONE TWO", "ONE TWO THREE"]
    updates = [Update(float(n), text) for n, text in enumerate(texts)]
    assert standing_since(updates) == [0.0, 3.0, 4.0]


def test_a_word_stays_when_others_change_before_it():
    texts = ["FREE FOUR", "THREE FOUR", "TWO THREE FOUR FOUR"]
    updates = [Update(float(n), text) for n, text in enumerate(texts)]
    assert standing_since(updates) == [2.0, 1.0, 0.0, 2.0]


def test_half_a_word_is_not_the_word():
    texts = ["SEVEN", "SEVENTEEN", "SEVENTEEN SEVEN"]
    updates = [Update(float(n), text) for n, text in enumerate(texts)]
    assert standing_since(updates) == [1.0, 2.0]


@given(st.lists(st.lists(st.sampled_from("AB"), max_size=4), min_size=1, max_size=6))
def test_what_stands_was_there_ever_since(texts):
    updates = [Update(float(n), " ".join(text)) for n, text in enumerate(texts)]
    since = standing_since(updates)
    assert len(since) == len(texts[-1])
    for word, start in zip(texts[-1], since, strict=True):
        assert all(word in text for text in texts[int(start) :])
    # All words of the last text stand in the last update, and no earlier text may lack all.
    for n, text in enumerate(texts):
        assert sum(start <= n for start in since) <= max(map(len, texts[n:]))
        if not text:
            assert all(start > n for start in since)
