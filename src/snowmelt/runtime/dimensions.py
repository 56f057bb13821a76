"""Which dimensions does a loaded model have, and do the options that repeat them agree?

The original builds a model from options, so its commands repeat them for every checkpoint. Here the
weights say what they are, and what is repeated is compared with them.

Invariant: no model is built from these numbers. Names are the recipes' option names.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.presets.models import LstmConfig, ModelConfig, ZipformerConfig

__all__ = ["Dimensions", "check_dimensions", "dimensions_of", "onnx_dimensions"]

# A number, or one for each stack.
Dimensions = Mapping[str, int | tuple[int, ...] | str]

# What only training needs: any value recognises the same words.
_OF_TRAINING: Final = frozenset(
    {
        "aux_layer_period",
        "dropout",
        "encoder_unmasked_dims",
        "grad_norm_threshold",
        "layer_dropout",
        "short_chunk_size",
    }
)

_CONFIGS: Final = {"zipformer": ZipformerConfig, "lstm": LstmConfig}

# Option name -> key in the metadata of an encoder's ONNX file.
_ONNX_KEYS: Final = {
    "zipformer": {
        "num_encoder_layers": "num_encoder_layers",
        "encoder_dims": "encoder_dims",
        "attention_dims": "attention_dims",
        "cnn_module_kernels": "cnn_module_kernels",
        "decode_chunk_len": "decode_chunk_len",
    },
    "lstm": {
        "num_encoder_layers": "num_encoder_layers",
        "encoder_dim": "d_model",
        "rnn_hidden_size": "rnn_hidden_size",
        "decode_chunk_len": "decode_chunk_len",
    },
}


def dimensions_of(config: ModelConfig) -> Dimensions:
    """What a configuration says, without what only training needs; "encoder" is the family."""
    return {key: value for key, value in asdict(config).items() if key not in _OF_TRAINING}


def onnx_dimensions(metadata: Mapping[str, str], name: str = "the ONNX encoder") -> Dimensions:
    """What the metadata of an encoder's ONNX file says: by far not all.

    Args:
        metadata: of the file.
        name: what to call it in messages.

    Raises:
        CheckpointError: a value is no list of whole numbers.
    """
    family = metadata.get("model_type", "")
    found: dict[str, int | tuple[int, ...] | str] = {"encoder": family}
    for setting, key in _ONNX_KEYS.get(family, {}).items():
        if key in metadata:
            found[setting] = _numbers(key, metadata[key], name)
    if "left_context_len" in metadata and "decode_chunk_len" in found:
        left = _numbers("left_context_len", metadata["left_context_len"], name)
        # The first stack keeps the most; the front end halves the rate.
        longest = max(left) if isinstance(left, tuple) else left
        found["num_left_chunks"] = longest * 2 // int(metadata["decode_chunk_len"])
    return found


def check_dimensions(known: Dimensions, stated: Dimensions, name: str) -> list[str]:
    """Compare what was repeated with what a model is.

    Args:
        known: the model's; may leave out what its file does not tell.
        stated: what somebody said it has; one number may stand for all stacks.
        name: what to call the model in messages.

    Returns:
        names of what could not be compared.

    Raises:
        ConfigError: they differ; the message names the first.
    """
    family = str(known.get("encoder", ""))
    unknown = []
    for key, value in stated.items():
        option = "--" + key.replace("_", "-")
        if family in _CONFIGS and key not in {field.name for field in fields(_CONFIGS[family])}:
            raise ConfigError(
                f"{option} {_text(value)}: {name} is a model of type {family}, which has none",
                "leave it out: dimensions are read from the weights",
            )
        if key in _OF_TRAINING:
            continue
        if key not in known:
            unknown.append(option)
        elif not _agree(known[key], value):
            raise ConfigError(
                f"{option} {_text(value)}: {name} has {_text(known[key])}",
                "leave it out: dimensions are read from the weights",
            )
    return unknown


def _agree(known: Any, stated: Any) -> bool:
    if isinstance(known, tuple) and isinstance(stated, int):
        return all(number == stated for number in known)
    return bool(known == stated)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _numbers(key: str, text: str, name: str) -> int | tuple[int, ...]:
    try:
        numbers = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise CheckpointError(
            f"{name} says {key} is {text!r}, which are no whole numbers",
            "export the model again",
        ) from None
    return numbers if "," in text else numbers[0]
