"""How do weights from elsewhere (icefall's checkpoints, other state dicts) enter a model?

Our parameter names are icefall's, so this is a strict comparison, not a translation.

Invariant: a model is loaded whole or not at all; nothing is left at its initial value silently.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.checkpoint.heads import select_head
from snowmelt.core.errors import CheckpointError
from snowmelt.presets.models import LstmConfig, ModelConfig, ZipformerConfig

__all__ = ["load_icefall", "model_config_of", "state_dict_of"]

# Names of each sort that a message lists.
_NAMES_SHOWN: Final = 3

# Mel bins of both recipes; the front ends leave a fourth of them.
_FEATURE_DIM: Final = 80

# Size of a Zipformer head's positional query.
_POS_DIM: Final = 4

# DistributedDataParallel's wrapper.
_WRAPPER: Final = "module."


def load_icefall(
    source: str | Path | Mapping[str, Any],
    model: nn.Module,
    *,
    head: str | None = None,
    name: str = "the state dict",
) -> None:
    """Load weights into a model, strictly.

    Args:
        source: a checkpoint file, what `load_checkpoint` gave, or a state dict.
        model: keeps its types and devices; unchanged if an error is raised.
        head: which head of a training on several corpora becomes that of a model with one, "main"
            or another one's name; the others are left out. None: the model has the same heads.
        name: what to call weights that come from no single file in messages.

    Raises:
        CheckpointError: the file cannot be read, names or shapes differ, or there is no such head.
    """
    name = name if isinstance(source, Mapping) else str(source)
    checkpoint = source if isinstance(source, Mapping) else load_checkpoint(source)
    weights = state_dict_of(checkpoint, name)
    if head is not None:
        weights = select_head(weights, head, name=name)
    own = model.state_dict()
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    reshaped = [
        f"{key}: {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    complaints = [
        f"{len(keys)} {what} ({', '.join(keys[:_NAMES_SHOWN])}{', …' * (len(keys) > _NAMES_SHOWN)})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if keys
    ]
    if complaints:
        raise CheckpointError(
            f"{name} does not fit the model: {'; '.join(complaints)}",
            _hint(missing, unexpected, weights),
        )
    model.load_state_dict(weights)


def state_dict_of(
    checkpoint: Mapping[str, Any], name: str = "checkpoint", part: str = "model"
) -> dict[str, Tensor]:
    """The weights in a checkpoint, without the prefix of a distributed run.

    Args:
        checkpoint: {"model": state dict, ...} or a bare state dict.
        name: what to call it in messages.
        part: "model", or "model_avg" for the running mean.

    Raises:
        CheckpointError: it holds no such weights.
    """
    weights: Any = checkpoint.get(part)
    if weights is None and part == "model":
        weights = checkpoint
    if (
        not isinstance(weights, Mapping)
        or not weights
        or not all(isinstance(value, Tensor) for value in weights.values())
    ):
        raise CheckpointError(f"{name} holds no weights under '{part}'")
    if all(key.startswith(_WRAPPER) for key in weights):
        return {key.removeprefix(_WRAPPER): value for key, value in weights.items()}
    return dict(weights)


def model_config_of(weights: Mapping[str, Tensor], name: str = "the weights") -> ModelConfig:
    """Dimensions of a transducer as the shapes of its weights tell them.

    What no shape tells (chunk length, left context, what only training needs) is the recipes'.

    Args:
        weights: a state dict.
        name: what to call it in messages.

    Raises:
        CheckpointError: it is no Zipformer or LSTM transducer of icefall's two recipes.
    """
    try:
        if "encoder.encoder.layers.0.lstm.weight_ih_l0" in weights:
            return _lstm_config(weights)
        return _zipformer_config(weights)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # any sizes may come
        raise CheckpointError(
            f"{name} do not hold a streaming Zipformer or LSTM transducer: {error}",
            "put the config.yaml of their training beside them",
        ) from None


def _zipformer_config(weights: Mapping[str, Tensor]) -> ZipformerConfig:
    stacks = []
    for i in range(_count(weights, "encoder.encoders.{}.")):
        prefix = f"encoder.encoders.{i}."
        upsample = weights.get(f"{prefix}upsample.bias")
        layers = f"{prefix}layers." if upsample is None else f"{prefix}encoder.layers."
        first = f"{layers}0."
        positional, dim = weights[f"{first}self_attn.linear_pos.weight"].shape
        stacks.append(
            {
                "num_encoder_layers": _count(weights, layers + "{}."),
                "feedforward_dims": len(weights[f"{first}feed_forward1.in_proj.weight"]),
                "nhead": positional // _POS_DIM,
                "encoder_dims": dim,
                "encoder_unmasked_dims": dim,
                "attention_dims": 2 * len(weights[f"{first}self_attn.in_proj2.weight"]),
                "zipformer_downsampling_factors": 1 if upsample is None else len(upsample),
                "cnn_module_kernels": weights[f"{first}conv_module1.depthwise_conv.weight"].size(2),
            }
        )
    if not stacks:
        raise KeyError("encoder.encoders.0.")
    lists: dict[str, Any] = {key: tuple(stack[key] for stack in stacks) for key in stacks[0]}
    return ZipformerConfig(**lists, **_head_sizes(weights))


def _lstm_config(weights: Mapping[str, Tensor]) -> LstmConfig:
    first = "encoder.encoder.layers.0."
    width, dim = weights[f"{first}lstm.weight_ih_l0"].shape
    return LstmConfig(
        num_encoder_layers=_count(weights, "encoder.encoder.layers.{}."),
        encoder_dim=dim,
        rnn_hidden_size=width // 4,
        dim_feedforward=len(weights[f"{first}feed_forward.0.weight"]),
        **_head_sizes(weights),
    )


def _head_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    conv = weights.get("decoder.conv.weight")
    return {
        "decoder_dim": weights["decoder.embedding.weight"].size(1),
        "joiner_dim": len(weights["joiner.encoder_proj.weight"]),
        "context_size": 1 if conv is None else conv.size(2),
        "feature_dim": _FEATURE_DIM,
    }


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers, from 0 on, the names that begin with a pattern hold."""
    number = 0
    while any(key.startswith(pattern.format(number)) for key in weights):
        number += 1
    return number


def _hint(missing: list[str], unexpected: list[str], weights: Mapping[str, Tensor]) -> str:
    tops = {key.split(".")[0] for key in missing} - {key.split(".")[0] for key in weights}
    if "joiner" in tops and "decoder" in tops:
        return "it looks like an encoder-only checkpoint; pass the transducer's"
    if missing or unexpected:
        return "build the model with the options the weights were trained with"
    return "sizes or vocabulary differ from those the weights were trained with"
