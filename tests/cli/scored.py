"""An experiment trained on the noise corpus, for the commands that score."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from snowmelt.cli.main import main
from snowmelt.data import corpora
from snowmelt.presets.models import ModelConfig
from tests.evaluate.corpus import NoiseCorpus
from tests.runtime.tiny import TINY, make_experiment


def scored_experiment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: ModelConfig = TINY
) -> Iterator[Path]:
    """Two epochs with a head "giga"; the log file in the folder is let go of afterwards."""
    monkeypatch.setitem(corpora._ARCHIVE_CORPORA, "noise", lambda folder, seed: NoiseCorpus(folder))
    yield make_experiment(folder / "exp", num_epochs=2, corpus="noise", model=model, head="giga")
    root = logging.getLogger()
    for handler in [h for h in root.handlers if hasattr(h, "_snowmelt_handler")]:
        root.removeHandler(handler)
        handler.close()


def score(command: str, exp_dir: Path, *words: str) -> int:
    data_dir = str(exp_dir.parent / "data")
    options = ["--exp-dir", str(exp_dir), "--data-dir", data_dir, "--device", "cpu"]
    return main([command, *options, *words])


def recogs(exp_dir: Path, folder: str, test_set: str) -> str:
    (path,) = (exp_dir / folder).glob(f"recogs-{test_set}-*.txt")
    return path.read_text()
