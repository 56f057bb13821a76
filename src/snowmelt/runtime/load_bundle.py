"""How does a bundle become a model that can recognise?

Invariant: torch is imported only when its weights are really loaded.
"""

import dataclasses
from typing import TYPE_CHECKING

from snowmelt.core.errors import CheckpointError, UserError
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.backends.onnx import OnnxModels
from snowmelt.runtime.bundle import ONNX_FILES, SAFETENSORS_FILE, Bundle
from snowmelt.runtime.dimensions import dimensions_of
from snowmelt.runtime.load_onnx import checked_onnx
from snowmelt.runtime.stored import stored_features, stored_tail
from snowmelt.runtime.vocabulary import require_vocabulary
from snowmelt.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bundle_tensors", "load_bundle", "onnx_form", "torch_form"]


def load_bundle(
    bundle: Bundle,
    *,
    decode_chunk_len: int | None,
    tokenizer: Tokenizer | None,
    device: str,
    num_threads: int | None,
) -> SpeechModel:
    """The form of a bundle that serves best: ONNX where it can do what is asked for.

    Args:
        bundle: what to load.
        decode_chunk_len, device, num_threads: as `load_model`.
        tokenizer: a vocabulary that must be the bundle's own; None: not compared.

    Raises:
        UserError: no form can do it, or a file is damaged or does not fit.
    """
    facts = bundle.facts
    if tokenizer is not None:
        require_vocabulary(tokenizer, facts.vocabulary.hash, str(bundle.path))
    has_chunk_len = decode_chunk_len in (None, facts.model.decode_chunk_len)
    if "onnx" in facts.weights and has_chunk_len and device in ("auto", "cpu"):
        return onnx_form(bundle, num_threads=num_threads or 1)
    if "safetensors" not in facts.weights:
        what = f"device {device}" if has_chunk_len else f"chunks of {decode_chunk_len} frames"
        raise CheckpointError(
            f"{bundle.path} holds ONNX files only, which fix device (CPU) and chunk length "
            f"({facts.model.decode_chunk_len} frames): {what} is not possible with them",
            "export the bundle with --bundle-weights both",
        )
    return torch_form(
        bundle, decode_chunk_len=decode_chunk_len, device=device, num_threads=num_threads
    )


def onnx_form(bundle: Bundle, *, num_threads: int = 1) -> SpeechModel:
    """The ONNX files of a bundle.

    Raises:
        UserError: they are damaged, or are not what bundle.json says.
    """
    facts = bundle.facts
    name = f"{bundle.path} (ONNX)"
    try:
        backend = checked_onnx(
            OnnxModels(*map(bundle.read, ONNX_FILES)),
            bundle.tokenizer,
            "in it",
            name,
            decode_chunk_len=None,
            num_threads=num_threads,
        )
    except CheckpointError as error:
        where = "" if str(bundle.path) in error.message else f"{bundle.path}: "
        raise CheckpointError(f"{where}{error.message}", error.hint) from None
    claims = {
        "model.encoder": (facts.model.encoder, backend.metadata.get("model_type")),
        "model.decode_chunk_len": (facts.model.decode_chunk_len, backend.decode_chunk_len),
        "model.feature_dim": (facts.model.feature_dim, backend.num_features),
        "features.sample_rate": (
            facts.features.sample_rate,
            stored_features(backend.metadata, name).sample_rate,
        ),
        "min_tail_s": (facts.min_tail_s, stored_tail(backend.metadata, name)),
        "model.context_size": (facts.model.context_size, backend.scorer.context_size),
    }
    for key, (claimed, true) in claims.items():
        if claimed != true:
            raise CheckpointError(
                f"{bundle.path}: bundle.json says {key} is {claimed}, the ONNX files {true}",
                "export it again with snowmelt export --bundle",
            )
    return SpeechModel(
        backend=backend,
        tokenizer=bundle.tokenizer,
        features=facts.features,
        min_tail_s=facts.min_tail_s,
        weights=name,
        head=facts.head,
        search=facts.search,
        dimensions=dimensions_of(facts.model),
    )


def torch_form(
    bundle: Bundle,
    *,
    decode_chunk_len: int | None = None,
    device: str = "auto",
    num_threads: int | None = None,
) -> SpeechModel:
    """The weights of a bundle in torch; arguments as `load_bundle`.

    Raises:
        UserError: they are damaged, or do not fit the model that bundle.json describes.
    """
    import torch

    from snowmelt.models.device import pick_device
    from snowmelt.runtime.backends.torch_eager import TorchBackend
    from snowmelt.runtime.filled import filled_transducer

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    facts = bundle.facts
    name = f"{bundle.path} (safetensors)"
    config = facts.model
    if decode_chunk_len is not None:
        config = dataclasses.replace(config, decode_chunk_len=decode_chunk_len)
    model = filled_transducer(
        bundle_tensors(bundle), config, vocab_size=facts.vocabulary.size, name=name
    )
    backend = TorchBackend(
        model, config, unk_id=bundle.tokenizer.unk_id, device=pick_device(device)
    )
    return SpeechModel(
        backend=backend,
        tokenizer=bundle.tokenizer,
        features=facts.features,
        min_tail_s=facts.min_tail_s,
        weights=name,
        head=facts.head,
        search=facts.search,
        dimensions=dimensions_of(config),
    )


def bundle_tensors(bundle: Bundle) -> "dict[str, Tensor]":
    """The state dict of a bundle, under the original's names.

    Raises:
        CheckpointError: the file is missing, damaged or no safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = bundle.read(SAFETENSORS_FILE)
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, UserError) as error:
        raise CheckpointError(
            f"{bundle.path}: {SAFETENSORS_FILE} is no safetensors file: {error}",
            "export it again with snowmelt export --bundle",
        ) from error
