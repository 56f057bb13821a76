"""One tail and one history: the same frames and the same first context on every path.

Paths: whole, chunk by chunk, several chunks at once (transcribe); in torch, scripted, traced and
as ONNX files.
"""

import numpy as np
import pytest

from snowmelt.audio.fbank import fbank
from snowmelt.audio.tail import tail_samples
from snowmelt.export.run import Forms, Source, export
from snowmelt.runtime.load import load_model
from snowmelt.runtime.recognizer import OfflineRecognizer, OnlineRecognizer
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_MODELS, noise

RUNTIMES = ["eager", "cpu_jit.pt", "encoder_jit_trace.pt", "onnx"]
# With 0.4 s of silence a sound of 30 samples is a window and more; one of two windows' length less
# 0.4 s fills them to the sample.
BEYOND_A_WINDOW = [-1, 0, 1, 5000, None]


@pytest.fixture(
    scope="module",
    params=["lstm", pytest.param("zipformer", marks=pytest.mark.slow)],
)
def models(request, tmp_path_factory):
    """The same weights in every runtime."""
    folder = noisy_experiment(tmp_path_factory.mktemp("exp"), TINY_MODELS[request.param])
    list(export(Source(folder), Forms(jit=True, jit_trace=True), folder))
    onnx = tmp_path_factory.mktemp("onnx")
    list(export(Source(folder), Forms(onnx=True), onnx))
    paths = {"eager": folder / "pretrained.pt", "onnx": onnx}
    return {name: load_model(paths.get(name, folder / name), device="cpu") for name in RUNTIMES}


def _watched(model, monkeypatch):
    """Windows that the encoder reads, and contexts that the prediction network is asked for."""
    windows, contexts = [], []
    backend = model.backend
    encode, encode_whole, decode = backend.encode, backend.encode_whole, backend.scorer.decode

    def chunk(features, lens, states):
        windows.append(features[0, : lens[0]])
        return encode(features, lens, states)

    def whole(features, lens):
        windows.append(features[0, : lens[0]])
        return encode_whole(features, lens)

    def asked(rows):
        contexts.extend(rows.tolist())
        return decode(rows)

    monkeypatch.setattr(backend, "encode", chunk)
    monkeypatch.setattr(backend, "encode_whole", whole)
    monkeypatch.setattr(backend.scorer, "decode", asked)
    return windows, contexts


def _joined(windows, overlap):
    """What windows that overlap read."""
    return np.concatenate([*(window[:-overlap] for window in windows[:-1]), windows[-1]])


@pytest.mark.parametrize("beyond", BEYOND_A_WINDOW)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_path_reads_the_same_frames(models, runtime, beyond, monkeypatch):
    model = models[runtime]
    overlap = model.backend.front_end.window_overlap
    num_samples = 30 if beyond is None else 160 * (overlap + 2 * 32) - 6400 + beyond
    sound = noise(2.0, seed=3)[:num_samples]
    tail = tail_samples(num_samples, model.backend.decode_chunk_len, overlap)
    assert tail >= 6400
    expected = fbank(np.concatenate([sound, np.zeros(tail, np.float32)]), model.features)
    windows, contexts = _watched(model, monkeypatch)
    results = []
    for recognizer in (
        OfflineRecognizer(model),
        OnlineRecognizer(model),
        OnlineRecognizer(model, max_chunks=8),
    ):
        windows.clear()
        contexts.clear()
        stream = recognizer.create_stream()
        for start in range(0, max(num_samples, 1), 1000):
            stream.accept_waveform(16000, sound[start : start + 1000])
        if isinstance(recognizer, OfflineRecognizer):
            recognizer.decode_stream(stream)
        else:
            stream.input_finished()
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
        read = _joined(windows, overlap)
        assert read.shape == expected.shape
        np.testing.assert_array_equal(read, expected)
        assert contexts[0] == [-1, 0]
        result = recognizer.get_result_all(stream)
        results.append((result.tokens, result.timestamps))
    assert results[0] == results[1] == results[2]


def test_every_runtime_finds_the_same_first_and_last_words(models):
    sound = noise(1.7, seed=5)
    results = []
    for model in models.values():
        recognizer = OfflineRecognizer(model)
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, sound)
        recognizer.decode_stream(stream)
        results.append(recognizer.get_result_all(stream))
    assert len(results[0].tokens) > 10
    assert {(r.tokens, r.timestamps) for r in results} == {
        (results[0].tokens, results[0].timestamps)
    }


def test_every_runtime_knows_that_nothing_was_before(models):
    """-1 is no token: a zero vector, neither blank nor the last row of a table."""
    contexts = np.array([[-1, 0], [0, 0], [29, 0]])
    decoded = [model.backend.scorer.decode(contexts) for model in models.values()]
    for rows in decoded:
        np.testing.assert_allclose(rows, decoded[0], atol=1e-5)
        assert np.abs(rows[0] - rows[1]).max() > 1e-3 < np.abs(rows[0] - rows[2]).max()
