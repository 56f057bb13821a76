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

__all__ = ["load_icefall", "state_dict_of"]

# Names of each sort that a message lists.
_NAMES_SHOWN: Final = 3

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


def _hint(missing: list[str], unexpected: list[str], weights: Mapping[str, Tensor]) -> str:
    tops = {key.split(".")[0] for key in missing} - {key.split(".")[0] for key in weights}
    if "joiner" in tops and "decoder" in tops:
        return "it looks like an encoder-only checkpoint; pass the transducer's"
    if missing or unexpected:
        return "build the model with the options the weights were trained with"
    return "sizes or vocabulary differ from those the weights were trained with"
