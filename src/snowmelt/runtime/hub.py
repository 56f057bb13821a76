"""How does hf:owner/name become files on this machine? Through Hugging Face's own client and cache.

    hf:owner/name                      what a model needs, of the main branch
    hf:owner/name@revision             of a branch, a tag or a commit
    hf:owner/name/exp/cpu_jit.pt       one file, with the vocabulary of the repository

Invariant: only files that a model can be made of are fetched, and none of them is executed. What
was fetched once is found again without a network.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from snowmelt.core.errors import CheckpointError, MissingExtraError
from snowmelt.runtime.model_in import model_in

__all__ = ["local_path"]

_PREFIX: Final = "hf:"

_ADDRESS: Final = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[^/].*?))?/?"
)

# "*" stands for folders too.
_VOCABULARY: Final = ("*tokens.txt", "*tokenizer.yaml", "*bpe.model")
_MODELS: Final = (
    *("bundle.json", "SHA256SUMS", "model.safetensors", "*.snowmelt", "config.yaml"),
    *("encoder*.onnx", "decoder*.onnx", "joiner*.onnx", "pretrained*.pt", "exp/pretrained*.pt"),
)

# Large, and never what is meant where full precision is there.
_NOT_UNLESS_NAMED: Final = ("*.int8.onnx", "*.fp16.onnx")

_PARTS: Final = ("encoder", "decoder", "joiner")


class _Address(NamedTuple):
    repo: str
    revision: str | None
    file: str | None


def local_path(path: str | Path) -> Path:
    """Where a model lies on this machine; one in a repository is fetched, unless it is cached.

    Args:
        path: any path, returned as it is; or hf:owner/name, as above.

    Raises:
        CheckpointError: there is no such repository, revision or file, it holds no model, or it is
            neither cached nor can be reached.
        MissingExtraError: huggingface_hub is not installed.
    """
    text = str(path)
    if not text.startswith(_PREFIX):
        return Path(path)
    return _fetched(text)


# The answer cannot change while a program runs: asking again would only cost time.
@cache
def _fetched(text: str) -> Path:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise CheckpointError(
            f"{text} names no repository",
            "write hf:owner/name, hf:owner/name@revision or hf:owner/name/file",
        )
    address = _Address(match["repo"], match["revision"], match["file"])
    folder = _snapshot(address, text)
    if address.file is None:
        return model_in(folder)
    found = folder / address.file
    if not found.exists():
        raise CheckpointError(f"{text}: the repository has no {address.file}")
    return found


def _snapshot(address: _Address, text: str) -> Path:
    hub = _hub()
    errors = hub.errors
    named = _named(address.file) if address.file else ()
    try:
        folder = hub.snapshot_download(
            address.repo,
            revision=address.revision,
            allow_patterns=[*_VOCABULARY, *(named or _MODELS)],
            ignore_patterns=None if named else list(_NOT_UNLESS_NAMED),
        )
    except errors.GatedRepoError:
        raise CheckpointError(
            f"{text} is open to those only who were let in", "ask for access, then: hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(
            f"{text}: {address.repo} has no revision {address.revision}",
            "give a branch, a tag or a commit",
        ) from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"Hugging Face has no repository {address.repo}, or it is private",
            "look at its name; for a private one: hf auth login",
        ) from None
    except errors.LocalEntryNotFoundError:  # nothing of it, or not all
        raise CheckpointError(
            f"{text} is not in the cache of this machine, and Hugging Face cannot be reached",
            "run it once with a network and without HF_HUB_OFFLINE; what was fetched is kept",
        ) from None
    except errors.HFValidationError as error:
        raise CheckpointError(f"{text} names no repository: {error}") from None
    except Exception as error:  # of its HTTP client, of the file system
        raise CheckpointError(
            f"{text} cannot be fetched: {type(error).__name__}: {error}",
            "look at the network and the disk, then run it again: it goes on where it stopped",
        ) from error
    return Path(folder)


def _named(file: str) -> tuple[str, ...]:
    """A file, and those that belong to it; what lies in a folder."""
    folder, slash, name = file.rpartition("/")
    for part in _PARTS:
        if name.startswith(part):
            rest = name.removeprefix(part)
            return tuple(f"{folder}{slash}{other}{rest}" for other in _PARTS)
    return (file, f"{file}/*", f"{folder}{slash}config.yaml")


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise MissingExtraError(
            "models of Hugging Face need huggingface_hub", "pip install 'snowmelt[hf]'"
        ) from None
    return huggingface_hub
