"""The vocabulary of an own corpus is made as it was asked for, and of training transcripts only."""

from pathlib import Path

import pytest
from lhotse import MonoCut, SupervisionSegment

from snowmelt.core.errors import UserError
from snowmelt.prepare.manifests import write_manifest
from snowmelt.prepare.own_vocabulary import VocabularySettings, vocabulary_step
from snowmelt.prepare.pipeline import Pipeline, Step
from snowmelt.text.tokenizer import Tokenizer, load_tokenizer, prepared_vocabulary

TEXTS = ["γεια σου κόσμε", "καλημέρα κόσμε", "καλημέρα σου", "γεια"]


def _cuts_step(data: Path) -> Step:
    manifest = data / "mine" / "mine_cuts_train.jsonl.gz"

    def make() -> str:
        supervisions = [
            SupervisionSegment(str(n), "r", 0.0, 1.0, text=text) for n, text in enumerate(TEXTS)
        ]
        cuts = [MonoCut(s.id, 0.0, 1.0, 0, supervisions=[s]) for s in supervisions]
        write_manifest(manifest, [cut.to_dict() for cut in cuts])
        return "cuts"

    return Step(stage=2, name="cuts", title="cuts", outputs=(manifest,), make=make)


def _prepare(data: Path, settings: VocabularySettings) -> Tokenizer:
    steps = [_cuts_step(data), vocabulary_step("mine", data, settings)]
    Pipeline("mine", data, steps).run(1, 3)
    return load_tokenizer(prepared_vocabulary(data, "mine"))


@pytest.mark.parametrize(
    ("settings", "vocab_size"),
    [
        (VocabularySettings("words"), 3 + 4),
        (VocabularySettings("chars"), 3 + 1 + 14),
        (VocabularySettings("bpe", 20), 20),
        (VocabularySettings("bpe", 20 + 256, byte_fallback=True), 20 + 256),
    ],
)
def test_every_kind(tmp_path: Path, settings: VocabularySettings, vocab_size: int) -> None:
    tokenizer = _prepare(tmp_path, settings)
    assert tokenizer.kind == settings.kind and tokenizer.vocab_size == vocab_size
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    # Only bytes know what training does not have.
    is_known = tokenizer.decode(tokenizer.encode("γεια ЖЖ")) == "γεια ЖЖ"
    assert is_known == settings.byte_fallback


def test_another_kind_replaces_it(tmp_path: Path) -> None:
    _prepare(tmp_path, VocabularySettings("bpe", 20))
    assert _prepare(tmp_path, VocabularySettings("chars")).kind == "chars"
    folder = prepared_vocabulary(tmp_path, "mine")
    assert sorted(p.name for p in folder.iterdir()) == ["tokenizer.yaml", "tokens.txt"]


def test_a_vocabulary_that_cannot_be_made_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose another vocabulary size"):
        _prepare(tmp_path, VocabularySettings("bpe", 5000))
    assert not prepared_vocabulary(tmp_path, "mine").exists()
