"""GigaSpeech from its list of recordings to pieces with features."""

import json
import shutil
from pathlib import Path

import pytest

from snowmelt.core.errors import DataError
from snowmelt.data.corpora.gigaspeech import gigaspeech
from snowmelt.data.corpora.manifests import PartSelection
from snowmelt.data.cuts import cut_text
from snowmelt.data.features import FeatureReader
from snowmelt.prepare import gigaspeech as reading
from snowmelt.prepare.gigaspeech_plan import gigaspeech_steps
from snowmelt.prepare.pipeline import Pipeline
from snowmelt.prepare.places import Places
from tests.prepare import corpora


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    corpora.gigaspeech(Path("download"))
    return tmp_path


def _run(last: int = 6, subset: str = "XS", **options: bool) -> list[str]:
    places = Places(Path("data"), Path("download"))
    steps = gigaspeech_steps(places, [subset], **options)
    return Pipeline("gigaspeech", places.data, steps).run(0, last)


def test_from_the_list_to_pieces(here: Path) -> None:
    made = _run()
    assert made[:3] == ["XS: 63 segments", "DEV: 6 segments", "TEST: 3 segments"]
    assert "XS: 42 cuts, 0.006 h, 21 without speech left out" in made
    assert "XS: 2 pieces" in made
    corpus = gigaspeech(here / "data/fbank", PartSelection(train_parts=("XS",)))
    cuts = list(corpus.cuts("train"))
    assert [cut.id for cut in cuts[:3]] == [
        "POD1000000000_S0000000",
        "POD1000000000_S0000002",
        "POD1000000001_S0000000",
    ]
    assert [cut_text(cut) for cut in cuts[:2]] == ["AS THEY'RE LEAVING SHE SAID", "WHY"]
    assert [(cut.start, cut.duration) for cut in cuts[:2]] == [(0.25, 0.5), (1.75, 0.5)]
    assert cuts[0].supervisions[0].custom == {"origin": "giga"}
    assert len(cuts) == 42
    for split in ("train", "dev", "test"):
        for cut in corpus.cuts(split):
            stored = FeatureReader(is_stored=True).read(cut)
            assert abs(stored - FeatureReader().read(cut)).max() <= 2**-8
    pieces = sorted(Path("data/fbank/gigaspeech_XS_split_2000").glob("*XS.0*"))
    assert [len(corpora.items(piece)) for piece in pieces] == [38, 4]
    joined = corpora.items(Path("data/fbank/gigaspeech_cuts_XS.jsonl.gz"))
    assert [item["id"] for item in joined] == [cut.id for cut in cuts]


def test_a_second_run_does_nothing_and_a_lost_piece_is_made_again(here: Path) -> None:
    made = _run()
    before = corpora.content(Path("data"))
    assert _run() == made
    (piece, _) = sorted(Path("data/fbank/gigaspeech_XS_split_2000").glob("*XS.0*"))
    changed = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.npy")}
    piece.unlink()
    _run()
    assert corpora.content(Path("data")) == before
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.npy")} == changed


def test_without_stored_features(here: Path) -> None:
    _run(5, has_stored_features=False)
    corpus = gigaspeech(here / "data/fbank", PartSelection(train_parts=("XS",)))
    assert len(corpus.cuts("train")) == 42
    assert FeatureReader().read(corpus.cuts("dev")[0]).shape == (50, 80)


def test_the_list_is_read_in_small_blocks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_READ", 7)
    assert _run(1)[0] == "XS: 63 segments"


def test_mistakes_are_one_line(here: Path) -> None:
    metadata = Path("download/GigaSpeech/GigaSpeech.json")
    whole = metadata.read_text()
    with pytest.raises(DataError, match=r"has no segments of S .*another --subset"):
        _run(subset="S")
    broken = json.loads(whole)
    del broken["audios"][0]["segments"][1]["text_tn"]
    for content, message in (
        (whole[: len(whole) // 2], "GigaSpeech.json breaks off or is damaged"),
        ("{}", 'GigaSpeech.json has no list "audios"'),
        (json.dumps(broken), r"not understood at recording POD1000000000: KeyError\('text_tn'\)"),
    ):
        metadata.write_text(content)
        with pytest.raises(DataError, match=message):
            _run()
    metadata.write_text(whole)
    shutil.rmtree("download/GigaSpeech/audio")
    with pytest.raises(DataError, match=r"POD1000000000.opus is missing"):
        _run()
    shutil.rmtree("download/GigaSpeech")
    with pytest.raises(DataError, match=r"GigaSpeech.json does not exist .*password"):
        _run()
