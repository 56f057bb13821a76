"""A bundle of a small model of random weights, and how its files are changed."""

import json
from pathlib import Path
from typing import Any

from snowmelt.export.bundle import BundleOptions
from snowmelt.export.run import Forms, Source, export
from snowmelt.presets.models import ModelConfig
from snowmelt.runtime.bundle import DecodingDefaults
from snowmelt.runtime.bundle_store import FACTS_FILE, SUMS_FILE, sums_text
from snowmelt.runtime.load import WeightsChoice
from tests.runtime.tiny import make_experiment

CHOICE = WeightsChoice(epoch=2, avg=1)
BLANK_PENALTY = 0.25
_RESULT = "wer-summary-digits-test-epoch-2-avg-1{}-context-2-use-averaged-model.txt"


def bundled_experiment(folder: Path, model: ModelConfig) -> Path:
    """An experiment with two epochs, a record of its batches and a result."""
    exp_dir = make_experiment(folder, num_epochs=2, model=model)
    chunk = "-streaming-chunk-size-32" if model.encoder == "zipformer" else ""
    (exp_dir / "greedy_search").mkdir()
    result = exp_dir / "greedy_search" / _RESULT.format(chunk)
    result.write_text("settings\tWER\ngreedy_search\t12.5\n")
    (exp_dir / "tensorboard").mkdir()
    records = [{"kind": "train", "batch": n, "epoch": 1 + n // 2, "frames": 45_000} for n in (1, 2)]
    records.append({"kind": "train", "batch": 9, "epoch": 3, "frames": 45_000})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (exp_dir / "tensorboard" / "history.jsonl").write_text(lines)
    return exp_dir


def make_bundle(exp_dir: Path, path: Path, **options: Any) -> Path:
    """The bundle of CHOICE."""
    decoding = DecodingDefaults(blank_penalty=BLANK_PENALTY)
    wanted = BundleOptions(path, decoding=decoding, licence="CC0-1.0", **options)
    (written,) = export(Source(exp_dir, CHOICE), Forms(bundle=wanted))
    assert written.files == (path,)
    return path


def facts_of(folder: Path) -> dict[str, Any]:
    """What bundle.json says."""
    facts = json.loads((folder / FACTS_FILE).read_text())
    assert isinstance(facts, dict)
    return facts


def sum_up(folder: Path) -> None:
    """Write the sums of what is there now, as somebody does who has changed a file on purpose."""
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != SUMS_FILE}
    (folder / SUMS_FILE).write_text(sums_text(files))


def write_facts(folder: Path, facts: Any) -> None:
    """Replace bundle.json, sums included."""
    (folder / FACTS_FILE).write_text(json.dumps(facts))
    sum_up(folder)
