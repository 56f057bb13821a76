"""What is in a bundle? One trained model that describes itself: no other file is asked for.

    bundle.json          configuration, features, decoding, training, licence: `BundleFacts`
    tokens.txt           the vocabulary; bpe.model, if it has one
    model.safetensors    the weights for torch
    encoder.onnx, decoder.onnx, joiner.onnx    the same for ONNX Runtime and sherpa-onnx
    SHA256SUMS           a sum of every other file, as sha256sum writes it

It is a folder, or one file <name>.snowmelt: a ZIP archive of the same files, stored as they are.

Invariant: every key of bundle.json is there; nothing is filled in for one that is missing. Torch is
never imported.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from snowmelt.audio.fbank import FbankConfig
from snowmelt.core.config import from_dict, to_dict
from snowmelt.core.errors import CheckpointError, ConfigError, UserError
from snowmelt.presets.models import ModelConfig
from snowmelt.runtime.bundle_store import FACTS_FILE, BundleStore
from snowmelt.search.methods import SearchOptions
from snowmelt.text.normalise import LetterCase
from snowmelt.text.tokenizer import Tokenizer, make_tokenizer, vocabulary_hash

__all__ = [
    "BPE_FILE",
    "FORMAT_VERSION",
    "ONNX_FILES",
    "SAFETENSORS_FILE",
    "TOKENS_FILE",
    "Averaging",
    "Bundle",
    "BundleFacts",
    "DecodingDefaults",
    "TestResult",
    "Training",
    "Vocabulary",
    "WeightsForm",
    "facts_text",
]

# Raised when an older program would misread a newer bundle.
FORMAT_VERSION: Final = 1

TOKENS_FILE: Final = "tokens.txt"
BPE_FILE: Final = "bpe.model"
SAFETENSORS_FILE: Final = "model.safetensors"
ONNX_FILES: Final = ("encoder.onnx", "decoder.onnx", "joiner.onnx")

WeightsForm = Literal["safetensors", "onnx"]

_EXPORT_AGAIN: Final = "export it again with snowmelt export --bundle"
_MAX_TAIL_S: Final = 10.0


@dataclass(frozen=True)
class Vocabulary:
    """The tokens: "bpe", "chars" or "words", how many, and `vocabulary_hash` of them."""

    kind: str
    size: int
    hash: str


@dataclass(frozen=True)
class DecodingDefaults:
    """What a search does where nothing else is asked for; names are the command line's."""

    decoding_method: Literal[
        "greedy_search", "beam_search", "modified_beam_search", "fast_beam_search"
    ] = "greedy_search"
    blank_penalty: float = 0.0


@dataclass(frozen=True)
class Averaging:
    """Which checkpoints the weights are the mean of; names are the command line's."""

    epoch: int | None
    iteration: int
    avg: int
    use_averaged_model: bool


@dataclass(frozen=True)
class TestResult:
    """A word error rate in percent, with the settings that its file's name tells."""

    test_set: str
    wer: float
    decoding_method: str
    settings: str


@dataclass(frozen=True)
class Training:
    """Where the weights come from; None and empty: not known.

    Attributes:
        corpora: learnt from, the main one first.
        hours: of sound that went through the model, all epochs together.
        epochs: how many there were.
        averaging: of which checkpoints.
        results: of these weights with this chunk length.
    """

    corpora: tuple[str, ...]
    hours: float | None
    epochs: int | None
    averaging: Averaging | None
    results: tuple[TestResult, ...]


