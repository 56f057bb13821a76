"""What was recognised in a test set, word by word with times, for people's own programs.

    ctm-<test set>-<suffix>.ctm        a line a word, sorted by utterance and time
    results-<test set>-<suffix>.json   one object: how the result came about, then a line an
                                       utterance with words, tokens, times and n-best list

Invariant: the files lie beside the original's and are named alike (`evaluate/report.py`); the same
result gives the same bytes.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snowmelt._version import __version__
from snowmelt.core.files import write_text
from snowmelt.evaluate.report import DecodingSettings, Score, result_dir, result_suffix
from snowmelt.evaluate.utterances import Hypothesis
from snowmelt.evaluate.word_times import WordTimes
from snowmelt.runtime.formats import ctm_lines, result_fields

__all__ = ["write_transcripts"]


def write_transcripts(
    rows: Sequence[Hypothesis],
    score: Score,
    settings: DecodingSettings,
    exp_dir: Path,
    *,
    about: Mapping[str, Any],
    times: WordTimes | None,
) -> None:
    """Write the CTM and the JSON file of a test set.

    Args:
        rows: sorted by id.
        score: of these rows.
        settings: what the files are named after.
        exp_dir: the experiment.
        about: what else the result depends on; values that JSON does not know are written as they
            print.
        times: how far the words' times are from the truth; None if that is not known.

    Raises:
        UserError: a file cannot be written.
    """
    folder = result_dir(exp_dir, settings)
    name = f"{score.test_set}-{result_suffix(settings)}"
    lines = [line for row in rows for line in ctm_lines(row.utterance.utterance_id, row.nbest[0])]
    write_text(folder / f"ctm-{name}.ctm", "".join(f"{line}\n" for line in lines))
    wer = score.stats.wer
    head = {
        "snowmelt": __version__,
        "test_set": score.test_set,
        "key": score.key,
        # JSON knows no infinity: errors, but no word that was said.
        "wer": round(wer, 4) if math.isfinite(wer) else None,
        "errors": dataclasses.asdict(score.stats),
        "word_times": None if times is None else _word_times(times),
        "settings": dataclasses.asdict(settings),
        **about,
    }
    parts = [f"{_json(key)}: {_json(value)}" for key, value in head.items()]
    utterances = ",\n".join(_json(_utterance(row)) for row in rows)
    text = "{" + ",\n".join([*parts, f'"utterances": [\n{utterances}\n]']) + "}\n"
    write_text(folder / f"results-{name}.json", text)


def _utterance(row: Hypothesis) -> dict[str, Any]:
    utterance = row.utterance
    best = row.nbest[0]
    return {
        "id": utterance.utterance_id,
        "speaker": utterance.speaker or None,
        "duration": round(utterance.duration_s, 6),
        "ref": utterance.words,
        "hyp": best.text.split(),
        **result_fields(best),
        "nbest": [result_fields(result) for result in row.nbest],
    }


def _word_times(times: WordTimes) -> dict[str, Any]:
    return {
        "num_words": times.num_words,
        "start": times.start._asdict(),
        "end": times.end._asdict(),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
