"""Where is the latency of a test set kept, and is what is kept still true?

`latency-<test set>-<suffix>.json` lies beside the other result files: the word errors, the figures
of `evaluate/latency.py`, the delay of every word, and a digest of all that the result depends on,
so that nothing has to be decoded twice.

Invariant: a file that is damaged or of other inputs is as good as none.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from snowmelt.core.files import write_text
from snowmelt.evaluate.latency import Latency, Spread, emission_delays
from snowmelt.evaluate.partials import PartialLog
from snowmelt.evaluate.report import DecodingSettings, Score, result_dir, result_suffix
from snowmelt.evaluate.utterances import Utterance
from snowmelt.text.wer import WerStats

__all__ = ["digest_of_inputs", "latency_path", "read_latency", "write_latency"]


def digest_of_inputs(values: Mapping[str, object], paths: Sequence[Path]) -> str:
    """A number for everything that a result depends on besides the test set.

    Args:
        values: settings, as they print.
        paths: files, which count by their content; folders count by the names, sizes and times of
            the files right inside.
    """
    digest = hashlib.sha256(repr(sorted((k, str(v)) for k, v in values.items())).encode())
    for path in paths:
        if path.is_dir():
            stats = [(p.name, p.stat()) for p in sorted(path.iterdir()) if p.is_file()]
            digest.update(repr([(n, s.st_size, s.st_mtime_ns) for n, s in stats]).encode())
        else:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def latency_path(exp_dir: Path, test_set: str, settings: DecodingSettings) -> Path:
    """The file of a test set; an LSTM's chunk is named too, since it changes the latency."""
    chunk = "" if settings.encoder == "zipformer" else f"chunk-size-{settings.decode_chunk_len}-"
    name = f"latency-{test_set}-{chunk}{result_suffix(settings)}.json"
    return result_dir(exp_dir, settings) / name


def write_latency(
    score: Score,
    utterances: Sequence[Utterance],
    log: PartialLog,
    *,
    settings: DecodingSettings,
    exp_dir: Path,
    inputs: str,
) -> None:
    """Keep the latency of a test set.

    Args:
        score: with its latency.
        utterances: the test set.
        log: what was shown of it.
        settings: what the file is named after.
        exp_dir: the experiment.
        inputs: of `digest_of_inputs`.

    Raises:
        UserError: the file cannot be written.
    """
    assert score.latency is not None
    content = {
        "test_set": score.test_set,
        "key": score.key,
        "decoding_method": settings.search.decoding_method,
        "decode_chunk_len": settings.decode_chunk_len,
        "wer": score.stats.wer,
        "errors": asdict(score.stats),
        "latency": {
            name: value._asdict() if isinstance(value, Spread) else value
            for name, value in vars(score.latency).items()
        },
        "inputs": _with_test_set(inputs, utterances),
        "utterances": [_details(utterance, log) for utterance in utterances],
    }
    text = json.dumps(content, ensure_ascii=False, indent=1)
    write_text(latency_path(exp_dir, score.test_set, settings), f"{text}\n")


def read_latency(
    test_set: str,
    utterances: Sequence[Utterance],
    *,
    settings: DecodingSettings,
    exp_dir: Path,
    inputs: str,
) -> Score | None:
    """What `write_latency` has kept of a test set; None if there is nothing for these inputs."""
    try:
        content = json.loads(latency_path(exp_dir, test_set, settings).read_text("utf-8"))
        if content["inputs"] != _with_test_set(inputs, utterances):
            return None
        latency: dict[str, Any] = {
            name: Spread(**value) if isinstance(value, dict) else value
            for name, value in content["latency"].items()
        }
        stats = WerStats(**content["errors"])
        return Score(test_set, content["key"], stats, Latency(**latency))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _with_test_set(inputs: str, utterances: Sequence[Utterance]) -> str:
    items = [(u.utterance_id, u.words, u.duration_s, u.timed_words) for u in utterances]
    return hashlib.sha256(f"{inputs} {items!r}".encode()).hexdigest()


def _details(utterance: Utterance, log: PartialLog) -> dict[str, Any]:
    shown = log.shown.get(utterance.utterance_id)
    if shown is None:
        return {"id": utterance.utterance_id}
    has_times = [word.word for word in utterance.timed_words] == utterance.words
    delays = emission_delays(utterance, shown) if has_times and shown.updates else []
    return {
        "id": utterance.utterance_id,
        "updates": [[round(update.heard_s, 6), update.text] for update in shown.updates],
        "final_s": round(shown.heard_s, 6),
        "delays_s": [round(delay, 6) for delay in delays],
    }
