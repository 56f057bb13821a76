"""Own recordings become a corpus that can be opened, whatever form they come in."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, CutSet, MonoCut, Recording, SupervisionSegment

from snowmelt.core.errors import DataError
from snowmelt.data.corpora import open_corpus
from snowmelt.data.cuts import AudioCache, cut_text, load_samples
from snowmelt.prepare.lhotse_lists import read_cuts
from snowmelt.prepare.own import OwnCorpus, own_steps, split_speakers
from snowmelt.prepare.pipeline import Pipeline
from snowmelt.prepare.transcripts import Transcribed
from snowmelt.prepare.workers import Workers


def _write(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(path.stem))
    soundfile.write(path, 0.1 * random.normal(size=(round(seconds * rate), channels)), rate)


def _prepare(corpus: OwnCorpus, data_dir: Path) -> list[str]:
    steps = own_steps(corpus, data_dir, Workers(1))
    return Pipeline(corpus.name, data_dir, steps).run(1, 2)


def _utterances(folder: Path) -> list[Transcribed]:
    """Six speakers, one utterance each, one of them in stereo at 44.1 kHz, one a part of a file."""
    for n in range(4):
        _write(folder / f"u{n}.wav", 1.0)
    _write(folder / "deep" / "u4.flac", 1.0, rate=44_100, channels=2)
    _write(folder / "long.ogg", 3.0)
    listed = [Transcribed(f"u{n}.wav", f"text {n}.", f"line {n}", f"s{n}") for n in range(4)]
    listed.append(Transcribed("deep/u4.flac", "text 4.", "line 4", "s4"))
    listed.append(Transcribed("long.ogg", "text 5.", "line 5", "s5", 0.5, 1.5))
    return listed


def test_a_corpus_of_files_of_many_kinds(tmp_path: Path) -> None:
    corpus = OwnCorpus("mine", _utterances(tmp_path / "sounds"), tmp_path / "sounds", "upper")
    _prepare(corpus, tmp_path / "data")
    opened = open_corpus("mine", tmp_path / "data", tmp_path / "none")
    cuts = [cut for split in ("train", "dev", "test") for cut in opened.cuts(split)]
    assert sorted(cut_text(cut) for cut in cuts) == [f"TEXT {n}" for n in range(6)]
    assert {split: len(opened.cuts(split)) for split in ("train", "dev", "test")} == {
        "train": 4,
        "dev": 1,
        "test": 1,
    }
    for cut in cuts:
        assert len(load_samples(cut, AudioCache())) == 16_000
    speakers = [
        {s.speaker for c in opened.cuts(p) for s in c.supervisions} for p in ("train", "dev")
    ]
    assert not speakers[0] & speakers[1]
    # Only what is not as training reads it was copied.
    assert len(list((tmp_path / "data" / "mine" / "sound").iterdir())) == 1


def test_a_second_preparation_does_nothing(tmp_path: Path) -> None:
    corpus = OwnCorpus("mine", _utterances(tmp_path / "sounds"), tmp_path / "sounds")
    first = _prepare(corpus, tmp_path / "data")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "data" / "mine").rglob("*")}
    assert _prepare(corpus, tmp_path / "data") == first
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "data" / "mine").rglob("*")}


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    listed = _utterances(tmp_path)
    (tmp_path / "u1.wav").write_bytes(b"no sound")
    corpus = OwnCorpus("mine", listed, tmp_path)
    with pytest.raises(DataError, match=r"1 of 6 sound files cannot be used, .*u1\.wav"):
        _prepare(corpus, tmp_path / "data")
    forgiving = OwnCorpus("mine", listed, tmp_path, skip_bad=True)
    _prepare(forgiving, tmp_path / "data")
    opened = open_corpus("mine", tmp_path / "data", tmp_path)
    assert sum(len(opened.cuts(split)) for split in ("train", "dev", "test")) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": " . "}, "line 2 has an empty transcript"),
        ({"end_s": 1.5}, "line 2 ends behind its sound file, which has 1.00 s"),
        ({"start_s": 2.0}, "line 2 ends behind"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, change: dict[str, str | float], message: str
) -> None:
    listed = _utterances(tmp_path)
    listed[2] = listed[2]._replace(**change)
    with pytest.raises(DataError, match=message):
        _prepare(OwnCorpus("mine", listed, tmp_path, "lower"), tmp_path / "data")


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    for folder in "ab":
        _write(tmp_path / folder / "u.wav", 1.0)
    listed = [Transcribed(f"{f}/u.wav", "x", "", "", 0.0, None, "train") for f in "ab"]
    _prepare(OwnCorpus("mine", listed, tmp_path, dev_share=0.0, test_share=0.0), tmp_path / "data")
    manifest = tmp_path / "data" / "mine" / "mine_cuts_train.jsonl.gz"
    assert [cut.id for cut in CutSet.from_file(manifest)] == ["u", "u-2"]


def test_cuts_of_lhotse_are_taken_and_commands_are_not(tmp_path: Path) -> None:
    def _cut(source: AudioSource) -> MonoCut:
        recording = Recording("r", [source], 16_000, 32_000, 2.0)
        supervision = SupervisionSegment("u", "r", 0.25, 1.0, text="HELLO", speaker="ann")
        return MonoCut("c", 0.5, 1.5, 0, supervisions=[supervision], recording=recording)

    path = tmp_path / "cuts.jsonl.gz"
    CutSet.from_cuts([_cut(AudioSource("file", [0], "r.wav"))]).to_file(path)
    (utterance,) = read_cuts(path)
    assert utterance[:2] == ("r.wav", "HELLO")
    assert (utterance.start_s, utterance.end_s, utterance.utterance_id) == (0.75, 1.75, "u")
    CutSet.from_cuts([_cut(AudioSource("command", [0], "touch gotcha"))]).to_file(path)
    with pytest.raises(DataError, match="commands are not run"):
        read_cuts(path)


def test_shares_are_of_the_speech_and_of_whole_speakers() -> None:
    listed = [("", f"s{n % 20}", 1.0) for n in range(200)]
    splits = split_speakers(listed, dev_share=0.1, test_share=0.2)
    assert [splits.count(name) for name in ("train", "dev", "test")] == [140, 20, 40]
    of_speaker = {speaker: split for (_, speaker, _), split in zip(listed, splits, strict=True)}
    assert [of_speaker[speaker] for _, speaker, _ in listed] == splits
    # The order of the list does not matter.
    assert split_speakers(listed[::-1], dev_share=0.1, test_share=0.2) == splits[::-1]


def test_splits_of_the_list_are_kept() -> None:
    listed = [("train", "a", 1.0), ("dev", "a", 1.0), ("", "b", 1.0), ("", "c", 1.0)]
    splits = split_speakers(listed, dev_share=0.5, test_share=0.0)
    assert splits == ["train", "dev", "train", "train"]


def test_too_few_speakers() -> None:
    with pytest.raises(DataError, match="1 speakers or recordings are too few for 2 splits"):
        split_speakers([("", "a", 1.0)], dev_share=0.1, test_share=0.0)
