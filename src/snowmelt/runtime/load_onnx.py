"""How do three ONNX files and a vocabulary become a model that can recognise?

Invariant: torch is never imported.
"""

from pathlib import Path

from snowmelt.core.errors import CheckpointError
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.backends.onnx import OnnxBackend, OnnxModels, find_onnx_files
from snowmelt.runtime.dimensions import onnx_dimensions
from snowmelt.runtime.model_files import ModelFiles
from snowmelt.runtime.stored import stored_features, stored_tail
from snowmelt.runtime.vocabulary import require_vocabulary, tokenizer_beside
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["checked_onnx", "load_onnx"]


def load_onnx(
    path: Path | ModelFiles,
    *,
    decode_chunk_len: int | None,
    tokenizer: Tokenizer | None,
    num_threads: int,
) -> SpeechModel:
    """A folder with three files and tokens.txt, the encoder among them, or the three.

    Args:
        path: the folder, the encoder's file, or all files.
        decode_chunk_len: what the files must take; None: whatever they do.
        tokenizer: the vocabulary; None: the one beside the files.
        num_threads: CPU threads of one calculation.

    Raises:
        UserError: a file is missing, cannot be loaded or does not fit the others.
    """
    if isinstance(path, ModelFiles):
        models = OnnxModels(path.encoder, path.decoder, path.joiner)
    else:
        models = find_onnx_files(path)
    assert isinstance(models.encoder, Path), models
    where = "given" if tokenizer else "beside it"
    tokenizer = tokenizer or tokenizer_beside(models.encoder)
    name = str(models.encoder)
    backend = checked_onnx(
        models, tokenizer, where, name, decode_chunk_len=decode_chunk_len, num_threads=num_threads
    )
    return SpeechModel(
        backend=backend,
        tokenizer=tokenizer,
        features=stored_features(backend.metadata, name, num_mel_bins=backend.num_features),
        min_tail_s=stored_tail(backend.metadata, name),
        weights=name,
        dimensions={
            **onnx_dimensions(backend.metadata, name),
            "context_size": backend.scorer.context_size,
            "joiner_dim": backend.joiner_dim,
        },
    )


def checked_onnx(
    models: OnnxModels,
    tokenizer: Tokenizer,
    where: str,
    name: str,
    *,
    decode_chunk_len: int | None,
    num_threads: int,
) -> OnnxBackend:
    """The backend of three files, if they fit the vocabulary and the chunk length asked for.

    Args:
        models: the files.
        tokenizer: the vocabulary.
        where: it is from, for messages.
        name: what to call them in messages.
        decode_chunk_len, num_threads: as `load_onnx`.

    Raises:
        CheckpointError: they do not fit.
    """
    backend = OnnxBackend(models, unk_id=tokenizer.unk_id, num_threads=num_threads)
    if decode_chunk_len not in (None, backend.decode_chunk_len):
        raise CheckpointError(
            f"{name} takes chunks of {backend.decode_chunk_len} frames, not of {decode_chunk_len}",
            f"export it again with --decode-chunk-len {decode_chunk_len}",
        )
    scorer = backend.scorer
    if scorer.vocab_size != tokenizer.vocab_size:
        decoder = models.decoder if isinstance(models.decoder, Path) else name
        raise CheckpointError(
            f"{decoder} has {scorer.vocab_size} tokens, the vocabulary {where} "
            f"{tokenizer.vocab_size}",
            "take the tokens.txt that the model was trained with",
        )
    require_vocabulary(tokenizer, scorer.vocabulary_hash, name)
    return backend
