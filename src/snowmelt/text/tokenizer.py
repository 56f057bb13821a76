"""Which integers stand for a text, and which text for integers? BPE pieces, characters or words.

Invariant: ids 0, 1, 2 are `<blk>`, `<sos/eos>`, `<unk>` in every vocabulary, and a token that
begins with "▁" begins a word (a lone "▁" is the blank between words). So one rule decodes all
kinds, here and in foreign runtimes that read tokens.txt.

A tokenizer's folder holds `tokens.txt` ("token id" lines), `tokenizer.yaml` (its kind) and, for
BPE, `bpe.model`. A folder of icefall (`bpe.model`, `tokens.txt`) is read as it is. tokens.txt may
end with disambiguation symbols #0, #1, ...: they are no part of the vocabulary.

A BPE vocabulary may spell rare characters in bytes, tokens `<0x00>` to `<0xFF>`: those of one
character follow one another.
"""

import hashlib
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from snowmelt.core.config import dump_yaml, load_yaml
from snowmelt.core.errors import ConfigError, DataError
from snowmelt.core.files import require_file, write_bytes, write_text

if TYPE_CHECKING:
    import sentencepiece

__all__ = [
    "BpeTokenizer",
    "CharTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "build_chars",
    "build_words",
    "joined_tokens",
    "load_tokenizer",
    "load_tokens",
    "make_tokenizer",
    "prepared_vocabulary",
    "train_bpe",
    "vocabulary_hash",
]

_SPECIAL_TOKENS: Final = ("<blk>", "<sos/eos>", "<unk>")
_WORD_START: Final = "▁"  # U+2581, as sentencepiece writes it
_UNK_TEXT: Final = " ⁇ "  # as sentencepiece decodes it

_TOKENS_FILE: Final = "tokens.txt"
_MODEL_FILE: Final = "bpe.model"
_KIND_FILE: Final = "tokenizer.yaml"

# Not more digits than any vocabulary needs: Python refuses to read numbers of thousands.
_TOKEN_LINE: Final = re.compile(r"(\S+)[ \t]+([0-9]{1,9})\s*")
_DISAMBIGUATION: Final = re.compile(r"#\d+")
_NEWLINE: Final = re.compile(r"\r\n|\r|\n")
_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")

# What sentencepiece takes.
_MIN_COVERAGE: Final = 0.98

_LANG_FOLDER: Final = "lang"


class Tokenizer(Protocol):
    """What the rest of snowmelt needs of a vocabulary."""

    @property
    def kind(self) -> str:
        """ "bpe", "chars" or "words"."""

    @property
    def vocab_size(self) -> int:
        """V, the three special tokens included."""

    @property
    def blank_id(self) -> int:
        """Id of the transducer's blank."""

    @property
    def sos_eos_id(self) -> int:
        """Id of the sentence boundary; an ordinary token for the searches."""

    @property
    def unk_id(self) -> int:
        """Id of whatever the vocabulary cannot say."""

    @property
    def id_to_token(self) -> Sequence[str]:
        """The printed form of every id."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text; never blank, never the sentence boundary; "" gives []."""

    def decode(self, ids: Sequence[int]) -> str:
        """The words of ids, separated by single blanks."""

    def save(self, directory: str | Path) -> None:
        """Write the files that `load_tokenizer` reads."""


