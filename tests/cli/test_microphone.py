"""The microphone, with a device of our own that plays sound into it and then presses Ctrl-C."""

import os
import signal
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from snowmelt.cli import microphone
from snowmelt.cli.main import main
from snowmelt.core.errors import AudioError, MissingExtraError
from snowmelt.runtime.load import load_model
from snowmelt.runtime.recognizer import OnlineRecognizer
from tests.runtime.tiny import make_experiment, noise


class FakePortAudioError(Exception):
    """What sounddevice raises."""


def _sounddevice(sound: np.ndarray, rate: int = 16000, presses_ctrl_c: bool = True):
    """A sounddevice module whose only microphone hears `sound` as fast as it can be played."""

    class InputStream:
        def __init__(self, *, samplerate, channels, dtype, blocksize, callback):
            assert (samplerate, channels, dtype) == (rate, 1, "float32")
            self._thread = threading.Thread(target=self._play, args=(blocksize, callback))

        def _play(self, blocksize, callback):
            for start in range(0, len(sound), blocksize):
                block = sound[start : start + blocksize, None].copy()
                callback(block, len(block), None, None)
                block.fill(np.nan)  # PortAudio uses its buffer again
            if presses_ctrl_c:
                os.kill(os.getpid(), signal.SIGINT)

        def __enter__(self):
            self._thread.start()
            return self

        def __exit__(self, *details):
            self._thread.join()

    return SimpleNamespace(
        InputStream=InputStream,
        PortAudioError=FakePortAudioError,
        query_devices=lambda kind: {"default_samplerate": float(rate)},
    )


def test_all_that_was_heard_before_ctrl_c_comes_out(monkeypatch):
    sound = noise(2.3)
    monkeypatch.setitem(sys.modules, "sounddevice", _sounddevice(sound))
    before = signal.getsignal(signal.SIGINT)
    rate, blocks = microphone.open_microphone()
    heard = list(blocks)
    assert rate == 16000 and {len(block) for block in heard[:-1]} == {800}
    np.testing.assert_array_equal(np.concatenate(heard), sound)
    assert signal.getsignal(signal.SIGINT) is before


def test_transcribe_microphone(monkeypatch, tmp_path, capsys):
    exp_dir = make_experiment(tmp_path, num_epochs=1)
    sound = noise(1.7, 3, rate=48000)
    recognizer = OnlineRecognizer(load_model(exp_dir, device="cpu"))
    stream = recognizer.create_stream()
    stream.accept_waveform(48000, sound)
    stream.input_finished()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    monkeypatch.setitem(sys.modules, "sounddevice", _sounddevice(sound, 48000))
    words = ["transcribe", "--microphone", "--model", str(exp_dir), "--device", "cpu"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out == recognizer.get_result(stream) + "\n" and len(out) > 10
    assert err == ""


def test_a_reader_far_behind_is_told(monkeypatch):
    monkeypatch.setattr(microphone, "_MAX_WAITING_BLOCKS", 3)
    monkeypatch.setitem(sys.modules, "sounddevice", _sounddevice(noise(1.0), presses_ctrl_c=False))
    _, blocks = microphone.open_microphone()
    with pytest.raises(AudioError, match="a minute behind"):
        for _ in blocks:
            threading.Event().wait(0.05)


def test_without_sounddevice_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'snowmelt\[mic\]'"):
        microphone.open_microphone()


def test_without_a_microphone_it_is_said(monkeypatch):
    def no_device(kind):
        raise FakePortAudioError("Error querying device -1")

    module = _sounddevice(noise(0.1))
    module.query_devices = no_device
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with pytest.raises(AudioError, match="there is no microphone: Error querying device -1"):
        microphone.open_microphone()

    def busy(**settings):
        raise FakePortAudioError("Device unavailable")

    module = _sounddevice(noise(0.1))
    module.InputStream = busy
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    _, blocks = microphone.open_microphone()
    with pytest.raises(AudioError, match="cannot be opened: Device unavailable"):
        next(blocks)