@dataclass(frozen=True)
class BundleFacts:
    """The content of bundle.json.

    Attributes:
        format_version: of bundle.json and the names of the files.
        snowmelt: the version that wrote it.
        weights: forms that are there.
        model: family, sizes, chunk length and left context.
        features: how samples become features.
        min_tail_s: least seconds of zero samples after the last sample (see `audio.tail`).
        letter_case: of transcripts, as `text.normalise` takes it.
        head: whose decoder and joiner these are, of a training on several corpora.
        vocabulary: the tokens.
        decoding: the search, where nothing else is asked for.
        training: where the weights come from.
        licence: of the weights; None: not stated.

    Raises:
        ConfigError: the values contradict each other, or a newer snowmelt has written them.
    """

    format_version: int
    snowmelt: str
    weights: tuple[WeightsForm, ...]
    model: ModelConfig
    features: FbankConfig
    min_tail_s: float
    letter_case: LetterCase
    head: str
    vocabulary: Vocabulary
    decoding: DecodingDefaults
    training: Training
    licence: str | None

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"format_version is {self.format_version}, this program reads {FORMAT_VERSION}",
                "install a newer snowmelt"
                if self.format_version > FORMAT_VERSION
                else _EXPORT_AGAIN,
            )
        if not self.weights:
            raise ConfigError("weights names no form", _EXPORT_AGAIN)
        if self.model.feature_dim != self.features.num_mel_bins:
            raise ConfigError(
                f"the model takes {self.model.feature_dim} mel bins, features have "
                f"{self.features.num_mel_bins}",
                _EXPORT_AGAIN,
            )
        if not 0.0 <= self.min_tail_s <= _MAX_TAIL_S:
            raise ConfigError(
                f"min_tail_s is {self.min_tail_s}, it must be from 0 to {_MAX_TAIL_S:g}",
                _EXPORT_AGAIN,
            )

    @property
    def search(self) -> SearchOptions:
        """The search, where nothing else is asked for."""
        return SearchOptions(
            decoding_method=self.decoding.decoding_method,
            blank_penalty=self.decoding.blank_penalty,
        )


class Bundle:
    """A bundle whose description has been read and whose vocabulary is the one it names.

    Args:
        path: its folder, or its file.

    Raises:
        CheckpointError: a file is missing, damaged, or not what it should be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = BundleStore(path)
        self.facts = _parsed(self.store.read(FACTS_FILE), f"{path}: {FACTS_FILE}")
        self.tokenizer = self._tokenizer()

    def read(self, name: str) -> bytes:
        """The content of one of its files, its sum checked.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return self.store.read(name)

    def _tokenizer(self) -> Tokenizer:
        vocabulary = self.facts.vocabulary
        model = self.read(BPE_FILE) if BPE_FILE in self.store else None
        try:
            tokenizer = make_tokenizer(
                vocabulary.kind, self.read(TOKENS_FILE), model, str(self.path)
            )
        except UserError as error:
            raise CheckpointError(error.message, error.hint) from None
        if vocabulary_hash(tokenizer) != vocabulary.hash or tokenizer.vocab_size != vocabulary.size:
            raise CheckpointError(
                f"{self.path}: {TOKENS_FILE} holds other tokens, or another order, than "
                f"{FACTS_FILE} says",
                "restore the tokens.txt that the model was exported with",
            )
        return tokenizer


def facts_text(facts: BundleFacts) -> str:
    """The content of bundle.json."""
    return json.dumps(to_dict(facts), indent=2, ensure_ascii=False) + "\n"


def _parsed(content: bytes, name: str) -> BundleFacts:
    try:
        mapping = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise CheckpointError(f"{name} is no JSON", _EXPORT_AGAIN) from None
    if not isinstance(mapping, dict):
        raise CheckpointError(f"{name} must hold one object", _EXPORT_AGAIN)
    try:
        facts = from_dict(BundleFacts, mapping)
    except ConfigError as error:
        raise CheckpointError(f"{name}: {error.message}", error.hint or _EXPORT_AGAIN) from None
    missing = _missing(to_dict(facts), mapping)
    if missing:
        raise CheckpointError(f"{name}: setting '{missing}' is missing", _EXPORT_AGAIN)
    return facts


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _missing(expected: Mapping[str, Any], given: Mapping[str, Any], where: str = "") -> str:
    """The first key that has been left out, as a dotted name; empty if there is none."""
    for key, value in expected.items():
        if key not in given:
            return where + key
        if isinstance(value, Mapping):
            inner = _missing(value, given[key], f"{where}{key}.")
            if inner:
                return inner
    return ""
