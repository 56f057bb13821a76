"""LibriSpeech from folders to manifests, features and a vocabulary."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, RecordingSet, SupervisionSet

from snowmelt.audio.fbank import fbank
from snowmelt.core.errors import ConfigError, DataError
from snowmelt.data.corpora.librispeech import librispeech
from snowmelt.data.corpora.manifests import PartSelection, load_manifest
from snowmelt.data.cuts import has_speed_copies
from snowmelt.data.features import FeatureReader
from snowmelt.data.noise import load_noise
from snowmelt.prepare.pipeline import Pipeline
from snowmelt.prepare.places import Places
from snowmelt.prepare.plans import librispeech_parts, librispeech_steps
from snowmelt.text.tokenizer import load_tokenizer
from tests.prepare import corpora

_PARTS = ("train-clean-5", "dev-clean-2")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with downloads in it."""
    monkeypatch.chdir(tmp_path)
    corpora.librispeech(Path("download"), _PARTS)
    corpora.musan(Path("download"))
    return tmp_path


def _run(
    last: int = 5, first: int = 0, *, data: str = "data", force: bool = False, **options: Any
) -> list[str]:
    places = Places(Path(data), Path("download"))
    options = {"parts": _PARTS, "vocab_sizes": (20,), **options}
    return Pipeline("librispeech", places.data, librispeech_steps(places, **options)).run(
        first, last, force=force
    )


def test_manifests_are_lhotses(here: Path) -> None:
    made = _run(1)
    assert made[0].startswith("train-clean-5: 12 utterances, 0.00")
    folder = Path("data/manifests")
    recordings = RecordingSet.from_file(folder / "librispeech_recordings_dev-clean-2.jsonl.gz")
    texts = SupervisionSet.from_file(folder / "librispeech_supervisions_dev-clean-2.jsonl.gz")
    assert [r.id for r in recordings] == [t.recording_id for t in texts] == [t.id for t in texts]
    assert [r.id for r in recordings][:4] == [
        "110-0-0000",
        "110-0-0001",
        "110-0-0002",
        "110-1-0000",
    ]
    first = texts[0]
    line = Path("download/LibriSpeech/dev-clean-2/110/0/110-0.trans.txt").read_text()
    assert f"{first.id} {first.text}" == line.splitlines()[0]
    assert (first.speaker, first.language, first.channel) == ("110", "English", 0)
    sound = folder / recordings[0].sources[0].source
    assert len(soundfile.read(sound)[0]) == recordings[0].num_samples
    assert recordings[0].duration == first.duration == recordings[0].num_samples / 16000


def test_cuts_with_features(here: Path) -> None:
    _run()
    cuts = load_manifest(Path("data/fbank/librispeech_cuts_train-clean-5.jsonl.gz"))
    ids = [cut.id for cut in cuts]
    assert ids[12:24] == [f"{name}_sp0.9" for name in ids[:12]]
    assert ids[24:] == [f"{name}_sp1.1" for name in ids[:12]]
    assert has_speed_copies(cuts)
    for cut in cuts:
        stored = FeatureReader(is_stored=True).read(cut)
        computed = FeatureReader().read(cut)
        assert stored.shape == computed.shape == (cut.features.num_frames, 80)
        assert np.abs(stored - computed).max() <= 2**-8
    first = cuts[0]
    samples, _ = soundfile.read(first.recording.sources[0].source, dtype="float32")
    assert np.array_equal(FeatureReader().read(first), fbank(samples))
    assert [cut.num_samples for cut in cuts][12] == round(len(samples) / 0.9)
    dev = load_manifest(Path("data/fbank/librispeech_cuts_dev-clean-2.jsonl.gz"))
    assert len(dev) == 12 and not has_speed_copies(dev)
    # lhotse alone understands the rest.
    CutSet.from_file("data/fbank/librispeech_cuts_dev-clean-2.jsonl.gz").describe()
    noise = load_noise(Path("data/fbank"))
    assert [cut.id for cut in noise] == [
        "music-jamendo-0000-0",
        "music-jamendo-0000-1",
        "music-jamendo-0000-2",
        "noise-free-sound-0000-0",
    ]
    assert all(cut.has_features for cut in noise)


def test_the_folder_can_be_moved(here: Path) -> None:
    _run()
    (here / "elsewhere").mkdir()
    for name in ("data", "download"):
        shutil.move(here / name, here / "elsewhere" / name)
    selection = PartSelection(full_libri=False, mini_libri=True)
    corpus = librispeech(here / "elsewhere/data/fbank", selection)
    cut = corpus.cuts("dev")[0]
    stored = FeatureReader(is_stored=True).read(cut)
    assert np.abs(stored - FeatureReader().read(cut)).max() <= 2**-8


def test_without_stored_features(here: Path) -> None:
    _run(has_stored_features=False, perturb_speed=False)
    cuts = load_manifest(Path("data/fbank/librispeech_cuts_train-clean-5.jsonl.gz"))
    assert len(cuts) == 12 and not any(cut.has_features for cut in cuts)
    assert cuts[0].custom["num_frames"] == len(FeatureReader().read(cuts[0]))
    assert not list(Path("data/fbank").rglob("*.npy"))