class _TokenTable(ABC):
    """What all kinds share: the table of tokens and the rule that joins them."""

    kind: ClassVar[str]
    blank_id: ClassVar[int] = 0
    sos_eos_id: ClassVar[int] = 1
    unk_id: ClassVar[int] = 2

    def __init__(self, tokens: Sequence[str]) -> None:
        _check_table(tokens)
        self.id_to_token = list(tokens)

    @property
    def vocab_size(self) -> int:
        """V, the three special tokens included."""
        return len(self.id_to_token)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The words of ids, separated by single blanks; `<unk>` reads "⁇".

        Raises:
            DataError: an id is not in the vocabulary.
        """
        pieces = []
        for token_id in ids:
            if not 0 <= token_id < self.vocab_size:
                raise DataError(
                    f"token id {token_id} is not in the vocabulary of {self.vocab_size} tokens",
                    "model and tokenizer belong to different vocabularies",
                )
            pieces.append(_UNK_TEXT if token_id == self.unk_id else self.id_to_token[token_id])
        return " ".join(_words(joined_tokens(pieces)))

    def save(self, directory: str | Path) -> None:
        """Write tokens.txt and tokenizer.yaml into `directory`, which is made if missing.

        Raises:
            UserError: a file cannot be written.
        """
        lines = [f"{token} {token_id}\n" for token_id, token in enumerate(self.id_to_token)]
        write_text(Path(directory) / _TOKENS_FILE, "".join(lines))
        write_text(Path(directory) / _KIND_FILE, dump_yaml({"kind": self.kind}))

    @cached_property
    def _token_to_id(self) -> dict[str, int]:
        return {token: token_id for token_id, token in enumerate(self.id_to_token)}


class BpeTokenizer(_TokenTable):
    """Pieces of a sentencepiece unigram model (which the field calls BPE).

    sentencepiece is loaded by the first `encode`; decoding does without.

    Args:
        tokens: the printed form of every id.
        model: the serialized sentencepiece model; None: the tokenizer can only decode.
    """

    kind = "bpe"

    def __init__(self, tokens: Sequence[str], model: bytes | None) -> None:
        super().__init__(tokens)
        self._model = model

    @classmethod
    def from_model(cls, model: bytes, name: str = "the BPE model") -> "BpeTokenizer":
        """The tokenizer of a serialized sentencepiece model.

        Args:
            model: its bytes.
            name: what to call it in messages.

        Raises:
            DataError: it is no sentencepiece model, or its first ids are other tokens.
        """
        processor = _processor(model, name)
        tokens = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        _check_table(tokens, f"the vocabulary in {name}")
        return cls(tokens, model)

    def encode(self, text: str) -> list[int]:
        """The ids of the best segmentation; a run of unknown characters gives one `<unk>`.

        Raises:
            DataError: the text spells `<blk>` or `<sos/eos>`, or there is no bpe.model.
        """
        ids: list[int] = self._encoder.encode(text, out_type=int)
        if self.blank_id in ids or self.sos_eos_id in ids:
            raise DataError(
                f"text {text!r} contains <blk> or <sos/eos>", "remove it: it is no spoken word"
            )
        return ids

    def save(self, directory: str | Path) -> None:
        """Write tokens.txt, tokenizer.yaml and, if there is a model, bpe.model.

        Raises:
            UserError: a file cannot be written.
        """
        if self._model is not None:
            write_bytes(Path(directory) / _MODEL_FILE, self._model)
        super().save(directory)

    @cached_property
    def _encoder(self) -> "sentencepiece.SentencePieceProcessor":
        if self._model is None:
            raise DataError(f"encoding text needs {_MODEL_FILE}", f"put it beside {_TOKENS_FILE}")
        processor = _processor(self._model)
        pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        if pieces != self.id_to_token:
            raise DataError(
                f"{_MODEL_FILE} ({len(pieces)} pieces) and {_TOKENS_FILE} "
                f"({self.vocab_size} tokens) are of different vocabularies",
                "take both from the same folder",
            )
        return processor


class CharTokenizer(_TokenTable):
    """Single characters; "▁" stands between words. An unknown character gives one `<unk>`."""

    kind = "chars"

    def encode(self, text: str) -> list[int]:
        """The ids of the characters, white space squeezed."""
        return [
            self._token_to_id.get(character, self.unk_id)
            for character in _WORD_START.join(_words(text))
        ]


class WordTokenizer(_TokenTable):
    """Whole words, for small closed vocabularies. An unknown word gives one `<unk>`."""

    kind = "words"

    def encode(self, text: str) -> list[int]:
        """The ids of the words."""
        return [self._token_to_id.get(_WORD_START + word, self.unk_id) for word in _words(text)]


def joined_tokens(tokens: Sequence[str]) -> str:
    """Printed forms in one string, bytes made characters; "▁" stays where a word begins.

    Bytes that make no character are left out: so a text that is still being spoken grows by whole
    characters.

    Example:
        >>> joined_tokens(["▁caf", "<0xC3>", "<0xA9>", "▁"])
        '▁café▁'
    """
    if not any(_BYTE.fullmatch(token) for token in tokens):
        return "".join(tokens)
    parts: list[str] = []
    spelled = bytearray()
    for token in [*tokens, ""]:
        match = _BYTE.fullmatch(token)
        if match is not None:
            spelled.append(int(match[1], 16))
            continue
        # Bytes are parts of words, whatever they spell.
        parts += spelled.decode("utf-8", errors="ignore").replace(_WORD_START, " ").split()
        parts.append(token)
        spelled.clear()
    return "".join(parts)


def prepared_vocabulary(data_dir: Path, corpus: str) -> Path:
    """The folder of the vocabulary that was prepared with a corpus; it need not be there."""
    return data_dir / corpus / _LANG_FOLDER


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    character_coverage: float = 1.0,
    byte_fallback: bool = False,
) -> BpeTokenizer:
    """Train a BPE vocabulary; the same texts in the same order give the same pieces.

    Args:
        texts: transcripts, one utterance each; empty ones are ignored.
        vocab_size: V, with the three special tokens, and with 256 more where bytes are tokens.
        character_coverage: share of the text's characters, 0.98 to 1, that the vocabulary has;
            the rarest are left to `<unk>` or bytes.
        byte_fallback: whether characters that the vocabulary lacks are spelled in bytes of UTF-8.

    Raises:
        DataError: no text, a text spells a special token, or the texts cannot fill (or do not
            fit into) a vocabulary of this size.
        ConfigError: there is no such coverage.

    Source: icefall, egs/librispeech/ASR/local/train_bpe_model.py.
    """
    import sentencepiece

    if not _MIN_COVERAGE <= character_coverage <= 1.0:
        raise ConfigError(
            f"a vocabulary cannot cover {character_coverage:g} of the characters",
            f"choose {_MIN_COVERAGE:g} to 1",
        )
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError("there is no text to train a BPE vocabulary on")
    for text in texts:
        if any(token in text for token in _SPECIAL_TOKENS):
            raise DataError(
                f"text {text!r} contains one of {', '.join(_SPECIAL_TOKENS)}",
                "remove it: it is no spoken word",
            )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            input_sentence_size=100_000_000,
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            user_defined_symbols=["<blk>", "<sos/eos>"],
            unk_id=2,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        # The trainer's message begins with a source line and a C++ condition in brackets, and may
        # end with advice about its own options.
        reason = str(error).rsplit("] ", maxsplit=1)[-1].partition(" Increase ")[0]
        raise DataError(
            f"no BPE vocabulary of {vocab_size} pieces can be trained on these "
            f"{len(texts)} texts: {reason}",
            "choose another vocabulary size" + (", 256 are bytes" if byte_fallback else ""),
        ) from None
    return BpeTokenizer.from_model(model.getvalue())


def build_chars(texts: Iterable[str]) -> CharTokenizer:
    """The vocabulary of all characters that occur, sorted."""
    characters = {character for text in texts for word in _words(text) for character in word}
    return CharTokenizer([*_SPECIAL_TOKENS, _WORD_START, *sorted(characters)])


def build_words(texts: Iterable[str]) -> WordTokenizer:
    """The vocabulary of all words that occur, sorted."""
    words = {word for text in texts for word in _words(text)}
    return WordTokenizer([*_SPECIAL_TOKENS, *(_WORD_START + word for word in sorted(words))])


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer.

    Args:
        path: a folder with tokens.txt or bpe.model; or one of these files. A .model file is
            read as a sentencepiece model, any other file as a table of tokens.

    Raises:
        DataError: a file is missing or malformed, or nothing says which kind it is.
    """
    path = Path(path)
    if path.suffix == ".model":
        require_file(path, "BPE model", error=DataError)
        return BpeTokenizer.from_model(path.read_bytes(), str(path))
    directory, tokens_path = (path, path / _TOKENS_FILE) if path.is_dir() else (path.parent, path)
    model_path = directory / _MODEL_FILE
    if path.is_dir() and model_path.exists() and not tokens_path.exists():
        return load_tokenizer(model_path)
    tokens = _read_tokens(tokens_path)
    kind_path = directory / _KIND_FILE
    kind = load_yaml(kind_path).get("kind") if kind_path.exists() else None
    if kind == "bpe" or (kind is None and model_path.exists()):
        has_model = model_path.exists()
        model = (
            require_file(model_path, "BPE model", error=DataError).read_bytes()
            if has_model
            else None
        )
        return BpeTokenizer(tokens, model)
    if kind is None:
        raise DataError(
            f"{tokens_path} alone does not say how text is cut into tokens",
            f"put {_MODEL_FILE} beside it, or {_KIND_FILE} with 'kind: chars', 'kind: words' or "
            "'kind: bpe'",
        )
    return _of_kind(kind, tokens, None, str(kind_path))


