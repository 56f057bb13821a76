"""Which vocabulary belongs to a model's file, and is it the one the file was made with?

Invariant: a file that carries the hash of its vocabulary never runs with another one.
"""

from pathlib import Path

from snowmelt.core.errors import CheckpointError, DataError
from snowmelt.text.tokenizer import Tokenizer, load_tokenizer, load_tokens, vocabulary_hash

__all__ = ["require_vocabulary", "tokenizer_beside"]


def tokenizer_beside(model: Path) -> Tokenizer:
    """The vocabulary of a model's file.

    It is that of the experiment the file lies in, or lies beside it; or, as in the repositories
    that icefall's models are published in, in data/lang_... beside the file's folder exp.

    Raises:
        DataError: there is none, or it is malformed.
    """
    folder = model.parent
    if (folder / "lang").is_dir():
        return load_tokenizer(folder / "lang")
    if not _has_vocabulary(folder):
        published = [f for f in folder.parent.glob("data/lang*") if _has_vocabulary(f)]
        if len(published) > 1:
            names = ", ".join(sorted(f.name for f in published))
            raise DataError(f"{folder.parent / 'data'} has several vocabularies: {names}")
        folder = published[0] if published else folder
    has_kind = any((folder / name).exists() for name in ("tokenizer.yaml", "bpe.model"))
    if not has_kind and (folder / "tokens.txt").exists():
        # Files made for other runtimes: enough to print words.
        return load_tokens(folder / "tokens.txt")
    return load_tokenizer(folder)


def require_vocabulary(tokenizer: Tokenizer, stored_hash: object, name: str) -> None:
    """Refuse a vocabulary that is not the one a file was made with.

    Args:
        tokenizer: what was found.
        stored_hash: what the file carries; nothing, or something empty: it is not checked.
        name: the file, for the message.

    Raises:
        CheckpointError: it is another one.
    """
    if stored_hash and stored_hash != vocabulary_hash(tokenizer):
        raise CheckpointError(
            f"the vocabulary for {name} has other tokens, or another order, than the one it was "
            "made with",
            "take the tokens.txt that the model was trained with",
        )


def _has_vocabulary(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("tokens.txt", "bpe.model"))
