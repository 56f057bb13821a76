"""How does a sound file become samples? Any format libsndfile knows, from a path, stdin or memory.

Invariant: what comes out is mono float32 in [-1, 1], finite, and all that the file promised; or
one AudioError that names the file, the reason and the remedy. `read_audio` is the concatenation
of the blocks of `iter_audio`: there is one way to decode.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from snowmelt.audio.samples import MAX_PEAK, Float32Array
from snowmelt.core.errors import AudioError
from snowmelt.core.files import require_file

if TYPE_CHECKING:
    import soundfile

__all__ = ["AudioBlocks", "AudioInfo", "AudioSource", "info", "iter_audio", "read_audio"]

AudioSource: TypeAlias = str | Path | IO[bytes]
"""A path, "-" for standard input, or a binary file object."""

# libsndfile's frame count for a file whose header does not say how long it is.
_UNKNOWN_LENGTH: Final = 1 << 62

# libsndfile shortens a truncated file without an error and only notes it in its log. Programs
# that write to a pipe leave a huge number as length; such a file is whole.
_SHORTENED: Final = re.compile(
    r"(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
)
_MIN_PLACEHOLDER: Final = 0x7F000000
_CUT_OGG: Final = re.compile(r"Last page lacks an end-of-stream bit|Junk after the last page")

_NO_SUCH_FILE: Final = 7  # libsndfile's error number

_CONVERT_HINT: Final = "convert it, for example: ffmpeg -i FILE -ac 1 -ar 16000 out.wav"
_AGAIN_HINT: Final = (
    "copy or download it again; to use what is there, convert it first: ffmpeg -i FILE out.wav"
)


class AudioInfo(NamedTuple):
    """What a sound file holds."""

    num_samples: int  # per channel
    sample_rate: int  # Hz


def info(source: AudioSource) -> AudioInfo:
    """Length and sample rate, from the header; only a file that does not say is decoded.

    Raises:
        AudioError: as `read_audio`, except faults that only decoding can find.
    """
    blocks = iter_audio(source)
    if blocks.num_samples is None:
        return AudioInfo(sum(map(len, blocks)), blocks.sample_rate)
    blocks.close()
    return AudioInfo(blocks.num_samples, blocks.sample_rate)


def read_audio(source: AudioSource) -> tuple[Float32Array, int]:
    """All samples of a sound file.

    Args:
        source: a path, "-" for standard input, or a binary file object. WAV, FLAC, Ogg Vorbis
            and Opus, MP3, AIFF, AU, NIST SPHERE (uncompressed) and what else libsndfile reads.

    Returns:
        (num_samples,) float32 in [-1, 1], the mean of the channels; and the sample rate in Hz.

    Raises:
        AudioError: missing, unreadable, a directory, not audio, empty, truncated or damaged,
            samples that are not finite or in 16-bit range. Truncated MP3 and SPHERE files are
            not noticed: libsndfile knows no reliable length for them.
    """
    blocks = iter_audio(source)
    return np.concatenate(list(blocks)), blocks.sample_rate


def iter_audio(source: AudioSource, *, block_s: float = 10.0) -> "AudioBlocks":
    """The samples of a sound file block by block: memory does not grow with its length.

    Args:
        source: as for `read_audio`.
        block_s: seconds per block, > 0; the last block may be shorter.

    Returns:
        Iterator of (num_samples,) float32 blocks, with the attributes `sample_rate` and
        `num_samples` (None: the header does not say).

    Raises:
        AudioError: as `read_audio`; faults that only decoding can find are raised by the block
            where they appear.
    """
    return AudioBlocks(source, block_s)


class AudioBlocks(Iterator[Float32Array]):
    """An open sound file as an iterator of blocks; made by `iter_audio`, closes itself."""

    def __init__(self, source: AudioSource, block_s: float) -> None:
        self._resources = ExitStack()
        try:
            self._name, self._file = _open(source, self._resources)
            self.sample_rate: int = self._file.samplerate
            # An MP3 without a Xing header says nothing, and libsndfile makes a bad guess.
            known = self._file.frames < _UNKNOWN_LENGTH and self._file.format != "MP3"
            self.num_samples: int | None = self._file.frames if known else None
            self._num_read = 0
            self._check_log(self._file.extra_info)
        except BaseException:
            self._resources.close()
            raise
        block_len = max(1, round(block_s * self.sample_rate))
        if self.num_samples is not None:
            # One more than the file holds: its end is then seen in the same read.
            block_len = min(block_len, self.num_samples + 1)
        self._block = np.empty((block_len, self._file.channels), np.float32)

    def close(self) -> None:
        """Release the file before the iterator has come to its end."""
        self._resources.close()

    def __next__(self) -> Float32Array:
        if self._file.closed:
            raise StopIteration
        try:
            block = self._next_block()
        except BaseException:
            self.close()
            raise
        if len(block) < len(self._block):
            self.close()
        if len(block) == 0:
            raise StopIteration
        return block

    def _next_block(self) -> Float32Array:
        from soundfile import SoundFileError

        # soundfile raises at the end of some files although samples have arrived: NaN marks the
        # rest, since integer formats decode to no NaN.
        self._block.fill(np.nan)
        failure: SoundFileError | None = None
        try:
            count = len(self._file.read(out=self._block))
        except SoundFileError as error:
            failure = error
            count = int(np.count_nonzero(~np.isnan(self._block[:, 0])))
        self._num_read += count
        if count < len(self._block):
            self._check_end(failure)
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            block: Float32Array = self._block[:count].mean(axis=1)
        peak = np.abs(block).max(initial=0.0)
        if not np.isfinite(peak):
            raise AudioError(
                f"{self._name} has samples that are not numbers (NaN or infinity)",
                "write the file again from its source",
            )
        if peak > MAX_PEAK:
            raise AudioError(
                f"{self._name} has floating point samples up to {peak:.0f}, not in [-1, 1]",
                "divide samples in 16-bit range by 32768",
            )
        return block

    def _check_log(self, log: str) -> None:
        if _CUT_OGG.search(log):
            raise AudioError(
                f"{self._name} is truncated: its last Ogg page is missing or cut", _AGAIN_HINT
            )
        for promised, present in _SHORTENED.findall(log):
            if int(present) < int(promised) < _MIN_PLACEHOLDER:
                raise AudioError(
                    f"{self._name} is truncated: its header promises {promised} bytes of sound, "
                    f"{present} are there",
                    _AGAIN_HINT,
                )

    def _check_end(self, failure: Exception | None) -> None:
        """Decoding has stopped: is this the end that the header promised?"""
        if self._file.frames >= _UNKNOWN_LENGTH:
            # soundfile seeks after every read, and a file of unknown length has no end to seek
            # to: this failure is no fault of the file.
            failure = None
        if self.num_samples is not None and self._num_read < self.num_samples:
            raise AudioError(
                f"{self._name} is truncated or damaged: its header promises {self.num_samples} "
                f"samples, {self._num_read} can be decoded",
                _AGAIN_HINT,
            )
        if failure is not None:
            raise AudioError(f"{self._name} cannot be decoded: {_reason(failure)}", _AGAIN_HINT)
        if self._num_read == 0:
            raise AudioError(f"{self._name} has no samples", "record or export it again")


def _open(source: AudioSource, resources: ExitStack) -> "tuple[str, soundfile.SoundFile]":
    """The name for messages and the open file, registered in `resources`."""
    import soundfile

    if isinstance(source, str | Path):
        name, opened = _open_path(source, resources)
    else:
        name = str(getattr(source, "name", "sound stream"))
        opened = _copied(source, name, resources)
    try:
        # As bytes: soundfile cannot encode a name that is not text. TypeError: it wants a sample
        # rate for names that end in .raw.
        file = opened if isinstance(opened, int) or os.name == "nt" else os.fsencode(opened)
        return name, resources.enter_context(soundfile.SoundFile(file, closefd=False))
    except (soundfile.SoundFileError, TypeError) as error:
        if isinstance(opened, Path) and opened.stat().st_size == 0:
            raise AudioError(f"{name} is empty (0 bytes)", "record or copy it again") from None
        raise AudioError(f"{name} is no sound file: {_reason(error)}", _CONVERT_HINT) from error


def _open_path(path: str | Path, resources: ExitStack) -> tuple[str, Path | int]:
    if str(path) == "-":
        if sys.stdin is None:
            raise AudioError("standard input is closed", "pipe a sound file into it")
        if sys.stdin.isatty():
            raise AudioError("standard input is a terminal", "pipe a sound file into it")
        return "standard input", _copied(sys.stdin.buffer, "standard input", resources)
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        # A named pipe or a device, as the shell's <(command) gives.
        try:
            stream = resources.enter_context(path.open("rb"))
        except OSError as error:
            raise AudioError(f"{path} cannot be read: {error.strerror}") from None
        return str(path), _copied(stream, str(path), resources)
    return str(path), require_file(path, "sound file", error=AudioError, hint="check the name")


def _copied(stream: IO[bytes], name: str, resources: ExitStack) -> int:
    """Descriptor of a temporary file with everything the stream gives, since decoders seek.

    libsndfile could also call back into Python for every read. A Ctrl-C that comes in such a call
    is lost, and the call then looks like the end of the file.
    """
    try:
        copy = resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (it does)
        shutil.copyfileobj(stream, copy)
        copy.flush()
    except OSError as error:
        raise AudioError(
            f"{name} cannot be read into a temporary file: {error.strerror or error}",
            "if the disk is full, let TMPDIR name a folder with room",
        ) from None
    if copy.tell() == 0:
        raise AudioError(f"{name} is empty (0 bytes)", "pipe a sound file into it")
    copy.seek(0)
    return copy.fileno()


def _reason(error: Exception) -> str:
    # libsndfile says of a damaged MP3 that it does not exist, which was looked at before.
    if getattr(error, "code", None) == _NO_SUCH_FILE:
        return "it cannot be decoded"
    return str(getattr(error, "error_string", error)).rstrip(".")
