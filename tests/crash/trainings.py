"""What is trained in a crash test? Tiny models on a small part of the corpora that travel along.

Invariant: a training is a list of options of `snowmelt train`; all of them save every few batches.
"""

import csv
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lhotse import CutSet

from snowmelt.data.corpora import get_corpus
from tests.data.corpora.archives import write_tar

__all__ = ["BATCHES_BETWEEN_SAVES", "TRAININGS", "ZIPFORMER", "Training", "prepare_small_corpora"]

BATCHES_BETWEEN_SAVES: Final = 3

# More would only take longer to validate.
_NUM_DEV_UTTERANCES: Final = 24

# Saves, updates of the mean and validations are not in step: what happens between two saves has to
# survive too, and each may come with or without the others.
_SHORT: Final = (
    *("--num-epochs", "4", "--schedule-scale", "0.005"),
    *("--save-every-n", str(200 * BATCHES_BETWEEN_SAVES), "--average-period", "400"),
    *("--valid-interval", "1000"),
    # A line for every batch: it is by its log that a run is watched.
    *("--log-interval", "1", "--device", "cpu"),
)

ZIPFORMER: Final = (
    *("--num-encoder-layers", "1,1", "--feedforward-dims", "16,16", "--nhead", "2,2"),
    *("--encoder-dims", "16,16", "--attention-dims", "8,8", "--encoder-unmasked-dims", "12,12"),
    *("--zipformer-downsampling-factors", "1,2", "--cnn-module-kernels", "5,5"),
    *("--decoder-dim", "16", "--joiner-dim", "16"),
)

_LSTM: Final = (
    *("--num-encoder-layers", "2", "--encoder-dim", "32", "--rnn-hidden-size", "64"),
    *("--dim-feedforward", "64", "--decoder-dim", "16", "--joiner-dim", "16"),
)

# Masks, silence and readers draw random numbers too.
_DATA: Final = (
    *("--max-duration", "10", "--num-workers", "2", "--max-tail-s", "0.5"),
    *("--enable-spec-aug", "yes", "--spec-aug-time-warp-factor", "0"),
)


@dataclass(frozen=True)
class Training:
    """A training by name; `options` are words for `snowmelt train`, all but the folders."""

    name: str
    options: tuple[str, ...]
    world_size: int = 1

    def command(self, exp_dir: Path, data_dir: Path) -> tuple[str, ...]:
        """Words for `snowmelt`; they start the training and, repeated, go on with it."""
        return (
            *("train", "--exp-dir", str(exp_dir), "--data-dir", str(data_dir)),
            *("--resume", "auto", "--world-size", str(self.world_size), *_SHORT, *self.options),
        )


def _alone_and_together(name: str, options: tuple[str, ...]) -> list[Training]:
    return [Training(f"{name}, {n} process{'es' * (n > 1)}", options, n) for n in (1, 2)]


TRAININGS: Final = (
    *_alone_and_together("zipformer", ("--preset", "digits", *ZIPFORMER, *_DATA)),
    *_alone_and_together("lstm", ("--preset", "lstm-small", "--corpus", "digits", *_LSTM, *_DATA)),
    *_alone_and_together(
        "mix",
        (
            *("--preset", "digits", "--mix", "digits=0.5,an4=0.5", "--num-epochs", "3"),
            *(*ZIPFORMER, *_DATA),
        ),
    ),
)


def prepare_small_corpora(archives_dir: Path, data_dir: Path) -> None:
    """Prepare a minute of each corpus.

    Args:
        archives_dir: holds digits.tar and an4.tar.
        data_dir: folder for the prepared corpora.

    Raises:
        DataError: an archive cannot be used.
    """
    for name, is_chosen in _CHOICES.items():
        archive = data_dir / f"{name}.tar"
        write_tar(archive, _members(archives_dir / f"{name}.tar", name, is_chosen))
        get_corpus(name, data_dir / name).prepare(archive)
        dev = data_dir / name / "cuts_dev.jsonl.gz"
        cuts = list(CutSet.from_jsonl(dev))
        CutSet.from_cuts(cuts[:_NUM_DEV_UTTERANCES]).to_file(dev)


def _some_digits(number: int, row: dict[str, str]) -> bool:
    """Two speakers; of each digit one recording for test, one for dev, four for training."""
    index = int(Path(row["file"]).stem.rpartition("_")[2])
    return row["speaker"] in ("george", "jackson") and index in (0, 5, 10, 11, 12, 13)


def _some_commands(number: int, row: dict[str, str]) -> bool:
    """Of all speakers, and so of all splits, a few."""
    return number % 16 == 0


_CHOICES: Final[dict[str, Callable[[int, dict[str, str]], bool]]] = {
    "digits": _some_digits,
    "an4": _some_commands,
}


def _members(
    path: Path, corpus: str, is_chosen: Callable[[int, dict[str, str]], bool]
) -> dict[str, bytes]:
    """Content of an archive, sound and transcripts of the chosen recordings only."""
    table_name = f"{corpus}/transcripts.tsv"
    with tarfile.open(path) as tar:
        contents = {
            name: tar.extractfile(name).read()  # type: ignore[union-attr]
            for name in tar.getnames()
            if tar.getmember(name).isfile()
        }
    reader = csv.DictReader(
        io.StringIO(contents[table_name].decode()), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    rows = list(reader)
    kept = [row for number, row in enumerate(rows) if is_chosen(number, row)]
    for row in rows:
        if row not in kept:
            del contents[f"{corpus}/{row['file']}"]
    lines = ["\t".join(reader.fieldnames or ()), *("\t".join(row.values()) for row in kept)]
    return {**contents, table_name: ("\n".join(lines) + "\n").encode()}
