"""Is every planted defect found, and nothing else?"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut

from snowmelt.core.errors import DataError
from snowmelt.data.audit import DEFECTS, FATAL_DEFECTS, AuditLimits, audit
from snowmelt.data.audit.start import audit_at_start
from snowmelt.text.tokenizer import build_words
from tests.data.audit.planted import RATE, TEXTS, burst, corpus, cut, write

Corpus = dict[str, list[MonoCut]]


def _path(c: MonoCut) -> Path:
    return Path(c.recording.sources[0].source)


def _replace(cuts: Corpus, name: str, samples: np.ndarray, **changes: str) -> None:
    """Another sound, and another text or speaker, for a training utterance."""
    n = next(n for n, c in enumerate(cuts["train"]) if c.id == name)
    old = cuts["train"][n]
    write(_path(old), samples)
    supervision = old.supervisions[0]
    text = changes.get("text", supervision.text)
    speaker = changes.get("speaker", supervision.speaker)
    cuts["train"][n] = cut(name, _path(old), text, speaker, len(samples))


def _missing(cuts: Corpus) -> None:
    _path(cuts["train"][5]).unlink()


def _pointer(cuts: Corpus) -> None:
    _path(cuts["train"][5]).write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")


def _garbage(cuts: Corpus) -> None:
    _path(cuts["train"][5]).write_bytes(bytes(range(256)) * 40)


def _truncated(cuts: Corpus) -> None:
    path = _path(cuts["train"][5])
    path.write_bytes(path.read_bytes()[:5000])


def _not_numbers(cuts: Corpus) -> None:
    samples = burst(1, 1.0)
    samples[100] = np.nan
    soundfile.write(_path(cuts["train"][5]), samples, RATE, subtype="FLOAT")


def _other_rate(cuts: Corpus) -> None:
    write(_path(cuts["train"][5]), burst(1, 1.0), rate=8000)


def _other_length(cuts: Corpus) -> None:
    write(_path(cuts["train"][5]), burst(1, 1.0))


def _zeros(cuts: Corpus) -> None:
    _replace(cuts, "train-05", np.zeros(RATE, np.float32))


def _whisper(cuts: Corpus) -> None:
    _replace(cuts, "train-05", 0.01 * burst(500, 1.3))


def _clipped(cuts: Corpus) -> None:
    _replace(cuts, "train-05", np.clip(20 * burst(500, 1.0), -1.0, 1.0))


def _clipped_and_quiet(cuts: Corpus) -> None:
    _replace(cuts, "train-05", 0.2 * np.clip(20 * burst(500, 1.0), -1.0, 1.0))


def _copied(cuts: Corpus) -> None:
    _replace(cuts, "train-05", soundfile.read(_path(cuts["train"][1]), dtype="float32")[0])


def _copied_louder(cuts: Corpus) -> None:
    _replace(cuts, "train-05", 0.6 * soundfile.read(_path(cuts["train"][1]), dtype="float32")[0])


def _leaked(cuts: Corpus) -> None:
    samples = soundfile.read(_path(cuts["test"][1]), dtype="float32")[0]
    _replace(cuts, "train-05", samples, text=TEXTS[1])


def _long(cuts: Corpus) -> None:
    _replace(cuts, "train-05", burst(500, 21.0), text=" ".join(TEXTS * 4))


def _short(cuts: Corpus) -> None:
    _replace(cuts, "train-05", burst(500, 0.2), text="A")


def _few_frames(cuts: Corpus) -> None:
    _replace(cuts, "train-05", burst(500, 0.35), text="I I I I I I I I")


def _silent_text(cuts: Corpus) -> None:
    cuts["train"][5].supervisions[0].text = "  "


def _accent(cuts: Corpus) -> None:
    cuts["train"][5].supervisions[0].text = "FOUR FIVÉ"


def _digit(cuts: Corpus) -> None:
    cuts["dev"][5].supervisions[0].text = "4 FIVE TEN"


def _few_words(cuts: Corpus) -> None:
    _replace(cuts, "train-05", burst(500, 15.0), text="FOUR FIVE")


def _many_words(cuts: Corpus) -> None:
    _replace(cuts, "train-05", burst(500, 1.0), text=" ".join(TEXTS))


def _known_speaker(cuts: Corpus) -> None:
    cuts["test"][5].supervisions[0].speaker = "train-1"


@pytest.mark.parametrize(
    ("plant", "defect", "name"),
    [
        (_missing, "missing", "train-05"),
        (_pointer, "lfs-pointer", "train-05"),
        (_garbage, "unreadable", "train-05"),
        (_truncated, "unreadable", "train-05"),
        (_not_numbers, "unreadable", "train-05"),
        (_other_rate, "wrong-rate", "train-05"),
        (_other_length, "unreadable", "train-05"),
        (_zeros, "silent", "train-05"),
        (_whisper, "silent", "train-05"),
        (_clipped, "clipped", "train-05"),
        (_clipped_and_quiet, "clipped", "train-05"),
        (_copied, "duplicate", "train-05"),
        (_copied_louder, "duplicate", "train-05"),
        (_leaked, "duplicate-across-splits", "test-01"),
        (_long, "too-long", "train-05"),
        (_short, "too-short", "train-05"),
        (_few_frames, "too-few-frames", "train-05"),
        (_silent_text, "no-transcript", "train-05"),
        (_accent, "unknown-characters", "train-05"),
        (_digit, "unknown-characters", "dev-05"),
        (_few_words, "rate-outlier", "train-05"),
        (_many_words, "rate-outlier", "train-05"),
        (_known_speaker, "speaker-in-two-splits", "test-05"),
    ],
)
def test_a_planted_defect_is_found_and_nothing_else(
    tmp_path: Path, plant: Callable[[Corpus], None], defect: str, name: str
) -> None:
    cuts = corpus(tmp_path)
    plant(cuts)
    result = audit(cuts)
    assert [(f.defect, f.cut_id) for f in result.findings] == [(defect, name)]
    assert result.findings[0].detail
    assert result.is_fit == (defect not in FATAL_DEFECTS)


def _plant_all(cuts: Corpus) -> set[tuple[str, str]]:
    """Fourteen kinds of defects in one corpus, each in an utterance of its own."""
    train = [f"train-{n:02d}" for n in range(40)]
    _path(cuts["train"][20]).unlink()
    _path(cuts["train"][21]).write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")
    _path(cuts["train"][22]).write_bytes(bytes(range(256)) * 40)
    write(_path(cuts["train"][23]), burst(23, 1.0), rate=8000)
    _replace(cuts, train[24], np.zeros(RATE, np.float32))
    _replace(cuts, train[25], np.clip(20 * burst(525, 1.0), -1.0, 1.0))
    _replace(cuts, train[26], soundfile.read(_path(cuts["train"][1]), dtype="float32")[0])
    leaked = soundfile.read(_path(cuts["test"][1]), dtype="float32")[0]
    _replace(cuts, train[27], leaked, text=TEXTS[1])
    _replace(cuts, train[28], burst(528, 21.0), text=" ".join(TEXTS * 4))
    _replace(cuts, train[29], burst(529, 0.2), text="A")
    _replace(cuts, train[30], burst(530, 0.35), text="I I I I I I I I")
    cuts["train"][31].supervisions[0].text = "FOUR FIVÉ"
    _replace(cuts, train[32], burst(532, 15.0), text="FOUR FIVE")
    cuts["test"][5].supervisions[0].speaker = "train-1"
    kinds = ["missing", "lfs-pointer", "unreadable", "wrong-rate", "silent", "clipped", "duplicate"]
    more = ["too-long", "too-short", "too-few-frames", "unknown-characters", "rate-outlier"]
    return {
        *zip(kinds, train[20:27], strict=True),
        ("duplicate-across-splits", "test-01"),
        *zip(more, train[28:33], strict=True),
        ("speaker-in-two-splits", "test-05"),
    }


def test_all_defects_at_once_are_found_and_nothing_else(tmp_path: Path) -> None:
    cuts = corpus(tmp_path)
    planted = _plant_all(cuts)
    found = [(f.defect, f.cut_id) for f in audit(cuts).findings]
    assert len(found) == len(planted) == 14 and set(found) == planted
    # A training is refused for the same reasons.
    start = audit_at_start(
        "mine",
        cuts,
        memory=tmp_path / "heard.json",
        limits=AuditLimits(),
        tokenizer=build_words([*TEXTS, "A", "I"]),
    )
    assert {(f.defect, f.cut_id) for f in start.findings} == planted
    with pytest.raises(DataError, match=r"training must not start on mine: 1 missing, 1 lfs-poi"):
        start.require_fit()


def test_a_healthy_corpus_has_no_findings(tmp_path: Path) -> None:
    result = audit(corpus(tmp_path))
    assert result.findings == () and result.is_fit
    assert len(result.utterances) == 52


@pytest.mark.parametrize("name", ["N/A", "unknown", ""])
def test_an_unknown_speaker_is_nobody(tmp_path: Path, name: str) -> None:
    cuts = corpus(tmp_path)
    for one in [one for those in cuts.values() for one in those]:
        one.supervisions[0].speaker = name
    assert audit(cuts).findings == ()


def test_a_vocabulary_knows_its_words(tmp_path: Path) -> None:
    cuts = corpus(tmp_path)
    cuts["train"][5].supervisions[0].text = "FOUR FIVES"
    assert audit(cuts).findings == ()
    (finding,) = audit(cuts, tokenizer=build_words(TEXTS)).findings
    assert finding.defect == "unknown-characters" and finding.detail.endswith("FIVES")


def test_limits_move_the_bounds(tmp_path: Path) -> None:
    cuts = corpus(tmp_path)
    longest = max(c.duration for c in cuts["train"])
    found = audit(cuts, limits=AuditLimits(max_utterance_s=longest - 0.01)).findings
    assert found and {f.defect for f in found} == {"too-long"}
    # Nobody learns from the others: they may be twice as long.
    assert {f.split for f in found} == {"train"}
    assert {f.defect for f in audit(cuts, limits=AuditLimits(max_chars_per_s=8.0)).findings} == {
        "rate-outlier"
    }


def test_other_processes_find_the_same(tmp_path: Path) -> None:
    cuts = corpus(tmp_path)
    _copied(cuts)
    _clipped_name = cuts["train"][9].id
    _replace(cuts, _clipped_name, np.clip(20 * burst(500, 1.0), -1.0, 1.0))
    here = audit(cuts)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        there = audit(cuts, map_tasks=executor.map)
    assert there.findings == here.findings
    assert [f.defect for f in here.findings] == ["clipped", "duplicate"]


def test_every_fatal_defect_is_a_defect() -> None:
    assert set(DEFECTS) > FATAL_DEFECTS
