"""What was recognised in a test set, read back from its result files.

Invariant: a recogs file alone is enough, whoever wrote it; who spoke is known from our JSON only,
which is looked for beside it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file
from snowmelt.text.recogs import read_recogs
from snowmelt.text.wer import Result

__all__ = ["SetResult", "read_results"]


@dataclass(frozen=True)
class SetResult:
    """One result of a test set.

    Attributes:
        name: the file, for people.
        rows: utterance id, words said, words recognised; sorted by id.
        speakers: who spoke each utterance, by id; empty if that is not known of all.
    """

    name: str
    rows: list[Result]
    speakers: Mapping[str, str]


def read_results(path: Path) -> SetResult:
    """Read recogs-*.txt, ours or the original's, or results-*.json.

    Raises:
        DataError: it is neither, or holds no utterance.
    """
    if path.suffix == ".json":
        utterances = _utterances(path)
        rows: list[Result] = [(u["id"], u["ref"], u["hyp"]) for u in utterances]
        speakers = {u["id"]: u["speaker"] or "" for u in utterances}
        if len(speakers) < len(rows):
            raise DataError(f"{path} holds an utterance twice", "write the file again")
    else:
        rows = read_recogs(path)
        speakers = _speakers_beside(path)
    if not rows:
        raise DataError(f"{path} holds no utterance", "score a test set that has some")
    known = all(speakers.get(utterance_id) for utterance_id, _, _ in rows)
    return SetResult(str(path), sorted(rows, key=lambda row: row[0]), speakers if known else {})


def _speakers_beside(path: Path) -> dict[str, str]:
    name = path.with_suffix(".json").name
    beside = path.with_name(f"results-{name.removeprefix('recogs-')}")
    if not name.startswith("recogs-") or not beside.is_file():
        return {}
    try:
        return {u["id"]: u["speaker"] or "" for u in _utterances(beside)}
    except DataError:
        return {}  # another program's


def _utterances(path: Path) -> list[dict[str, Any]]:
    require_file(path, "the result", error=DataError)
    try:
        utterances: list[dict[str, Any]] = json.loads(path.read_bytes())["utterances"]
        for own in utterances:
            texts = [own["id"], own["speaker"] or "", *own["ref"], *own["hyp"]]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError
            if not isinstance(own["ref"], list) or not isinstance(own["hyp"], list):
                raise TypeError
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{path} holds no results of snowmelt decode", "give recogs-*.txt or results-*.json"
        ) from None
    return utterances