def make_tokenizer(kind: str, tokens: bytes, model: bytes | None, name: str) -> Tokenizer:
    """The tokenizer of files that were read already.

    Args:
        kind: "bpe", "chars" or "words".
        tokens: the content of a tokens.txt.
        model: the content of a bpe.model; None: there is none.
        name: what to call their place in messages.

    Raises:
        DataError: a file is malformed, or there is no such kind.
    """
    return _of_kind(kind, _parse_tokens(tokens, f"{_TOKENS_FILE} of {name}"), model, name)


def _of_kind(kind: object, tokens: Sequence[str], model: bytes | None, name: str) -> Tokenizer:
    if kind == "bpe":
        return BpeTokenizer(tokens, model)
    if kind == "chars":
        return CharTokenizer(tokens)
    if kind == "words":
        return WordTokenizer(tokens)
    raise DataError(f"{name} has kind {kind!r}", "kinds are bpe, chars and words")


def load_tokens(path: str | Path) -> Tokenizer:
    """Read a tokens.txt that comes alone, as models for other runtimes do: enough to print words.

    Args:
        path: the table of tokens.

    Raises:
        DataError: the file is missing or malformed.
    """
    return BpeTokenizer(_read_tokens(Path(path)), None)


def vocabulary_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 (hexadecimal) of all tokens in order: equal for equal vocabularies only."""
    return hashlib.sha256("\n".join(tokenizer.id_to_token).encode("utf-8")).hexdigest()


def _words(text: str) -> list[str]:
    # sentencepiece, too, takes a literal "▁" for a blank.
    return text.replace(_WORD_START, " ").split()


def _check_table(tokens: Sequence[str], name: str = "the vocabulary") -> None:
    if tuple(tokens[:3]) != _SPECIAL_TOKENS:
        raise DataError(
            f"{name} begins with {' '.join(tokens[:3]) or 'nothing'}",
            f"ids 0, 1, 2 must be {' '.join(_SPECIAL_TOKENS)}",
        )
    if len(set(tokens)) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if token in tokens[:i])
        raise DataError(f"{name} has token {twice!r} twice", "every token has one id")


def _read_tokens(path: Path) -> list[str]:
    hint = "copy it from where the model was trained"
    require_file(path, "token table", error=DataError, hint=hint)
    return _parse_tokens(path.read_bytes(), str(path))


def _parse_tokens(content: bytes, name: str) -> list[str]:
    """Tokens in the order of their ids, without disambiguation symbols."""
    tokens: dict[int, str] = {}
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{name} is not UTF-8 text", "pass tokens.txt or bpe.model") from None
    for number, line in enumerate(_NEWLINE.split(text), start=1):
        if not line.strip():
            continue
        match = _TOKEN_LINE.fullmatch(line)
        if match is None or int(match[2]) in tokens:
            raise DataError(
                f"{name} line {number} is {line[:40]!r}", "every line must be a token and a new id"
            )
        tokens[int(match[2])] = match[1]
    symbols = [tokens[token_id] for token_id in sorted(tokens)]
    while symbols and _DISAMBIGUATION.fullmatch(symbols[-1]):
        symbols.pop()
    if sorted(tokens)[: len(symbols)] != list(range(len(symbols))):
        raise DataError(f"{name} leaves out ids below {max(tokens)}", "ids must run 0, 1, 2, ...")
    _check_table(symbols, f"the vocabulary in {name}")
    return symbols


def _processor(model: bytes, name: str = _MODEL_FILE) -> "sentencepiece.SentencePieceProcessor":
    import sentencepiece

    if not model:
        raise DataError(f"{name} is empty", "copy it from where the model was trained")
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError:
        raise DataError(
            f"{name} is no sentencepiece model", "copy it from where the model was trained"
        ) from None
