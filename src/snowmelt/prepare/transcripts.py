"""Which utterances does a user's list name? Tables, JSON lines and Kaldi's data directories.

Invariant: reading a list opens no sound file and runs no command; every complaint names the line.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file

__all__ = ["Transcribed", "read_kaldi", "read_transcripts"]

# What columns are called, in the tables of many people.
_COLUMNS: Final = {
    "audio": (
        "path",
        "audio",
        "file",
        "wav",
        "filename",
        "file_name",
        "audio_filepath",
        "audio_file",
    ),
    "text": ("text", "transcript", "transcription", "sentence"),
    "speaker": ("speaker", "speaker_id", "spk", "client_id"),
    "start": ("start", "start_s", "begin", "offset"),
    "end": ("end", "end_s"),
    "duration": ("duration", "duration_s"),
    "split": ("split", "set", "subset"),
    "utterance_id": ("id", "utterance_id", "utt_id"),
}
# Without a line of names.
_ORDER: Final = ("audio", "text", "speaker", "start", "end")

_SPLITS: Final = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}

_TABLE_HINT: Final = "a line is: path, text, and if you like speaker, start, end (seconds)"


class Transcribed(NamedTuple):
    """An utterance as its list names it.

    Attributes:
        audio: its sound file, as it was written.
        text: its transcript, as it was written.
        where: file and line, for messages.
        speaker: who speaks; empty if nobody knows.
        start_s, end_s: its place in the file; end None is the file's end.
        split: train, dev or test; empty if the list does not say.
        utterance_id: empty if the list does not say.
    """

    audio: str
    text: str
    where: str
    speaker: str = ""
    start_s: float = 0.0
    end_s: float | None = None
    split: str = ""
    utterance_id: str = ""


def read_transcripts(path: Path) -> list[Transcribed]:
    """Read a table (.tsv, .txt: tabs; .csv: commas) or JSON lines (.jsonl, .json).

    A table may begin with a line of names (path, text, speaker, start, end or duration, split, id,
    and what others call these); without one its columns are path, text, speaker, start, end.

    Raises:
        DataError: the file is missing, of another kind, or a line is wrong.
    """
    require_file(path, "the list of transcripts", error=DataError, hint="check the name")
    kind = path.suffix.lower()
    if kind not in (".tsv", ".txt", ".csv", ".jsonl", ".json"):
        raise DataError(
            f"{path}: a list ends in .tsv, .txt, .csv or .jsonl", "rename it after what it holds"
        )
    rows = _json_rows(path) if kind.startswith(".json") else _table_rows(path, kind)
    utterances = [_utterance(row, f"{path} line {number}") for number, row in rows]
    if not utterances:
        raise DataError(f"{path} names no utterance", _TABLE_HINT)
    return utterances


def read_kaldi(folder: Path) -> list[Transcribed]:
    """Read a Kaldi data directory: wav.scp, text, and if there are such utt2spk and segments.

    Raises:
        DataError: a file is missing, an entry has no partner, or a sound is the output of a
            command, which is not run.
    """
    recordings = dict(_kaldi_lines(folder / "wav.scp"))
    for recording, sound in recordings.items():
        if sound.endswith("|") or sound.startswith("|"):
            raise DataError(
                f"{folder / 'wav.scp'}: {recording} is the output of a command, which is not run",
                "write the sound to files and name these",
            )
    texts = dict(_kaldi_lines(folder / "text"))
    speakers = dict(_kaldi_lines(folder / "utt2spk")) if (folder / "utt2spk").exists() else {}
    places = _kaldi_places(folder, recordings)
    utterances = []
    for name, text in texts.items():
        where = f"{folder / 'text'}: {name}"
        if name not in places:
            raise DataError(f"{where} has no sound", "name it in wav.scp or segments")
        recording, start, end = places[name]
        if recording not in recordings:
            raise DataError(f"{where}: its recording {recording} is not in wav.scp")
        utterances.append(
            Transcribed(
                recordings[recording], text, where, speakers.get(name, ""), start, end, "", name
            )
        )
    if not utterances:
        raise DataError(f"{folder / 'text'} names no utterance")
    return utterances


def _kaldi_places(
    folder: Path, recordings: Mapping[str, str]
) -> dict[str, tuple[str, float, float | None]]:
    """Utterance -> recording, start, end."""
    path = folder / "segments"
    if not path.exists():
        return {name: (name, 0.0, None) for name in recordings}
    places: dict[str, tuple[str, float, float | None]] = {}
    for name, rest in _kaldi_lines(path):
        fields = rest.split()
        if len(fields) != 3:
            raise DataError(f"{path}: {name} needs a recording, a start and an end")
        where = f"{path}: {name}"
        end = _seconds(fields[2], "end", where)
        places[name] = (fields[0], _seconds(fields[1], "start", where), None if end < 0 else end)
    return places


def _kaldi_lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        if "\t" in name:
            name, _, rest = line.strip().partition("\t")
        if not rest.strip() and path.name != "text":
            raise DataError(f"{path} line {number} has one field, two are needed")
        yield name, rest.strip()


def _table_rows(path: Path, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if kind == ".csv":
        reader = csv.reader(_text(path).splitlines(keepends=True))
    else:
        reader = csv.reader(_text(path).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    names: tuple[str, ...] | None = None
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if names is None:
            found = [_column(cell) for cell in cells]
            if "audio" in found and "text" in found:
                names = tuple(found)
                continue
            names = _ORDER
        if len(cells) > len(names):
            raise DataError(
                f"{path} line {reader.line_num} has {len(cells)} columns, {len(names)} are known",
                _TABLE_HINT,
            )
        yield reader.line_num, dict(zip(names, cells, strict=False))


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path} line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number} is no JSON object")
        yield number, {_column(name): value for name, value in row.items()}


def _column(name: str) -> str:
    """Our name of a column; empty for one that is of no use here."""
    name = name.strip().lower().removeprefix("\ufeff")
    return next((ours for ours, theirs in _COLUMNS.items() if name in theirs), "")


def _utterance(row: Mapping[str, Any], where: str) -> Transcribed:
    audio = str(row.get("audio") or "").strip()
    if not audio:
        raise DataError(f"{where} names no sound file", _TABLE_HINT)
    if row.get("text") is None:
        raise DataError(f"{where} has no text", _TABLE_HINT)
    start = _seconds(row.get("start") or 0.0, "start", where)
    end = None
    if row.get("end") not in (None, ""):
        end = _seconds(row["end"], "end", where)
    elif row.get("duration") not in (None, ""):
        end = start + _seconds(row["duration"], "duration", where)
    if start < 0 or (end is not None and end <= start):
        raise DataError(f"{where} lasts from {start:g} to {end:g} s", "times are in seconds")
    split = str(row.get("split") or "").strip().lower()
    if split and split not in _SPLITS:
        raise DataError(f"{where}: there is no split {split!r}", "write train, dev or test")
    return Transcribed(
        audio,
        str(row["text"]),
        where,
        str(row.get("speaker") or "").strip(),
        start,
        end,
        _SPLITS.get(split, ""),
        str(row.get("utterance_id") or "").strip(),
    )


def _seconds(value: Any, what: str, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {what} {value!r} is no number of seconds")
    return number


def _text(path: Path) -> str:
    require_file(path, "the list", error=DataError, hint="check the name")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", "save it as UTF-8") from None
