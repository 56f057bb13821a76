"""The torch backend with small models of random weights: chunks equal the whole, alone equals
packed, and states that stay together are not copied."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from snowmelt.models.build import build_transducer
from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.backends import torch_eager
from snowmelt.runtime.backends.torch_eager import TorchBackend, TorchScorer
from snowmelt.runtime.recognizer import OfflineRecognizer, OnlineRecognizer
from snowmelt.runtime.scheduler import decode_ready
from tests.runtime.tiny import TINY_MODELS, noise, tiny_tokenizer, tiny_weights


@pytest.fixture(scope="module", params=list(TINY_MODELS))
def encoder(request) -> str:
    return request.param


def _model(encoder: str, decode_chunk_len: int = 32) -> SpeechModel:
    config = dataclasses.replace(TINY_MODELS[encoder], decode_chunk_len=decode_chunk_len)
    tokenizer = tiny_tokenizer()
    model = build_transducer(config, tokenizer.vocab_size)
    model.load_state_dict(tiny_weights(model=config))
    return SpeechModel(TorchBackend(model, config, unk_id=tokenizer.unk_id), tokenizer)


def _sounds(*seconds: float) -> list[np.ndarray]:
    return [noise(duration, seed=n) for n, duration in enumerate(seconds)]


def _online(model: SpeechModel, sounds, piece: int = 5000, max_chunks: int = 1):
    """Results of streams that are all fed together, piece by piece."""
    recognizer = OnlineRecognizer(model, max_chunks=max_chunks)
    streams = [recognizer.create_stream() for _ in sounds]
    for start in range(0, max(map(len, sounds)) + piece, piece):
        for stream, sound in zip(streams, sounds, strict=True):
            if start < len(sound):
                stream.accept_waveform(16000, sound[start : start + piece])
            else:
                stream.input_finished()
        while decode_ready(recognizer, streams, max_batch_size=8):
            pass
    return [recognizer.get_result_all(stream) for stream in streams]


def _offline(model: SpeechModel, sounds):
    recognizer = OfflineRecognizer(model)
    streams = [recognizer.create_stream() for _ in sounds]
    for stream, sound in zip(streams, sounds, strict=True):
        stream.accept_waveform(16000, sound)
    recognizer.decode_streams(streams)
    return [recognizer.get_result_all(stream) for stream in streams]


def _same(a, b) -> None:
    assert (a.tokens, a.timestamps, a.words and [w.text for w in a.words]) == (
        b.tokens,
        b.timestamps,
        b.words and [w.text for w in b.words],
    )
    np.testing.assert_allclose(a.token_logprobs, b.token_logprobs, atol=1e-4)


@pytest.mark.parametrize("chunk_len", [16, 32, 64])
def test_chunks_give_the_words_of_the_whole(encoder, chunk_len):
    model = _model(encoder, chunk_len)
    sounds = _sounds(1.3, 0.05, 3.1, 0.8)
    online, offline = _online(model, sounds), _offline(model, sounds)
    assert len(offline[2].tokens) > 20
    for chunked, whole in zip(online, offline, strict=True):
        _same(chunked, whole)


@pytest.mark.parametrize("chunk_len", [4, 36])
def test_an_lstm_takes_any_chunk_of_whole_encoder_frames(chunk_len):
    model = _model("lstm", chunk_len)
    sounds = _sounds(0.9, 0.05)
    for chunked, whole in zip(_online(model, sounds), _offline(model, sounds), strict=True):
        _same(chunked, whole)


def test_batch_mates_change_nothing(encoder):
    model = _model(encoder)
    sounds = _sounds(1.3, 0.05, 3.1, 0.8)
    for n, sound in enumerate(sounds):
        _same(_online(model, [sound])[0], _online(model, sounds)[n])
        _same(_offline(model, [sound])[0], _offline(model, sounds)[n])


@pytest.mark.parametrize("piece", [160, 1234, 100000])
def test_the_split_into_calls_changes_nothing(encoder, piece):
    model = _model(encoder)
    sounds = _sounds(1.3, 2.2)
    assert _online(model, sounds[:1], piece) == _online(model, sounds[:1])
    # Side by side the pieces decide who shares a batch, which may change the last bits.
    for split, expected in zip(_online(model, sounds, piece), _online(model, sounds), strict=True):
        _same(split, expected)


@pytest.mark.parametrize("max_chunks", [2, 5])
def test_several_chunks_at_once_give_the_same(encoder, max_chunks):
    model = _model(encoder)
    sounds = _sounds(1.3, 0.05, 3.1)
    at_once = _online(model, sounds, 100000, max_chunks)
    for many, one in zip(at_once, _online(model, sounds), strict=True):
        _same(many, one)


def test_states_that_stay_together_are_not_copied(encoder, monkeypatch):
    model = _model(encoder)
    state_type = type(model.backend.init_state().batch)
    gathered: list[int] = []
    select = torch_eager._selected

    def counting(tree, index):
        if isinstance(tree, state_type):
            gathered.append(len(index))
        return select(tree, index)

    monkeypatch.setattr(torch_eager, "_selected", counting)
    _online(model, _sounds(2.0, 2.0, 4.0))
    # To put three new streams together; when two of them run ahead to their end; when they have
    # left. Never in between.
    assert gathered == [3, 2, 1]


def test_old_states_stay_valid(encoder):
    backend = _model(encoder).backend
    num_frames = 32 + backend.front_end.window_overlap
    features = np.random.default_rng(3).normal(0, 1, (2, num_frames, 80)).astype(np.float32)
    lens = np.array([num_frames, num_frames])
    start = [backend.init_state(), backend.init_state()]
    first, _, states = backend.encode(features, lens, start)
    again, _, _ = backend.encode(features, lens, start)
    np.testing.assert_array_equal(first, again)
    onward, out_lens, _ = backend.encode(features, lens, states)
    assert out_lens.tolist() == [8, 8] and not np.allclose(first, onward)
    swapped, _, _ = backend.encode(features[::-1].copy(), lens, states[::-1])
    np.testing.assert_allclose(swapped[::-1], onward, atol=1e-5)
    assert first.dtype == np.float32 and out_lens.dtype == np.int64


def test_the_scorer_sees_training_s_history(encoder):
    scorer = _model(encoder).backend.scorer
    assert (scorer.context_size, scorer.blank_id, scorer.unk_id) == (2, 0, 2)
    start, blanks = scorer.decode(np.array([[-1, 0], [0, 0]]))
    assert not np.allclose(start, blanks)
    logits = scorer.join(np.zeros((2, 16), np.float32), np.stack([start, blanks]))
    assert logits.shape == (2, 30) and logits.dtype == np.float32


def test_the_tables_are_the_prediction_network(encoder):
    config = TINY_MODELS[encoder]
    model = build_transducer(config, 30)
    model.load_state_dict(tiny_weights(model=config))
    scorer = TorchScorer(model.eval(), None)
    contexts = torch.cartesian_prod(torch.arange(-1, 30), torch.arange(-1, 30))
    with torch.no_grad():
        expected = model.joiner.decoder_proj(model.decoder(contexts, need_pad=False)[:, 0])
    np.testing.assert_allclose(scorer.decode(contexts.numpy()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("context_size", [1, 3])
def test_tables_of_any_context(context_size):
    torch.manual_seed(0)
    decoder = Decoder(7, 8, 0, context_size).eval()
    joiner = Joiner(8, 8, 8, 7)
    scorer = TorchScorer(SimpleNamespace(decoder=decoder, joiner=joiner), None)
    contexts = torch.randint(-2, 7, (20, context_size))
    with torch.no_grad():
        expected = joiner.decoder_proj(decoder(contexts, need_pad=False)[:, 0])
    np.testing.assert_allclose(scorer.decode(contexts.numpy()), expected, rtol=1e-5, atol=1e-6)
