"""What is in a model's file or folder? Facts for people and programs, from any kind of it.

Invariant: facts are plain values (JSON); nothing of a file is executed, no weight is changed.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from snowmelt.core.config import to_dict
from snowmelt.core.errors import CheckpointError
from snowmelt.runtime.bundle import Bundle
from snowmelt.runtime.bundle_store import SUFFIX
from snowmelt.runtime.hub import local_path
from snowmelt.runtime.info_kinds import kind_of
from snowmelt.runtime.model_in import model_in
from snowmelt.text.tokenizer import Tokenizer, load_tokenizer, load_tokens, vocabulary_hash

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["describe"]

# What a checkpoint of either toolkit says of its training.
_POSITION: Final = (
    "cur_epoch",
    "batch_idx_train",
    "best_train_loss",
    "best_valid_loss",
    "best_train_epoch",
    "best_valid_epoch",
    "average_period",
)

# Settings that no weight's shape shows.
_UNTOLD: Final = (
    "decode_chunk_len",
    "num_left_chunks",
    "short_chunk_size",
    "encoder_unmasked_dims",
    "dropout",
    "layer_dropout",
    "grad_norm_threshold",
    "aux_layer_period",
)


def describe(path: str | Path) -> dict[str, Any]:
    """What a model's file or folder is, with whatever it says of itself.

    Args:
        path: a bundle, a checkpoint (ours, or icefall's), an experiment's folder, an ONNX file or a
            folder of them, a TorchScript file or a folder of them, tokens.txt, bpe.model or their
            folder; or hf:owner/name.

    Returns:
        nested dict and list of None, bool, int, float and str; "path" and "kind" are always there.

    Raises:
        UserError: it does not exist, cannot be read, or is nothing of the above.
    """
    path = local_path(path)
    if path.is_dir() and not _holds_it_itself(path):
        path = model_in(path)
    kind = kind_of(path)
    facts: dict[str, Any] = {"path": str(path), "kind": kind}
    if kind == "bundle":
        return facts | _bundle(path)
    if kind == "experiment":
        return facts | _experiment(path)
    if kind == "checkpoint":
        return facts | _checkpoint(path) | _vocabulary_beside(path)
    if kind == "onnx folder":
        files = sorted(path.glob("*.onnx"))
        return facts | {"files": [_onnx(file) for file in files]} | _vocabulary_beside(files[0])
    if kind == "onnx file":
        return facts | _onnx(path) | _vocabulary_beside(path)
    if kind == "torchscript folder":
        files = sorted({*path.glob("*_jit_trace.pt"), *path.glob("cpu_jit.pt")})
        return facts | {"files": [_script(file) for file in files]} | _vocabulary_beside(files[0])
    if kind == "torchscript file":
        return facts | _script(path) | _vocabulary_beside(path)
    if kind == "tokens":
        return facts | {"vocabulary": _vocabulary(load_tokens(path))}
    return facts | {"vocabulary": _vocabulary(load_tokenizer(path))}


def _holds_it_itself(folder: Path) -> bool:
    """Whether all that is in a folder is told, not only the model that would be loaded."""
    return folder in (model_in(folder), model_in(folder).parent) and not any(
        folder.glob(f"*{SUFFIX}")
    )


def _bundle(path: Path) -> dict[str, Any]:
    bundle = Bundle(path)
    return {
        "form": "folder" if path.is_dir() else "file",
        **to_dict(bundle.facts),
        "files": [_bundle_file(bundle, name) for name in bundle.store.names()],
    }


def _bundle_file(bundle: Bundle, name: str) -> dict[str, Any]:
    try:
        return {"file": name, "bytes": len(bundle.read(name)), "intact": True}
    except CheckpointError as error:
        return {"file": name, "intact": False, "remark": error.message}


def _experiment(path: Path) -> dict[str, Any]:
    from snowmelt.checkpoint.experiment import load_experiment, numbered_checkpoints

    epochs = numbered_checkpoints(path, "epoch")
    batches = numbered_checkpoints(path, "checkpoint")
    facts: dict[str, Any] = {}
    if (path / "config.yaml").exists():
        config, tokenizer = load_experiment(path)
        facts = {
            "snowmelt": config.version,
            "model": asdict(config.model),
            "corpora": [part.label for part in config.data.parts],
            "features": asdict(config.features),
            "min_tail_s": config.min_tail_s,
            "vocabulary": _vocabulary(tokenizer),
        }
    facts |= {"epochs": list(epochs), "checkpoints": list(batches)}
    exported = path / "pretrained.pt"
    newest = exported if exported.is_file() else next(reversed([*batches.values()]), None)
    newest = next(reversed([*epochs.values()]), newest)
    if newest is not None:
        facts["newest"] = {"path": str(newest), **_checkpoint(newest)}
    return facts


def _checkpoint(path: Path) -> dict[str, Any]:
    from snowmelt.checkpoint.files import load_checkpoint
    from snowmelt.checkpoint.heads import head_names
    from snowmelt.checkpoint.icefall import model_config_of, state_dict_of

    checkpoint = load_checkpoint(path)
    weights = state_dict_of(checkpoint, str(path))
    ours = checkpoint.get("snowmelt")
    facts: dict[str, Any] = {
        "written_by": "snowmelt" if isinstance(ours, Mapping) else "icefall or pretrained",
        "bytes": path.stat().st_size,
        "parameters": sum(w.numel() for w in weights.values() if w.is_floating_point()),
        "types": sorted({str(w.dtype).removeprefix("torch.") for w in weights.values()}),
        "finite": all(_is_finite(w) for w in weights.values()),
    }
    try:
        facts["model"] = _model(model_config_of(weights, str(path)), weights)
        facts["heads"] = ["main", *head_names(weights)]
    except CheckpointError as error:
        facts["model"] = None
        facts["remark"] = error.message
    position = {key: checkpoint[key] for key in _POSITION if _is_plain(checkpoint.get(key))}
    if position:
        facts["training"] = position
    others = sorted(str(key) for key in checkpoint if key not in (*_POSITION, "model"))
    if "model" in checkpoint and others:
        facts["holds"] = [key for key in others if isinstance(checkpoint[key], Mapping)]
    return facts


def _model(config: Any, weights: "Mapping[str, Tensor]") -> dict[str, Any]:
    """Only what shapes tell: chunk lengths and dropout are not in weights."""
    sizes = {key: value for key, value in asdict(config).items() if key not in _UNTOLD}
    return {**sizes, "vocab_size": len(weights["decoder.embedding.weight"])}


def _is_finite(weight: "Tensor") -> bool:
    return not weight.is_floating_point() or bool(weight.isfinite().all())


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


def _onnx(path: Path) -> dict[str, Any]:
    from snowmelt.core.files import require_file
    from snowmelt.runtime.backends.onnx import OnnxSession

    require_file(path, "model", error=CheckpointError)
    session = OnnxSession(path, "model")
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "metadata": dict(sorted(session.metadata.items())),
        "inputs": [f"{i.name} {i.type} {i.shape}" for i in session.inputs],
        "outputs": [f"{o.name} {o.type} {o.shape}" for o in session.outputs],
    }


def _script(path: Path) -> dict[str, Any]:
    from snowmelt.runtime.backends.torchscript import load_script, script_facts

    script = load_script(path, "TorchScript program")
    is_whole = all(hasattr(script, part) for part in ("encoder", "decoder", "joiner"))
    encoder = script.encoder if is_whole else script
    facts = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "form": "whole model" if is_whole else path.name.split("_")[0].split("-")[0],
        "parameters": sum(p.numel() for p in script.parameters()),
    }
    if hasattr(encoder, "get_init_states"):
        facts["encoder"] = "zipformer" if hasattr(encoder, "decode_chunk_size") else "lstm"
    facts |= script_facts(path)
    if hasattr(encoder, "decode_chunk_size"):
        facts["decode_chunk_len"] = 2 * int(encoder.decode_chunk_size)
    return facts


def _vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "kind": tokenizer.kind,
        "size": tokenizer.vocab_size,
        "hash": vocabulary_hash(tokenizer),
    }


def _vocabulary_beside(path: Path) -> dict[str, Any]:
    """The vocabulary that would be used with a model's file; None where there is none."""
    from snowmelt.core.errors import UserError
    from snowmelt.runtime.vocabulary import tokenizer_beside

    try:
        return {"vocabulary": _vocabulary(tokenizer_beside(path))}
    except UserError as error:
        return {"vocabulary": None, "vocabulary_remark": error.message}
