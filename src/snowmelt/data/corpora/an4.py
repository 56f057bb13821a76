"""What is AN4? CMU's alphanumeric database: spelled names, numbers, dates, commands; 48 minutes.

948 training utterances of 74 speakers and 130 test utterances of 10 others, 16 kHz. The corpus
has no dev set: seven of the training speakers are kept apart for it.

Invariant: the official test set is complete and untouched; no speaker is in two splits.
"""

from collections import defaultdict
from pathlib import Path
from typing import Final

from lhotse import CutSet, MonoCut

from snowmelt.audio.resample import resample
from snowmelt.core.progress import progress_bar
from snowmelt.data.corpora.folder import Archive, fill_folder, load_split
from snowmelt.data.corpora.wav import SAMPLE_RATE, to_int16, whole_file_cut, write_wav

__all__ = ["An4Corpus"]

# Changes whenever prepared files would differ, so that old folders are made anew.
_LAYOUT: Final = 1
# 91 utterances, 3.8 minutes, women and men.
_DEV_SPEAKERS: Final = frozenset({"fjam", "fmjc", "mblw", "mdcs", "mewl", "mjhp", "msct"})


class An4Corpus:
    """CMU AN4; see `snowmelt.data.corpora.Corpus`.

    Args:
        folder: where the corpus is, or will be, prepared.
    """

    name: Final = "an4"
    varies_with_epoch: Final = False
    test_sets: Final = ("test",)
    known_defects: Final = frozenset[str]()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self, archive: Path | None = None) -> None:
        """Decode all utterances to 16-bit WAV and write the manifests of the three splits."""
        fill_folder(self._folder, self.name, archive, _LAYOUT, _build)

    def cuts(self, split: str, epoch: int = 0) -> CutSet:
        """857 cuts for train, 91 for dev, 130 for test, the same in every epoch."""
        return load_split(self._folder, split)


def _build(archive: Archive, folder: Path) -> None:
    rows = archive.table("transcripts.tsv", ("file", "split", "speaker", "text"))
    (folder / "wav").mkdir()
    cuts: dict[str, list[MonoCut]] = defaultdict(list)
    with progress_bar("decoding an4", total=len(rows)) as progress:
        for row in rows:
            recorded, rate = archive.audio(row["file"])
            samples = to_int16(resample(recorded, rate, SAMPLE_RATE))
            utterance = Path(row["file"]).stem
            file = f"wav/{utterance}.wav"
            write_wav(folder / file, samples)
            split = "dev" if row["speaker"] in _DEV_SPEAKERS else row["split"]
            cuts[split].append(
                whole_file_cut(utterance, file, len(samples), row["text"], row["speaker"])
            )
            progress.advance()
    for split in ("train", "dev", "test"):
        CutSet.from_cuts(cuts[split]).to_file(folder / f"cuts_{split}.jsonl.gz")
    for name in ("LICENSE", "an4.dic", "an4.phone"):
        (folder / name).write_bytes(archive.read(name))
