"""Recognizers: the same words however the sound comes, none lost, and memory that does not grow."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.audio.fbank import FbankConfig
from snowmelt.core.errors import AudioError
from snowmelt.presets.frames import LSTM_FRONT_END, ZIPFORMER_FRONT_END
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.recognizer import OfflineRecognizer, OnlineRecognizer
from snowmelt.runtime.stream import OnlineStream
from snowmelt.runtime.words import token_ends
from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.method import SearchResult
from snowmelt.search.modified_beam import ModifiedBeamSearch
from snowmelt.text.graph import trivial_graph
from tests.runtime.fakes import HIGH, LOW, FakeBackend, FakeTokenizer, burst, fake_model, silence

_SOUND = np.concatenate(
    [burst(LOW), silence(0.3), burst(HIGH), burst(LOW), silence(0.6), burst(HIGH)]
)
_WORDS = "LOW HIGH LOW HIGH"


def _drain(recognizer: OnlineRecognizer, stream: OnlineStream) -> None:
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)


def _heard(recognizer: OnlineRecognizer, sound, rate: int = 16000, piece: int = 4000) -> str:
    stream = recognizer.create_stream()
    for start in range(0, len(sound), piece):
        stream.accept_waveform(rate, sound[start : start + piece])
        _drain(recognizer, stream)
    stream.input_finished()
    _drain(recognizer, stream)
    assert recognizer.is_final(stream)
    return recognizer.get_result(stream)


def _whole(recognizer: OfflineRecognizer, sound, rate: int = 16000) -> str:
    stream = recognizer.create_stream()
    stream.accept_waveform(rate, sound)
    recognizer.decode_stream(stream)
    return recognizer.get_result(stream)


@pytest.mark.parametrize(
    ("chunk_len", "front_end"),
    [
        (16, ZIPFORMER_FRONT_END),
        (32, ZIPFORMER_FRONT_END),
        (64, ZIPFORMER_FRONT_END),
        (4, LSTM_FRONT_END),
        (32, LSTM_FRONT_END),
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 159, 160, 3000, 5119])
def test_first_and_last_words_are_never_lost(chunk_len, front_end, cut):
    # Speech begins with the first sample and ends with the last, at any place in a chunk.
    sound = np.concatenate([burst(LOW), silence(1.0)[cut:], burst(HIGH, 0.06)])
    model = fake_model(chunk_len, front_end=front_end)
    assert _heard(OnlineRecognizer(model), sound) == "LOW HIGH"
    assert _whole(OfflineRecognizer(model), sound) == "LOW HIGH"


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_sound_of_any_rate_gives_the_same_words(rate):
    sound = np.concatenate([burst(LOW, rate=rate), silence(0.5, rate), burst(HIGH, rate=rate)])
    assert _heard(OnlineRecognizer(fake_model()), sound, rate, piece=777) == "LOW HIGH"
    assert _whole(OfflineRecognizer(fake_model()), sound, rate) == "LOW HIGH"


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, len(_SOUND)), max_size=6))
def test_any_split_into_calls_gives_the_same_result(cuts):
    recognizer = OnlineRecognizer(fake_model())
    stream = recognizer.create_stream()
    for piece in np.split(_SOUND, sorted(cuts)):
        stream.accept_waveform(16000, piece)
        _drain(recognizer, stream)
    stream.input_finished()
    _drain(recognizer, stream)
    assert recognizer.get_result(stream) == _WORDS


def test_batched_equals_alone_online():
    sounds = [_SOUND[: 4000 * n + 900] for n in range(1, 6)]
    recognizer = OnlineRecognizer(fake_model())
    alone = []
    for sound in sounds:
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, sound)
        stream.input_finished()
        _drain(recognizer, stream)
        alone.append(recognizer.get_result_all(stream))
    streams = [recognizer.create_stream() for _ in sounds]
    for stream, sound in zip(streams, sounds, strict=True):
        stream.accept_waveform(16000, sound)
        stream.input_finished()
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.decode_streams(ready[::-1])
    assert [recognizer.get_result_all(stream) for stream in streams] == alone


def test_batched_equals_alone_offline():
    sounds = [_SOUND[: 4000 * n + 900] for n in range(1, 6)]
    recognizer = OfflineRecognizer(fake_model())
    streams = [recognizer.create_stream() for _ in sounds]
    for stream, sound in zip(streams, sounds, strict=True):
        stream.accept_waveform(16000, sound)
    recognizer.decode_streams(streams)
    together = [recognizer.get_result(stream) for stream in streams]
    assert together == [_whole(recognizer, sound) for sound in sounds]


def test_result_has_tokens_times_and_probabilities():
    sound = np.concatenate([silence(0.4), burst(LOW), silence(0.26), burst(HIGH)])
    recognizer = OnlineRecognizer(fake_model())
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, sound)
    stream.input_finished()
    assert not recognizer.get_result_all(stream).is_final
    _drain(recognizer, stream)
    result = recognizer.get_result_all(stream)
    assert result.is_final and result.text == "LOW HIGH" and result.tokens == ("▁LOW", "▁HIGH")
    assert result.timestamps == pytest.approx((0.4, 0.76), abs=0.041)
    assert result.start_time == 0.0
    expected = 5 - np.log(4 + np.exp(5))
    assert result.token_logprobs == pytest.approx((expected, expected), abs=1e-5)
    assert [word.text for word in result.words] == ["LOW", "HIGH"]
    assert [word.start for word in result.words] == list(result.timestamps)
    assert result.words[0].confidence == pytest.approx(np.exp(expected), abs=1e-5)


def test_reset_begins_a_segment_with_its_own_times():
    recognizer = OnlineRecognizer(fake_model())
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, np.concatenate([burst(LOW), silence(0.9)]))
    _drain(recognizer, stream)
    assert recognizer.get_result(stream) == "LOW"
    recognizer.reset(stream)
    assert recognizer.get_result(stream) == ""
    stream.accept_waveform(16000, np.concatenate([silence(0.1), burst(HIGH)]))
    stream.input_finished()
    _drain(recognizer, stream)
    result = recognizer.get_result_all(stream)
    assert result.text == "HIGH" and result.start_time == pytest.approx(0.64)
    assert result.start_time + result.timestamps[0] == pytest.approx(1.1, abs=0.041)


@pytest.mark.parametrize("make", ["silence", "noise"])
def test_an_hour_needs_no_more_memory_than_a_minute(make):
    # A low sample rate makes the simulated hour quick; the frames are as many as ever.
    features = FbankConfig(sample_rate=800, num_mel_bins=4, high_freq=0.0)
    model = fake_model(64, features=features)
    model.backend.encode = _encode_at_once
    recognizer = OnlineRecognizer(model)
    stream = recognizer.create_stream()
    block = silence(10.0, 800)
    if make == "noise":
        block = np.random.default_rng(1).normal(0, 0.1, 8000).astype(np.float32)
    for _ in range(360):
        stream.accept_waveform(800, block)
        _drain(recognizer, stream)
        # Unread are less than a window, kept samples at most twice a block and a window.
        assert stream.sound.num_frames_ready - stream.position < 64 + 7
        assert len(stream.sound._fbank._buffer) <= 2 * (8000 + 8 * (64 + 7 + 3))
    stream.input_finished()
    _drain(recognizer, stream)
    assert recognizer.is_final(stream)
    assert stream.search_state.num_frames >= 360000 // 64


def _encode_at_once(features, feature_lens, states):
    """One encoder frame a window, without a look at the features: blank."""
    logits = np.zeros((len(features), 1, 5), np.float32)
    return logits, np.ones(len(features), np.int64), list(states)


def test_several_chunks_are_taken_at_once_where_they_are_there():
    model = fake_model()
    encode, chunks = model.backend.encode, []

    def counting(features, feature_lens, states):
        chunks.append((features.shape[1] - 7) // 32)
        return encode(features, feature_lens, states)

    model.backend.encode = counting
    recognizer = OnlineRecognizer(model, max_chunks=3)
    streams = [recognizer.create_stream() for _ in range(2)]
    streams[0].accept_waveform(16000, silence(32 * 0.01 * 7 + 0.1))
    streams[1].accept_waveform(16000, silence(32 * 0.01 * 2 + 0.1))
    recognizer.decode_streams(streams)
    recognizer.decode_stream(streams[0])
    recognizer.decode_stream(streams[0])
    assert chunks == [2, 3, 2]
    assert not any(map(recognizer.is_ready, streams))


def test_the_encoder_state_goes_when_the_stream_has_ended():
    recognizer = OnlineRecognizer(fake_model())
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, _SOUND)
    stream.input_finished()
    _drain(recognizer, stream)
    assert stream.encoder_state is None
    assert recognizer.get_result(stream) == _WORDS


def test_a_stream_that_heard_nothing_says_nothing():
    assert _heard(OnlineRecognizer(fake_model()), silence(0)) == ""
    assert _heard(OnlineRecognizer(fake_model()), silence(0.05)) == ""
    assert _whole(OfflineRecognizer(fake_model()), silence(0.05)) == ""


def test_a_longer_tail_is_a_property_of_the_model():
    frames = []
    for tail, front_end in (
        (0.4, ZIPFORMER_FRONT_END),
        (2.94, ZIPFORMER_FRONT_END),
        (2.94, LSTM_FRONT_END),
    ):
        recognizer = OnlineRecognizer(fake_model(min_tail_s=tail, front_end=front_end))
        stream = recognizer.create_stream()
        stream.input_finished()
        _drain(recognizer, stream)
        frames.append(stream.search_state.num_frames)
    # 7 + 2 * 32, 7 + 9 * 32 and 5 + 10 * 32 feature frames.
    assert frames == [16, 72, 80]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 100), np.float32), r"\(2, 100\)"),
        (np.zeros(100, np.int16), "int16"),
        (np.array([0.0, np.nan], np.float32), "NaN"),
        (np.array([np.inf], np.float32), "NaN"),
    ],
)
@pytest.mark.parametrize("rate", [16000, 8000])
def test_samples_that_cannot_be_heard_are_refused(samples, message, rate):
    stream = OnlineRecognizer(fake_model()).create_stream()
    with pytest.raises(AudioError, match=message):
        stream.accept_waveform(rate, samples)


def test_wrong_order_of_calls_is_refused():
    recognizer = OnlineRecognizer(fake_model())
    stream = recognizer.create_stream()
    with pytest.raises(ValueError, match="not ready"):
        recognizer.decode_stream(stream)
    stream.accept_waveform(16000, silence(0.1))
    with pytest.raises(AudioError, match="from 16000 to 8000"):
        stream.accept_waveform(8000, silence(0.1))
    with pytest.raises(AudioError, match="positive"):
        recognizer.create_stream().accept_waveform(0, silence(0.1))
    stream.input_finished()
    stream.input_finished()
    with pytest.raises(AudioError, match="after input_finished"):
        stream.accept_waveform(16000, silence(0.1))
    offline = OfflineRecognizer(fake_model())
    with pytest.raises(ValueError, match="no result"):
        offline.get_result(offline.create_stream())


def test_a_failing_backend_leaves_the_stream_as_it_was():
    class Failing(FakeBackend):
        def encode(self, features, feature_lens, states):
            raise RuntimeError("out of memory")

    recognizer = OnlineRecognizer(SpeechModel(Failing(), FakeTokenizer()))
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, _SOUND)
    before = (stream.position, stream.encoder_state, stream.search_state)
    with pytest.raises(RuntimeError):
        recognizer.decode_stream(stream)
    assert (stream.position, stream.encoder_state, stream.search_state) == before


def test_any_search_is_heard_whole_and_chunk_by_chunk():
    search = ModifiedBeamSearch()
    assert _heard(OnlineRecognizer(fake_model(), search=search), _SOUND) == _WORDS
    assert _whole(OfflineRecognizer(fake_model(), search=search), _SOUND) == _WORDS


@pytest.mark.parametrize("beam", [1, 4])
def test_stable_text_only_ever_grows_and_ends_as_the_text(beam):
    recognizer = OnlineRecognizer(fake_model(), search=ModifiedBeamSearch(beam))
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, _SOUND)
    stream.input_finished()
    shown = [""]
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
        result = recognizer.get_result_all(stream)
        assert result.stable_text.startswith(shown[-1])
        assert result.text.startswith(result.stable_text)
        shown.append(result.stable_text)
    assert shown[-1] == _WORDS
    # Four hypotheses may differ at the first word until the end; one never does.
    assert beam > 1 or len(set(shown)) > 2


class _WordSearch(GreedySearch):
    """Says words 1 and 0, whatever tokens there are."""

    def result(self, scorer, state, *, is_final):
        tokens = super().result(scorer, state, is_final=is_final)
        return SearchResult(
            tokens.tokens,
            tokens.timestamps,
            tokens.token_logprobs,
            (1, 0),
            0.0,
            tokens.num_stable,
            (3, 9),
        )


def test_word_ids_are_read_in_the_word_table():
    table = ["world", "hello"]
    recognizer = OfflineRecognizer(fake_model(), search=_WordSearch(), word_table=table)
    assert _whole(recognizer, _SOUND) == "hello world"
    online = OnlineRecognizer(fake_model(), search=_WordSearch(), word_table=table)
    assert _heard(online, _SOUND) == "hello world"
    with pytest.raises(ValueError, match="give the recognizer a word_table"):
        _whole(OfflineRecognizer(fake_model(), search=_WordSearch()), _SOUND)


def test_words_of_a_graph_have_times_and_stay_when_their_tokens_do():
    # Tokens LOW and HIGH, called 1 and 2.
    graph = trivial_graph(5)
    words = [1, 1, 1, 2]
    graph = replace(graph, words=np.array(words), word_splits=np.arange(5))
    recognizer = OnlineRecognizer(
        fake_model(), search=FastBeamSearch(graph=graph), word_table=["", "deep", "high"]
    )
    plain = OnlineRecognizer(fake_model(), search=FastBeamSearch())
    stream, other = recognizer.create_stream(), plain.create_stream()
    for one in (stream, other):
        one.accept_waveform(16000, _SOUND)
    seen = []
    for asked, one in ((recognizer, stream), (plain, other)):
        texts = []
        while asked.is_ready(one):
            asked.decode_stream(one)
            texts.append(asked.get_result_all(one).stable_text)
        one.input_finished()
        _drain(asked, one)
        seen.append(texts)
    found, tokens = recognizer.get_result_all(stream), plain.get_result_all(other)
    renamed = {"LOW": "deep", "HIGH": "high"}
    assert [renamed[word.text] for word in tokens.words] == [word.text for word in found.words]
    assert [word[1:] for word in tokens.words] == [word[1:] for word in found.words]
    assert found.text == found.stable_text == " ".join(word.text for word in found.words)
    assert seen[0] == [" ".join(renamed[w] for w in text.split()) for text in seen[1]]
    assert len(set(seen[0])) > 1


def test_an_n_best_list_begins_with_the_result():
    model = fake_model()
    search = ModifiedBeamSearch(beam=4)
    online, offline = (
        OnlineRecognizer(model, search=search),
        OfflineRecognizer(model, search=search),
    )
    stream, whole = online.create_stream(), offline.create_stream()
    for one in (stream, whole):
        one.accept_waveform(16000, _SOUND)
    stream.input_finished()
    _drain(online, stream)
    offline.decode_stream(whole)
    nbest = online.get_nbest(stream, None)
    assert nbest == offline.get_nbest(whole, None)
    assert len(nbest) == 3 and nbest[0] == online.get_result_all(stream)
    assert sum(result.confidence for result in nbest) == pytest.approx(1.0)
    shares = [np.exp(result.log_prob - nbest[0].log_prob) for result in nbest]
    assert [r.confidence / nbest[0].confidence for r in nbest] == pytest.approx(shares)
    # The shares are of all hypotheses, however many are asked for.
    assert online.get_nbest(stream, 2) == nbest[:2]


def test_a_search_of_one_path_has_its_mean_probability():
    recognizer = OfflineRecognizer(fake_model())
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, _SOUND)
    recognizer.decode_stream(stream)
    (result,) = recognizer.get_nbest(stream, 5)
    assert result.confidence == pytest.approx(np.exp(np.mean(result.token_logprobs)))
    assert result.token_ends == token_ends(result.timestamps)
