"""Which utterances do somebody's lhotse manifests name?

Invariant: only files are taken: a sound that is the output of a command is refused.
"""

from collections.abc import Iterable
from pathlib import Path

from lhotse import CutSet, RecordingSet, SupervisionSet
from lhotse.cut import Cut, MonoCut

from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file
from snowmelt.prepare.transcripts import Transcribed

__all__ = ["read_cuts", "read_recordings"]


def read_cuts(path: Path) -> list[Transcribed]:
    """Supervisions of cuts, in order.

    Raises:
        DataError: the file is no manifest of cuts, or a cut is not a part of one sound file.
    """
    require_file(path, "the manifest", error=DataError, hint="check the name")
    try:
        cuts = CutSet.from_file(path).to_eager()
    except Exception as error:  # bytes from anywhere fail in lhotse in any way
        raise _no_manifest(path, "cuts", error) from error
    return _transcribed(cuts)


def read_recordings(recordings: Path, supervisions: Path) -> list[Transcribed]:
    """Supervisions of recordings, in order.

    Raises:
        DataError: as `read_cuts`.
    """
    for path in (recordings, supervisions):
        require_file(path, "the manifest", error=DataError, hint="check the name")
    try:
        cuts = CutSet.from_manifests(
            recordings=RecordingSet.from_file(recordings).to_eager(),
            supervisions=SupervisionSet.from_file(supervisions).to_eager(),
        ).to_eager()
    except Exception as error:  # as above
        raise _no_manifest(recordings, "recordings", error) from error
    return _transcribed(cuts)


def _no_manifest(path: Path, what: str, error: Exception) -> DataError:
    return DataError(f"{path} is no lhotse manifest of {what}: {error}", "check the name")


def _transcribed(cuts: Iterable[Cut]) -> list[Transcribed]:
    utterances = []
    for cut in cuts:
        if not isinstance(cut, MonoCut) or not cut.has_recording or not _is_file(cut):
            raise DataError(
                f"cut {cut.id} is not a part of one sound file",
                "give unmixed cuts of files; commands are not run",
            )
        for supervision in cut.supervisions:
            start = cut.start + max(supervision.start, 0.0)
            end = min(cut.start + supervision.end, cut.start + cut.duration)
            utterances.append(
                Transcribed(
                    str(cut.recording.sources[0].source),
                    supervision.text or "",
                    f"cut {cut.id}",
                    supervision.speaker or "",
                    start,
                    end,
                    "",
                    supervision.id,
                )
            )
    return utterances


def _is_file(cut: MonoCut) -> bool:
    recording = cut.recording
    return [source.type for source in recording.sources] == ["file"] and not recording.transforms
