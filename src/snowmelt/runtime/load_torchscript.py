"""How do TorchScript files and a vocabulary become a model that can recognise?

Invariant: torch is imported when the function is called.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from snowmelt.core.errors import CheckpointError
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.model_files import ModelFiles
from snowmelt.runtime.stored import stored_features, stored_tail
from snowmelt.runtime.vocabulary import require_vocabulary, tokenizer_beside
from snowmelt.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["load_torchscript"]


def load_torchscript(
    path: Path | ModelFiles,
    *,
    decode_chunk_len: int | None,
    tokenizer: Tokenizer | None,
    device: "torch.device",
) -> SpeechModel:
    """A scripted model, or three traced files.

    Args:
        path: cpu_jit.pt, a traced encoder whose decoder and joiner lie beside it, or the three.
        decode_chunk_len: feature frames of 10 ms; None: as exported.
        tokenizer: the vocabulary; None: the one beside the files.
        device: where the encoder runs.

    Raises:
        UserError: a file is missing, is no such program, or does not fit the vocabulary.
    """
    from snowmelt.runtime.backends.torchscript import (
        ScriptModels,
        script_facts,
        scripted_backend,
        traced_backend,
    )

    if isinstance(path, Path) and path.name.startswith("encoder"):
        rest = path.name.removeprefix("encoder")
        path = ModelFiles(path, path.with_name(f"decoder{rest}"), path.with_name(f"joiner{rest}"))
    name = str(path)
    files = (path.encoder, path.decoder, path.joiner) if isinstance(path, ModelFiles) else (path,)
    tokenizer = tokenizer or tokenizer_beside(files[0])
    if isinstance(path, ModelFiles):
        backend = traced_backend(ScriptModels(*files), unk_id=tokenizer.unk_id, device=device)
        if decode_chunk_len not in (None, backend.decode_chunk_len):
            raise CheckpointError(
                f"{name} takes chunks of {backend.decode_chunk_len} frames, not of "
                f"{decode_chunk_len}",
                f"export it again with --decode-chunk-len {decode_chunk_len}",
            )
    else:
        backend = scripted_backend(
            path, unk_id=tokenizer.unk_id, decode_chunk_len=decode_chunk_len, device=device
        )
    if backend.vocab_size != tokenizer.vocab_size:
        raise CheckpointError(
            f"{name} has {backend.vocab_size} tokens, the vocabulary {tokenizer.vocab_size}",
            "take the tokens.txt that the model was trained with",
        )
    for file in files:
        require_vocabulary(tokenizer, script_facts(file).get("vocabulary_hash"), str(file))
    facts = script_facts(files[0])
    return SpeechModel(
        backend=backend,
        tokenizer=tokenizer,
        features=stored_features(facts, name),
        min_tail_s=stored_tail(facts, name),
        weights=name,
        dimensions=backend.dimensions,
    )
