"""Kind wer.files: the three files that hold the results of a test set."""

import tempfile
from pathlib import Path
from typing import Any

from snowmelt.text.wer import save_results
from tests.parity.cases import Run

__all__ = ["KINDS"]


def _files(run: Run) -> dict[str, Any]:
    results = {
        setting: [(cut_id, ref.split(), hyp.split()) for cut_id, ref, hyp in utterances]
        for setting, utterances in run.inputs()["results"].items()
    }
    with tempfile.TemporaryDirectory() as directory:
        save_results(
            results,
            run.params["test_set"],
            run.params["suffix"],
            directory,
            icefall_compat=run.compat,
        )
        return {
            name: (Path(directory) / reference["file"]).read_text(encoding="utf-8")
            for name, reference in run.outputs.items()
        }


KINDS = {"wer.files": _files}
