"""Does every readable file give its samples, and every other one line that says why not?"""

import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from snowmelt.audio.read import info, iter_audio, read_audio
from snowmelt.core.errors import AudioError

RATE = 16000
FORMATS = {
    "wav": ("WAV", "PCM_16", 1e-4),
    "float.wav": ("WAV", "FLOAT", 0.0),
    "flac": ("FLAC", "PCM_16", 1e-4),
    "ogg": ("OGG", "VORBIS", 0.2),
    "opus": ("OGG", "OPUS", 0.2),
    "mp3": ("MP3", "MPEG_LAYER_III", 0.2),
    "aiff": ("AIFF", "PCM_16", 1e-4),
    "au": ("AU", "PCM_16", 1e-4),
    "sph": ("NIST", "PCM_16", 1e-4),
}


def speechlike(num_samples: int = 3 * RATE) -> npt.NDArray[np.float32]:
    """A tone that swells: lossy formats keep it well."""
    time = np.arange(num_samples) / RATE
    return (0.4 * np.sin(2 * np.pi * 300 * time) * np.sin(2 * np.pi * time)).astype(np.float32)


def encoded(samples: npt.NDArray[np.float32], extension: str = "wav", rate: int = RATE) -> bytes:
    content = io.BytesIO()
    file_format, subtype, _ = FORMATS[extension]
    soundfile.write(content, samples, rate, format=file_format, subtype=subtype)
    return content.getvalue()


@pytest.mark.parametrize("extension", FORMATS)
def test_all_formats_from_path_and_memory(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"speech.{extension}"
    path.write_bytes(encoded(speechlike(), extension))
    samples, sample_rate = read_audio(path)
    assert (samples.dtype, sample_rate) == (np.float32, RATE)
    assert info(path) == (len(speechlike()), RATE)
    np.testing.assert_allclose(samples, speechlike(), atol=FORMATS[extension][2])
    from_memory, _ = read_audio(io.BytesIO(path.read_bytes()))
    np.testing.assert_array_equal(from_memory, samples)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "opus"])
@pytest.mark.parametrize("block_s", [0.01, 0.7, 1.5, 3.0, 100.0])
def test_blocks_are_the_whole(tmp_path: Path, extension: str, block_s: float) -> None:
    path = tmp_path / f"speech.{extension}"
    path.write_bytes(encoded(speechlike(), extension))
    blocks = iter_audio(path, block_s=block_s)
    assert (blocks.num_samples, blocks.sample_rate) == (3 * RATE, RATE)
    pieces = list(blocks)
    assert {len(piece) for piece in pieces[:-1]} <= {round(block_s * RATE)}
    np.testing.assert_array_equal(np.concatenate(pieces), read_audio(path)[0])
    assert list(blocks) == []


def test_channels_are_averaged_at_any_rate(tmp_path: Path) -> None:
    stereo = np.stack((speechlike(), 0.5 * speechlike()), axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 44100, subtype="FLOAT")
    samples, sample_rate = read_audio(str(tmp_path / "stereo.wav"))
    assert sample_rate == 44100
    np.testing.assert_allclose(samples, 0.75 * speechlike(), rtol=1e-6, atol=1e-7)


def test_an_open_file_can_be_left(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(encoded(speechlike()))
    blocks = iter_audio(path, block_s=0.1)
    next(blocks)
    blocks.close()
    assert list(blocks) == []


@pytest.mark.parametrize("extension", ["wav", "flac", "opus"])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, extension: str) -> None:
    path = tmp_path / "speech"
    path.write_bytes(encoded(speechlike(), extension))
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        samples, _ = read_audio("-")
    np.testing.assert_array_equal(samples, read_audio(path)[0])


