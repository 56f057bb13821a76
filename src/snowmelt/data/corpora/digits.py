"""How do 3,000 single spoken digits become a corpus of digit strings?

The Free Spoken Digit Dataset (six speakers, 8 kHz). Its own rule gives recordings 0-4 to test; we
give 5-9 to dev and 10-49 to train. Dev and test are fixed strings, rendered to files. Training
strings are composed anew for each epoch; their cuts point into the single recordings.

Invariant: levels are the recordings' own, pauses are digital silence, word times are exact.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from lhotse import CutSet, MonoCut
from lhotse.cut import MixedCut, MixTrack, PaddingCut
from lhotse.supervision import AlignmentItem

from snowmelt.audio.resample import resample
from snowmelt.core.errors import DataError
from snowmelt.core.progress import progress_bar
from snowmelt.data.corpora.digit_strings import (
    DigitString,
    epoch_strings,
    fixed_strings,
    strings_table,
)
from snowmelt.data.corpora.folder import Archive, fill_folder, load_cuts, load_split
from snowmelt.data.corpora.wav import SAMPLE_RATE, to_int16, whole_file_cut, write_wav

__all__ = ["DigitsCorpus"]

# Changes whenever prepared files would differ, so that old folders are made anew.
_LAYOUT: Final = 1
_NUM_STRINGS: Final = {"dev": 150, "test": 200}
# A PaddingCut must name one; only lhotse's own mixing of features would look at it.
_PADDING_FEATURE: Final = -23.025851


class DigitsCorpus:
    """Digit strings of six speakers; see `snowmelt.data.corpora.Corpus`.

    Args:
        folder: where the corpus is, or will be, prepared.
        seed: seed of the training strings.
    """

    name: Final = "digits"
    varies_with_epoch: Final = True
    test_sets: Final = ("test",)
    # The data set's rule divides the recordings of each speaker.
    known_defects: Final = frozenset({"speaker-in-two-splits"})

    def __init__(self, folder: Path, *, seed: int = 42) -> None:
        self._folder = folder
        self._seed = seed
        self._train_recordings: dict[str, MonoCut] = {}

    def prepare(self, archive: Path | None = None) -> None:
        """Resample all recordings to 16 kHz and render the dev and test strings."""
        fill_folder(self._folder, self.name, archive, _LAYOUT, _build)

    def cuts(self, split: str, epoch: int = 0) -> CutSet:
        """Dev and test: 150 and 200 cuts. Train: about 480 strings, new ones in each epoch."""
        if split != "train":
            return load_split(self._folder, split)
        if not self._train_recordings:
            cuts = load_cuts(self._folder, "recordings_train.jsonl.gz")
            self._train_recordings = {cut.id: cut for cut in cuts}
        by_speaker = defaultdict(list)
        for cut in self._train_recordings.values():
            by_speaker[cut.supervisions[0].speaker].append(cut.id)
        strings = epoch_strings(by_speaker, self._seed, epoch)
        return CutSet.from_cuts(_mixed_cut(s, self._train_recordings) for s in strings)


def _build(archive: Archive, folder: Path) -> None:
    rows = archive.table("transcripts.tsv", ("file", "speaker", "text"))
    samples: dict[str, npt.NDArray[np.int16]] = {}
    texts: dict[str, str] = {}
    names: dict[str, dict[str, list[str]]] = {
        split: defaultdict(list) for split in ("train", "dev", "test")
    }
    with progress_bar("resampling digits", total=len(rows)) as progress:
        for row in rows:
            name = Path(row["file"]).stem
            recorded, rate = archive.audio(row["file"])
            samples[name] = to_int16(resample(recorded, rate, SAMPLE_RATE))
            texts[name] = row["text"]
            names[_split_of(name)][row["speaker"]].append(name)
            progress.advance()
    _write_recordings(folder, names["train"], samples, texts)
    for split, count in _NUM_STRINGS.items():
        strings = fixed_strings(names[split], split, count)
        (folder / f"digits-{split}-strings.tsv").write_text(strings_table(strings), "utf-8")
        _render(folder, split, strings, samples, texts)
    (folder / "LICENSE").write_bytes(archive.read("LICENSE"))


def _split_of(name: str) -> str:
    _, _, index = name.rpartition("_")
    if not index.isdecimal():
        raise DataError(
            f"the recording {name!r} is not called <digit>_<speaker>_<number>",
            "is it the right archive?",
        )
    return "test" if int(index) < 5 else "dev" if int(index) < 10 else "train"


def _write_recordings(
    folder: Path,
    names: Mapping[str, Sequence[str]],
    samples: Mapping[str, npt.NDArray[np.int16]],
    texts: Mapping[str, str],
) -> None:
    (folder / "recordings").mkdir()
    cuts = []
    for speaker, speaker_names in names.items():
        for name in speaker_names:
            file = f"recordings/{name}.wav"
            write_wav(folder / file, samples[name])
            num_samples = len(samples[name])
            word = AlignmentItem(texts[name], 0.0, num_samples / SAMPLE_RATE)
            cuts.append(whole_file_cut(name, file, num_samples, texts[name], speaker, [word]))
    CutSet.from_cuts(cuts).to_file(folder / "recordings_train.jsonl.gz")


def _render(
    folder: Path,
    split: str,
    strings: Sequence[DigitString],
    samples: Mapping[str, npt.NDArray[np.int16]],
    texts: Mapping[str, str],
) -> None:
    (folder / split).mkdir()
    cuts = []
    for string in strings:
        offsets, num_samples = _offsets(string, {n: len(samples[n]) for n in string.recordings})
        rendered = np.zeros(num_samples, np.int16)
        words = []
        for name, offset in zip(string.recordings, offsets, strict=True):
            length = len(samples[name])
            rendered[offset : offset + length] = samples[name]
            words.append(AlignmentItem(texts[name], offset / SAMPLE_RATE, length / SAMPLE_RATE))
        file = f"{split}/{string.id}.wav"
        write_wav(folder / file, rendered)
        text = " ".join(texts[name] for name in string.recordings)
        cuts.append(whole_file_cut(string.id, file, num_samples, text, string.speaker, words))
    CutSet.from_cuts(cuts).to_file(folder / f"cuts_{split}.jsonl.gz")


def _mixed_cut(string: DigitString, recordings: Mapping[str, MonoCut]) -> MixedCut:
    lengths = {name: recordings[name].recording.num_samples for name in string.recordings}
    offsets, num_samples = _offsets(string, lengths)
    silence = PaddingCut(
        id=f"{string.id}-silence",
        duration=num_samples / SAMPLE_RATE,
        sampling_rate=SAMPLE_RATE,
        feat_value=_PADDING_FEATURE,
        num_samples=num_samples,
    )
    tracks = [MixTrack(cut=silence)]
    for name, offset in zip(string.recordings, offsets, strict=True):
        tracks.append(MixTrack(cut=recordings[name], offset=offset / SAMPLE_RATE))
    return MixedCut(id=string.id, tracks=tracks)


def _offsets(string: DigitString, lengths: Mapping[str, int]) -> tuple[list[int], int]:
    """First sample of each recording in the string, and the number of samples in all."""
    offsets = []
    position = 0
    for pause, name in zip(string.pauses[:-1], string.recordings, strict=True):
        offsets.append(position + pause)
        position += pause + lengths[name]
    return offsets, position + string.pauses[-1]
