"""What does GigaSpeech's folder hold? Long recordings, and segments of them with transcripts.

Read: GigaSpeech/GigaSpeech.json, of which one recording is in memory at a time, and the sound files
that it names. Segments become cuts of their own, called by their ids.

Invariant: every segment of a subset is either a cut or counted as dropped.

Source: icefall, egs/librispeech/ASR/local/preprocess_gigaspeech.py (how texts are cleaned).
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file
from snowmelt.core.progress import progress_bar
from snowmelt.prepare.manifests import ManifestWriter, portable_path, read_manifest

__all__ = [
    "METADATA",
    "clean_text",
    "write_pieces",
    "write_raw_cuts",
    "write_subset_manifests",
]

METADATA: Final = "GigaSpeech.json"
_GARBAGE: Final = ("<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>")
_PUNCTUATION: Final = re.compile("<(?:COMMA|PERIOD|QUESTIONMARK|EXCLAMATIONPOINT)>")
_BLANKS: Final = re.compile(r"\s{2,}")
_READ: Final = 1 << 20
_SAMPLE_RATE: Final = 16000


def clean_text(text: str) -> str | None:
    """A transcript without punctuation marks; None where a tag says that it is no speech.

    Example:
        >>> clean_text("AS THEY'RE LEAVING <COMMA> CAN KASH <QUESTIONMARK>")
        "AS THEY'RE LEAVING CAN KASH"
        >>> clean_text("<MUSIC>") is None
        True
    """
    if any(tag in text for tag in _GARBAGE):
        return None
    # The original leaves a blank where a mark ended the text; no tokenizer sees it.
    return _BLANKS.sub(" ", _PUNCTUATION.sub("", text)).strip()


def write_subset_manifests(corpus: Path, folder: Path, subset: str) -> str:
    """Manifests of recordings, transcripts and cuts of a subset.

    Args:
        corpus: the folder GigaSpeech.
        folder: where `gigaspeech_{recordings,supervisions,cuts}_<subset>.jsonl.gz` go.
        subset: one of XS, S, M, L, XL, DEV, TEST.

    Returns:
        Number of segments, in words.

    Raises:
        DataError: the list of recordings is damaged, or names something that is not there.
    """
    metadata = corpus / METADATA
    tag = f"{{{subset}}}"
    count = 0
    with (
        ManifestWriter(folder / f"gigaspeech_recordings_{subset}.jsonl.gz") as recordings,
        ManifestWriter(folder / f"gigaspeech_supervisions_{subset}.jsonl.gz") as supervisions,
        ManifestWriter(folder / f"gigaspeech_cuts_{subset}.jsonl.gz") as cuts,
        progress_bar(f"reading {METADATA} for {subset}") as progress,
    ):
        for audio in _audios(metadata):
            progress.advance()
            if tag not in audio.get("subsets", ()):
                continue
            try:
                recording = _recording(audio, corpus, folder)
                segments = [
                    _segment(item, audio) for item in audio["segments"] if tag in item["subsets"]
                ]
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(
                    f"{metadata} is not understood at recording {audio.get('aid', '?')}: {error!r}",
                    "version 1.0.0 of GigaSpeech is known",
                ) from error
            recordings.write(recording.to_dict())
            for supervision in segments:
                supervisions.write(supervision.to_dict())
                cuts.write(_cut(recording, supervision).to_dict())
            count += len(segments)
    if not count:
        raise DataError(f"{metadata} has no segments of {subset}", "name another --subset")
    return f"{subset}: {count} segments"


def write_raw_cuts(cuts: Path, raw: Path) -> str:
    """The cuts of a subset with clean transcripts, without those that are no speech.

    Returns:
        How many, in words.
    """
    kept = dropped = 0
    seconds = 0.0
    with ManifestWriter(raw) as writer:
        for item in read_manifest(cuts):
            supervision = item["supervisions"][0]
            text = clean_text(supervision["text"])
            if not text:
                dropped += 1
                continue
            supervision["text"] = text
            supervision["custom"] = {"origin": "giga"}
            writer.write(item)
            kept += 1
            seconds += item["duration"]
    name = raw.name.partition("_cuts_")[2].partition("_raw")[0]
    return f"{name}: {kept} cuts, {seconds / 3600:.3f} h, {dropped} without speech left out"


def write_pieces(raw: Path, folder: Path, subset: str, recordings_per_piece: int) -> int:
    """Split the cuts of a subset into pieces of some recordings each, numbered from 1.

    Returns:
        How many pieces, `gigaspeech_cuts_<subset>_raw.<number>.jsonl.gz`.
    """
    number = 0
    recordings = _by_recording(read_manifest(raw))
    while piece := list(islice(recordings, recordings_per_piece)):
        number += 1
        path = folder / f"gigaspeech_cuts_{subset}_raw.{number:08d}.jsonl.gz"
        with ManifestWriter(path) as writer:
            for cuts in piece:
                for cut in cuts:
                    writer.write(cut)
    return number


def _by_recording(cuts: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for cut in cuts:
        if group and cut["recording"]["id"] != group[0]["recording"]["id"]:
            yield group
            group = []
        group.append(cut)
    if group:
        yield group


def _audios(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of the list "audios", one at a time: the whole file takes tens of gigabytes."""
    require_file(
        path,
        "GigaSpeech's list of recordings",
        error=DataError,
        hint="GigaSpeech is had from its owners, with a password: put its folder into --dl-dir",
    )
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text = ""
        while '"audios"' not in text or "[" not in text[text.index('"audios"') :]:
            block = file.read(_READ)
            if not block:
                raise DataError(f'{path} has no list "audios"', "download it again")
            text += block
        text = text[text.index("[", text.index('"audios"')) + 1 :]
        while True:
            text = text.lstrip(" \t\r\n,")
            if text.startswith("]"):
                return
            try:
                audio, end = decoder.raw_decode(text)
            except ValueError:
                block = file.read(max(_READ, len(text)))
                if not block:
                    raise DataError(
                        f"{path} breaks off or is damaged after {file.tell()} bytes",
                        "download it again",
                    ) from None
                text += block
                continue
            text = text[end:]
            yield audio


def _recording(audio: dict[str, Any], corpus: Path, folder: Path) -> Recording:
    rate = int(audio["sample_rate"])
    if rate != _SAMPLE_RATE:
        raise ValueError(f"{rate} Hz")
    path = corpus / audio["path"]
    if not path.is_file():
        raise DataError(f"{path} is missing", f"{METADATA} names it; download it again")
    num_samples = round(float(audio["duration"]) * rate)
    return Recording(
        id=audio["aid"],
        sources=[AudioSource(type="file", channels=[0], source=portable_path(path, folder))],
        sampling_rate=rate,
        num_samples=num_samples,
        duration=num_samples / rate,
    )


def _segment(item: dict[str, Any], audio: dict[str, Any]) -> SupervisionSegment:
    start, end = float(item["begin_time"]), float(item["end_time"])
    return SupervisionSegment(
        id=item["sid"],
        recording_id=audio["aid"],
        start=start,
        duration=round(end - start, ndigits=8),
        channel=0,
        text=item["text_tn"],
        language="English",
        speaker=item["speaker"],
    )


def _cut(recording: Recording, supervision: SupervisionSegment) -> MonoCut:
    return MonoCut(
        id=supervision.id,
        start=supervision.start,
        duration=supervision.duration,
        channel=0,
        supervisions=[supervision.with_offset(-supervision.start)],
        recording=recording,
    )