def test_standard_input_without_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(AudioError, match="^standard input is empty"):
        read_audio("-")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello")))
    with pytest.raises(AudioError, match="^standard input is no sound file"):
        read_audio("-")
    terminal = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(AudioError, match="is a terminal"):
        read_audio("-")


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_named_pipes(tmp_path: Path, extension: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = encoded(speechlike(), extension)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    samples, _ = read_audio(pipe)
    writer.join()
    np.testing.assert_array_equal(samples, read_audio(io.BytesIO(content))[0])


def failure(source: str | Path | io.BytesIO) -> str:
    """The one line that reading gives."""
    with pytest.raises(AudioError) as caught:
        read_audio(source)
    line = str(caught.value)
    assert "\n" not in line
    assert "(hint: " in line
    return line


@pytest.mark.parametrize("extension", ["wav", "float.wav", "flac", "ogg", "opus", "aiff", "au"])
@pytest.mark.parametrize("share", [0.999, 0.99, 0.9, 0.5, 0.2])
def test_truncated_files_are_noticed(tmp_path: Path, extension: str, share: float) -> None:
    content = encoded(speechlike(), extension)
    path = tmp_path / f"cut.{extension}"
    path.write_bytes(content[: int(len(content) * share)])
    line = failure(path)
    assert str(path) in line
    assert "truncated" in line or "malformed" in line


def test_a_truncated_flac_says_how_much_is_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)
    content = encoded(noise, "flac")
    path = tmp_path / "cut.flac"
    path.write_bytes(content[: len(content) // 2])
    assert f"{path} is truncated or damaged: its header promises 48000 samples, 2" in failure(path)
    # The header alone looks whole; the blocks before the cut are handed out.
    assert info(path).num_samples == 48000
    blocks = iter_audio(path, block_s=0.5)
    np.testing.assert_allclose(next(blocks), noise[:8000], atol=1e-4)
    with pytest.raises(AudioError, match="truncated"):
        list(blocks)


def test_a_damaged_flac_is_noticed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)
    content = bytearray(encoded(noise, "flac"))
    content[40000:40100] = bytes(100)
    path = tmp_path / "damaged.flac"
    path.write_bytes(content)
    assert "truncated or damaged" in failure(path)


def test_files_written_to_a_pipe_are_whole(tmp_path: Path) -> None:
    flac = bytearray(encoded(speechlike(), "flac"))
    flac[21] &= 0xF0  # STREAMINFO: total samples 0 means unknown
    flac[22:26] = bytes(4)
    (tmp_path / "piped.flac").write_bytes(flac)
    assert iter_audio(tmp_path / "piped.flac").num_samples is None
    wav = bytearray(encoded(speechlike()))
    for size_field in (4, 40):
        wav[size_field : size_field + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "piped.wav").write_bytes(wav)
    for name in ("piped.flac", "piped.wav"):
        for source in (tmp_path / name, io.BytesIO((tmp_path / name).read_bytes())):
            np.testing.assert_allclose(read_audio(source)[0], speechlike(), atol=1e-4)
        assert info(tmp_path / name) == (3 * RATE, RATE)


def test_missing_directory_empty_and_foreign_files(tmp_path: Path) -> None:
    assert "does not exist" in failure(tmp_path / "missing.wav")
    assert "is a directory" in failure(tmp_path)
    for name, content, reason in [
        ("empty.wav", b"", "is empty (0 bytes)"),
        ("silent.wav", encoded(np.zeros(0, np.float32)), "has no samples"),
        ("text.wav", b"hello, world\n" * 100, "is no sound file: Format not recognised"),
        ("start.flac", b"fLaC", "is no sound file"),
        ("start.mp3", b"\xff\xfb\x90\x00" + bytes(100), "is no sound file"),
        ("headerless.raw", bytes(1000), "is no sound file"),
        ("lfs.wav", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        line = failure(path)
        assert str(path) in line
        assert reason in line


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers(tmp_path: Path, value: float) -> None:
    samples = speechlike()
    samples[40000] = value
    soundfile.write(tmp_path / "broken.wav", samples, RATE, subtype="FLOAT")
    assert "not numbers (NaN or infinity)" in failure(tmp_path / "broken.wav")
    # Opposite infinities in two channels cancel to NaN.
    stereo = np.stack((samples, -samples), axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, RATE, subtype="FLOAT")
    assert "not numbers" in failure(tmp_path / "stereo.wav")


def test_float_samples_in_16_bit_range(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", 32768 * speechlike(), RATE, subtype="FLOAT")
    assert "divide samples in 16-bit range by 32768" in failure(tmp_path / "loud.wav")


def test_memory_objects_are_named_in_errors() -> None:
    assert failure(io.BytesIO(b"no sound")).startswith("sound stream is no sound file")


def test_an_interrupt_while_a_stream_is_read_is_not_lost() -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise KeyboardInterrupt

        def readinto(self, buffer: object, /) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_audio(Interrupted(encoded(speechlike())))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    path.write_bytes(encoded(speechlike()))
    assert info(path) == (len(speechlike()), RATE)


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(AudioError, match="standard input is closed"):
        read_audio("-")
