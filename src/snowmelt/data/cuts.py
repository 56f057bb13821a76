"""What is in a cut? Its samples, its text, its words' times; and how is it made faster or slower?

Samples are read through a bounded cache, because an epoch asks for every file again, and strings
of short recordings ask for the same file many times. Of a long recording only the part that is
asked for is read. lhotse's own loader gives the same samples.

Invariant: cuts are never changed, cached samples cannot be written to, and a manifest cannot make
this process run a command.
"""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
from lhotse import CutSet, MonoCut, Recording
from lhotse.augmentation import Speed
from lhotse.cut import Cut, MixedCut, MixTrack, PaddingCut
from lhotse.supervision import AlignmentItem

from snowmelt.audio.read import read_audio
from snowmelt.audio.resample import resample
from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file
from snowmelt.data.shards import read_member, sound_place
from snowmelt.data.stored_cuts import CutSequence, SpeedCopies, as_sequence

__all__ = [
    "SPEED_KEY",
    "AudioCache",
    "cut_text",
    "cut_words",
    "has_speed_copies",
    "is_speed_copy",
    "load_samples",
    "with_speed_copies",
]

SPEED_KEY: Final = "speed_copy"
"""The custom field of a copy at another speed that was written to a file of its own."""

# Half an hour of speech is 115 MB of float32: the two small corpora, three speeds each, fit.
_DEFAULT_CACHE_BYTES: Final = 1 << 30

# Cuts of recordings longer than this are read by themselves. LibriSpeech's longest has 35 s.
_LONG_RECORDING_S: Final = 60.0

# A part is resampled with this much more sound at both ends, where a resampler invents what it
# does not know.
_RESAMPLING_MARGIN_S: Final = 0.1

_PREPARE_HINT: Final = "prepare the corpus again"


class _Source(NamedTuple):
    """What is decoded: a file or a place in one, and at which speed."""

    path: str
    place: str
    factor: float


class AudioCache:
    """Whole decoded recordings, the least recently used dropped first. Safe between threads.

    Args:
        max_bytes: memory for samples (float32); 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = _DEFAULT_CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._recordings: OrderedDict[_Source, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, recording: Recording, place: str = "") -> npt.NDArray[np.float32]:
        """All samples of a mono file recording, perturbed in speed if it says so; read-only.

        Args:
            recording: of one file.
            place: where in this file it is, if that is a shard (`data.shards`).

        Raises:
            AudioError: the file is missing or damaged.
            DataError: the file is not as long, or not of the rate, that the recording says.
        """
        source = _Source(str(recording.sources[0].source), place, _speed(recording))
        with self._lock:
            samples = self._recordings.get(source)
            if samples is not None:
                self._recordings.move_to_end(source)
                return samples
        samples = _read(recording, source)
        samples.flags.writeable = False
        with self._lock:
            if source not in self._recordings and samples.nbytes <= self._max_bytes:
                self._recordings[source] = samples
                self._num_bytes += samples.nbytes
            while self._num_bytes > self._max_bytes:
                _, dropped = self._recordings.popitem(last=False)
                self._num_bytes -= dropped.nbytes
        return samples


def load_samples(cut: Cut, cache: AudioCache) -> npt.NDArray[np.float32]:
    """Samples of a cut.

    Args:
        cut: mono; plain file recordings and mixes of them at given times go through the cache
            (but for parts of long recordings), everything else through lhotse.

    Returns:
        (num_samples,) float32 in [-1, 1]; may be read-only.

    Raises:
        UserError: a file is missing, damaged, or not what the manifest says; or the cut has no
            sound.
    """
    if not cut.has_recording:
        raise DataError(
            f"cut {cut.id} has no recording: its manifest names no sound",
            "if it has stored features, use them: --on-the-fly-feats false",
        )
    if isinstance(cut, MonoCut) and _is_plain(cut.recording):
        start = round(cut.start * cut.sampling_rate)
        place = sound_place(cut)
        is_part = cut.duration < cut.recording.duration / 2
        if cut.recording.duration > _LONG_RECORDING_S and is_part and not place:
            return _read_part(cut.recording, start, int(cut.num_samples))
        return cache.read(cut.recording, place)[start : start + cut.num_samples]
    if isinstance(cut, MixedCut) and _is_sequence(cut):
        mix = np.zeros(cut.num_samples, np.float32)
        for track in cut.tracks:
            if isinstance(track.cut, PaddingCut):
                continue
            start = round(track.offset * cut.sampling_rate)
            samples = load_samples(track.cut, cache)[: len(mix) - start]
            mix[start : start + len(samples)] += samples
        return mix
    _refuse_commands(cut)
    try:
        channels = cut.load_audio()
    except Exception as error:  # lhotse raises what its many back ends raise
        raise DataError(f"the sound of cut {cut.id} cannot be loaded: {error}") from error
    if channels is None or channels.shape[0] != 1:
        raise DataError(f"cut {cut.id} is not one channel of sound", "choose a channel first")
    return np.asarray(channels[0], np.float32)


def cut_text(cut: Cut) -> str:
    """Transcript of a cut: its supervisions' texts in order of time."""
    supervisions = sorted(cut.supervisions, key=lambda s: s.start)
    return " ".join(s.text.strip() for s in supervisions if s.text and s.text.strip())


def cut_words(cut: Cut) -> list[AlignmentItem]:
    """Words of a cut with `start` and `duration` in seconds from its beginning, in order.

    Empty when the corpus gives no word times.
    """
    tracks = [(t.offset, t.cut) for t in cut.tracks] if isinstance(cut, MixedCut) else [(0.0, cut)]
    words = [
        # An alignment counts from the start of its recording, whatever the cut and the mix are.
        word._replace(start=round(offset - source.start + word.start, ndigits=8))
        for offset, source in tracks
        for supervision in source.supervisions
        for word in (supervision.alignment or {}).get("word", ())
    ]
    return sorted(words, key=lambda word: word.start)


