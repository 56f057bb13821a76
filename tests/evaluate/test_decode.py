"""Simulated and real streaming on a test set: true words, in any batches, by both ways alike."""

import pytest

from snowmelt.core.errors import AudioError
from snowmelt.evaluate.decode import decode
from snowmelt.evaluate.streaming import streaming_decode
from snowmelt.evaluate.utterances import Utterance
from snowmelt.runtime.recognizer import OfflineRecognizer, OnlineRecognizer
from tests.evaluate.corpus import tone_utterances
from tests.runtime.fakes import HIGH, LOW, fake_model

_SPOKEN = [[LOW], [HIGH, LOW, HIGH, LOW, LOW], [], [LOW, LOW], [HIGH] * 9, [LOW, HIGH]]


def _utterances() -> list[Utterance]:
    spoken = [words for words in _SPOKEN if words]
    return tone_utterances(spoken)[::-1]


@pytest.mark.parametrize("max_duration", [0.1, 2.0, 6.0, 1000.0])
def test_whole_utterances_give_the_words(max_duration):
    recognizer = OfflineRecognizer(fake_model())
    rows = decode(recognizer, _utterances(), max_duration=max_duration)
    assert [row.utterance.utterance_id for row in rows] == ["u0", "u1", "u2", "u3", "u4"]
    assert all(said == heard for _, said, heard in (row.row for row in rows))


@pytest.mark.parametrize("num_decode_streams", [1, 3, 2000])
@pytest.mark.parametrize("chunk_len", [16, 64])
def test_chunks_give_the_words(num_decode_streams, chunk_len):
    recognizer = OnlineRecognizer(fake_model(chunk_len))
    rows = streaming_decode(recognizer, _utterances(), num_decode_streams=num_decode_streams)
    whole = decode(OfflineRecognizer(fake_model(chunk_len)), _utterances(), max_duration=5.0)
    assert [row.nbest for row in rows] == [row.nbest for row in whole]
    assert [row.row for row in rows] == [row.row for row in whole]
    assert all(said == heard for _, said, heard in (row.row for row in rows))


def test_batches_hold_at_most_max_duration_of_padded_sound():
    sizes: list[tuple[int, int]] = []
    model = fake_model()
    encode_whole = model.backend.encode_whole

    def watching(features, feature_lens):
        sizes.append(features.shape[:2])
        return encode_whole(features, feature_lens)

    model.backend.encode_whole = watching
    decode(OfflineRecognizer(model), _utterances(), max_duration=2.0)
    # The longest lasts 2.7 s: alone, and first.
    assert sizes[0][0] == 1 and sizes[0][1] > 270
    tail_frames = 40 + 32 + 7
    assert all(n * (frames - tail_frames) <= 200 for n, frames in sizes[1:])
    assert sum(n for n, _ in sizes) == 5


def test_sound_is_loaded_when_its_turn_comes():
    events: list[str] = []
    utterances = []
    for utterance in _utterances():

        def load(utterance=utterance):
            events.append(utterance.utterance_id)
            return utterance.load()

        utterances.append(Utterance(utterance.utterance_id, [], utterance.duration_s, load))
    model = fake_model()
    encode_whole = model.backend.encode_whole
    model.backend.encode_whole = lambda *x: (events.append("encode"), encode_whole(*x))[1]
    decode(OfflineRecognizer(model), utterances, max_duration=0.1)
    assert events[1::2] == ["encode"] * 5


def test_a_broken_utterance_is_an_error():
    def load():
        raise AudioError("u5.wav is truncated")

    utterances = [*_utterances(), Utterance("u5", [], 1.0, load)]
    with pytest.raises(AudioError, match="truncated"):
        decode(OfflineRecognizer(fake_model()), utterances, max_duration=5.0)
    with pytest.raises(AudioError, match="truncated"):
        streaming_decode(OnlineRecognizer(fake_model()), utterances, num_decode_streams=2)
