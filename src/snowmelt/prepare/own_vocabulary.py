"""Which tokens does an own corpus have? Those that are asked for, made of its training transcripts.

    <data>/<name>/lang/{tokens.txt,tokenizer.yaml}      and bpe.model

Invariant: training takes this vocabulary by itself, and makes one of its own where there is none.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from snowmelt.prepare.manifests import read_manifest
from snowmelt.prepare.pipeline import Step
from snowmelt.text.tokenizer import (
    Tokenizer,
    build_chars,
    build_words,
    prepared_vocabulary,
    train_bpe,
)

__all__ = ["VocabularySettings", "vocabulary_step"]

_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "words": ("tokens.txt", "tokenizer.yaml"),
    "chars": ("tokens.txt", "tokenizer.yaml"),
    "bpe": ("bpe.model", "tokens.txt", "tokenizer.yaml"),
}


@dataclass(frozen=True)
class VocabularySettings:
    """What is made.

    Attributes:
        kind: pieces, characters or words.
        vocab_size, character_coverage, byte_fallback: of pieces; see `train_bpe`.
    """

    kind: Literal["bpe", "chars", "words"]
    vocab_size: int = 500
    character_coverage: float = 1.0
    byte_fallback: bool = False


def vocabulary_step(name: str, data_dir: Path, settings: VocabularySettings) -> Step:
    """Stage 3 of the preparation of an own corpus, after its cuts."""
    folder = prepared_vocabulary(data_dir, name)
    train = data_dir / name / f"{name}_cuts_train.jsonl.gz"
    return Step(
        stage=3,
        name="vocabulary",
        title="vocabulary",
        outputs=tuple(folder / file for file in _FILES[settings.kind]),
        make=partial(_write_vocabulary, train, folder, settings),
        settings=asdict(settings),
        needs=("cuts",),
    )


def _write_vocabulary(train: Path, folder: Path, settings: VocabularySettings) -> str:
    texts = [cut["supervisions"][0]["text"] for cut in read_manifest(train)]
    # Of another kind, it would be taken for a part of this one.
    (folder / "bpe.model").unlink(missing_ok=True)
    tokenizer = _tokenizer(texts, settings)
    tokenizer.save(folder)
    return f"vocabulary: {tokenizer.vocab_size} {settings.kind}"


def _tokenizer(texts: list[str], settings: VocabularySettings) -> Tokenizer:
    if settings.kind == "words":
        return build_words(texts)
    if settings.kind == "chars":
        return build_chars(texts)
    return train_bpe(
        texts,
        settings.vocab_size,
        character_coverage=settings.character_coverage,
        byte_fallback=settings.byte_fallback,
    )