def test_vocabulary_and_counts(here: Path) -> None:
    _run(vocab_sizes=(20, 24))
    for size in (20, 24):
        folder = Path(f"data/lang_bpe_{size}")
        tokenizer = load_tokenizer(folder)
        assert tokenizer.vocab_size == size
        model = folder / "bpe.model"
        assert model.read_bytes() == (folder / f"unigram_{size}.model").read_bytes()
        assert load_tokenizer(model).id_to_token == tokenizer.id_to_token
        vocab = [line.split("\t") for line in (folder / "bpe.vocab").read_text().splitlines()]
        assert [piece for piece, _ in vocab] == list(tokenizer.id_to_token)
        assert all(float(score) <= 0 for _, score in vocab)
        texts = (folder / "transcript_words.txt").read_text().splitlines()
        assert len(texts) == 12
        counts = corpora.items(folder / "counts.jsonl.gz")
        assert len(counts) == 3 * 12 + 12
        assert counts[0]["num_tokens"] == len(tokenizer.encode(texts[0]))
        cuts = corpora.items(Path("data/fbank/librispeech_cuts_train-clean-5.jsonl.gz"))
        assert counts[0]["id"] == cuts[0]["id"]
        assert counts[0]["num_frames"] == cuts[0]["features"]["num_frames"]


def test_a_second_run_touches_nothing(here: Path) -> None:
    made = _run()
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*") if path.is_file()}
    assert _run() == made
    after = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*") if path.is_file()}
    assert {p: t for p, t in after.items() if p.name != "lock"} == {
        p: t for p, t in before.items() if p.name != "lock"
    }


def test_the_same_bytes_from_two_runs_and_from_two_processes(here: Path) -> None:
    from snowmelt.prepare.workers import Workers

    _run(data="one")
    with Workers(2) as workers:
        places = Places(Path("two"), Path("download"), workers=workers)
        steps = librispeech_steps(places, _PARTS, vocab_sizes=(20,))
        Pipeline("librispeech", places.data, steps).run(0, 5)
    assert corpora.content(Path("one")) == corpora.content(Path("two"))


def test_new_files_are_noticed(here: Path) -> None:
    _run()
    folder = Path("download/LibriSpeech/dev-clean-2/110/0")
    corpora.write_sound(folder / "110-0-0003.wav", 8000)
    with (folder / "110-0.trans.txt").open("a") as file:
        file.write("110-0-0003 KALO MINE\n")
    assert any(words.startswith("dev-clean-2: 13 utterances") for words in _run())
    assert len(load_manifest(Path("data/fbank/librispeech_cuts_dev-clean-2.jsonl.gz"))) == 13
    assert len(corpora.items(Path("data/lang_bpe_20/counts.jsonl.gz"))) == 36 + 13


def test_all_training_parts_are_shuffled_into_one(here: Path) -> None:
    parts = ("train-clean-100", "train-clean-360", "train-other-500")
    corpora.librispeech(Path("download"), parts, utterances=1)
    _run(3, parts=parts, with_noise=False, perturb_speed=False)
    names = [
        item["id"]
        for part in parts
        for item in corpora.items(Path(f"data/fbank/librispeech_cuts_{part}.jsonl.gz"))
    ]
    shuffled = load_manifest(Path("data/fbank/librispeech_cuts_train-all-shuf.jsonl.gz"))
    ids = [cut.id for cut in shuffled]
    assert sorted(ids) == sorted(names) and ids != names
    assert FeatureReader(is_stored=True).read(shuffled[0]).shape[1] == 80
    before = corpora.content(Path("data"))
    _run(3, parts=parts, with_noise=False, perturb_speed=False, force=True)
    assert corpora.content(Path("data")) == before


def test_odd_files_are_named_and_left_out(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path("download/LibriSpeech/dev-clean-2/110/0")
    (folder / "110-0-0001.flac").unlink()
    corpora.write_sound(folder / "110-0-0009.flac", 8000)
    with caplog.at_level(logging.WARNING):
        made = _run(1)
    assert any(words.startswith("dev-clean-2: 11 utterances") for words in made)
    assert "110-0.trans.txt line 2: no sound file 110-0-0001.*" in caplog.text
    assert "110-0-0009.flac has no transcript" in caplog.text


def test_what_cannot_be_used_is_one_line(here: Path) -> None:
    folder = Path("download/LibriSpeech/dev-clean-2/110/0")
    transcript = folder / "110-0.trans.txt"
    good = transcript.read_text()
    for content, message in (
        ("110-0-0000\n", r"110-0\.trans\.txt line 1 \(110-0-0000\) has no words"),
        (good + "110-1-0000 KALO\n", "dev-clean-2 has utterance 110-1-0000 twice"),
    ):
        transcript.write_text(content)
        if "twice" in message:
            shutil.copy(folder.parent / "1/110-1-0000.flac", folder)
        with pytest.raises(DataError, match=message):
            _run(1)
    (folder / "110-1-0000.flac").unlink()
    transcript.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        _run(1)
    transcript.write_text(good)
    soundfile.write(folder / "110-0-0000.flac", np.zeros(800), 8000)
    with pytest.raises(DataError, match="110-0-0000.flac has 8000 Hz, LibriSpeech has 16000"):
        _run(1)
    shutil.rmtree("download/LibriSpeech/dev-clean-2/110")
    shutil.rmtree("download/LibriSpeech/dev-clean-2/111")
    with pytest.raises(DataError, match="holds no utterances .*<speaker>/<chapter>"):
        _run(1)


def test_names_of_parts() -> None:
    assert len(librispeech_parts()) == 7
    assert librispeech_parts(full_libri=False)[0] == "train-clean-100"
    assert len(librispeech_parts(full_libri=False)) == 5
    assert librispeech_parts(mini_libri=True) == _PARTS
    assert librispeech_parts(parts=["a", "b", "a"]) == ("a", "b")
    for name in ("../a", "", ".a"):
        with pytest.raises(ConfigError, match="is no name of a part"):
            librispeech_parts(parts=[name])
