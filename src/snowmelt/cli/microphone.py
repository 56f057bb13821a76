"""How does the microphone become blocks of samples, until Ctrl-C?

Invariant: sounddevice is imported when the microphone is opened; no sound is dropped silently.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from snowmelt.core.errors import AudioError, MissingExtraError
from snowmelt.core.interrupt import stop_requests

if TYPE_CHECKING:
    from snowmelt.audio.samples import Float32Array

__all__ = ["open_microphone"]

_BLOCK_S: Final = 0.05

# A recogniser that is a minute behind will not catch up; memory must not grow for ever.
_MAX_WAITING_BLOCKS: Final = round(60 / _BLOCK_S)

# How long Ctrl-C may go unnoticed when no sound arrives.
_POLL_S: Final = 0.1


def open_microphone() -> "tuple[int, Iterator[Float32Array]]":
    """Sample rate of the default microphone, and blocks of (num_samples,) float32 until Ctrl-C.

    Raises:
        MissingExtraError: sounddevice is not installed.
        AudioError: there is no microphone, or (while blocks are taken) it fails or the reader is a
            minute behind.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the PortAudio library is missing
        raise MissingExtraError(
            f"the microphone needs sounddevice ({error})", "pip install 'snowmelt[mic]'"
        ) from None
    try:
        sample_rate = int(sounddevice.query_devices(kind="input")["default_samplerate"])
    except (ValueError, sounddevice.PortAudioError) as error:
        raise AudioError(f"there is no microphone: {error}", "plug one in or give a file") from None
    return sample_rate, _blocks(sounddevice, sample_rate)


def _blocks(sounddevice: Any, sample_rate: int) -> "Iterator[Float32Array]":
    waiting: queue.Queue[Float32Array] = queue.Queue(_MAX_WAITING_BLOCKS)
    is_behind = threading.Event()

    def hear(samples: "Float32Array", num_frames: int, time: object, status: object) -> None:
        # Runs in PortAudio's thread: copy, because its buffer is used again.
        try:
            waiting.put_nowait(samples[:, 0].copy())
        except queue.Full:
            is_behind.set()

    try:
        microphone = sounddevice.InputStream(
            samplerate=sample_rate,
            channels=1,
            dtype="float32",
            blocksize=round(_BLOCK_S * sample_rate),
            callback=hear,
        )
    except sounddevice.PortAudioError as error:
        raise AudioError(f"the microphone cannot be opened: {error}") from None
    # The last words are still wanted when Ctrl-C comes.
    with stop_requests() as stopped, microphone:
        while not stopped.is_set():
            if is_behind.is_set():
                raise AudioError(
                    "the model is a minute behind the microphone",
                    "use a smaller model or a longer --decode-chunk-len",
                )
            with contextlib.suppress(queue.Empty):
                yield waiting.get(timeout=_POLL_S)
    # What was said before Ctrl-C, but not taken yet.
    while not waiting.empty():
        yield waiting.get_nowait()