def with_speed_copies(cuts: CutSet, factors: Sequence[float] = (0.9, 1.1)) -> CutSet:
    """The cuts, then a copy of them for each factor, played that much faster.

    Ids of copies end in `_sp0.9` and the like; n samples become round(n / factor). Pitch changes
    with the speed. Copies have no stored features. Source: the three-fold training sets of
    icefall's LibriSpeech recipe.
    """
    copies = SpeedCopies(as_sequence(cuts), factors)
    # Of cuts in memory, the copies are there too.
    return CutSet(copies) if isinstance(as_sequence(cuts), CutSequence) else CutSet(list(copies))


def has_speed_copies(cuts: CutSet) -> bool:
    """Whether some of the cuts are played faster or slower already."""
    return any(is_speed_copy(cut) for cut in cuts)


def is_speed_copy(cut: Cut) -> bool:
    """Whether a cut is its recording played faster or slower; or was, before it was written."""
    if not isinstance(cut, MonoCut):
        return False
    transforms = cut.recording.transforms or () if cut.has_recording else ()
    return SPEED_KEY in (cut.custom or {}) or any(isinstance(t, Speed) for t in transforms)


def _speed(recording: Recording) -> float:
    return float(recording.transforms[0].factor) if recording.transforms else 1.0


def _is_plain(recording: Recording) -> bool:
    transforms = recording.transforms or []
    return (
        len(recording.sources) == 1
        and recording.sources[0].type == "file"
        and recording.sources[0].channels == [0]
        and (not transforms or (len(transforms) == 1 and isinstance(transforms[0], Speed)))
    )


def _is_sequence(cut: MixedCut) -> bool:
    return not cut.transforms and all(
        track.snr is None
        and not track.mute
        and (
            isinstance(track.cut, PaddingCut)
            or (isinstance(track.cut, MonoCut) and _is_plain(track.cut.recording))
        )
        for track in cut.tracks
    )


def _read(recording: Recording, source: _Source) -> npt.NDArray[np.float32]:
    path, place, factor = source
    samples, rate = read_audio(io.BytesIO(read_member(Path(path), place)) if place else Path(path))
    if rate != recording.sampling_rate:
        raise _wrong_rate(path, rate, recording.sampling_rate)
    if factor != 1.0:
        samples = _faster(samples, rate, factor, recording.num_samples)
    elif len(samples) != recording.num_samples:
        raise DataError(
            f"{path} has {len(samples)} samples, its manifest says {recording.num_samples}",
            _PREPARE_HINT,
        )
    return np.ascontiguousarray(samples, np.float32)


def _faster(
    samples: npt.NDArray[np.float32], rate: int, factor: float, num_samples: int
) -> npt.NDArray[np.float32]:
    samples = resample(samples, round(rate * factor), rate)
    # The resampler may end one sample early or late.
    return np.pad(samples, (0, max(num_samples - len(samples), 0)))[:num_samples]


def _read_part(recording: Recording, start: int, num_samples: int) -> npt.NDArray[np.float32]:
    """Samples start ... start + num_samples - 1 of a plain recording, from its file."""
    path, factor, rate = (
        str(recording.sources[0].source),
        _speed(recording),
        recording.sampling_rate,
    )
    margin = 0
    if factor != 1.0:
        margin = min(start, round(_RESAMPLING_MARGIN_S * rate))
        # At every tenth sample 0.9 and 1.1 times the speed are at a sample of the file as well.
        margin += (start - margin) % 10
    first, needed, wanted = (
        round(n * factor) for n in (start - margin, margin + num_samples, num_samples + 2 * margin)
    )
    samples = _decode_part(path, rate, first, wanted)
    if len(samples) < needed - 1:  # by one sample, times are rounded
        raise DataError(
            f"{path} ends {needed - len(samples)} samples before a cut that its manifest names",
            _PREPARE_HINT,
        )
    if factor == 1.0:
        return samples
    return _faster(samples, rate, factor, margin + num_samples)[margin:]


def _decode_part(path: str, rate: int, start: int, num_samples: int) -> npt.NDArray[np.float32]:
    require_file(path, "sound file", error=DataError, hint=_PREPARE_HINT)
    try:
        with soundfile.SoundFile(path) as file:
            if file.samplerate != rate:
                raise _wrong_rate(path, file.samplerate, rate)
            # Past the end there is nothing to seek to, and nothing to read.
            file.seek(min(start, file.frames))
            samples = file.read(num_samples, dtype="float32", always_2d=True).mean(axis=1)
    except soundfile.SoundFileError as error:
        raise DataError(f"{path} cannot be decoded: {error}", _PREPARE_HINT) from error
    return np.ascontiguousarray(samples, np.float32)


def _wrong_rate(path: str, rate: int, promised: int) -> DataError:
    return DataError(f"{path} has {rate} Hz, its manifest says {promised}", _PREPARE_HINT)


def _refuse_commands(cut: Cut) -> None:
    for track in cut.tracks if isinstance(cut, MixedCut) else [cut]:
        source_cut = track.cut if isinstance(track, MixTrack) else track
        recording = None if isinstance(source_cut, PaddingCut) else source_cut.recording
        if recording is not None and any(s.type == "command" for s in recording.sources):
            raise DataError(
                f"the sound of cut {cut.id} is the output of a command, which is not run",
                "write the sound to a file and name it in the manifest",
            )
