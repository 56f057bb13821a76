"""Which heads do weights hold, and how do they become those of a model with a single one?

A training on several corpora has one encoder and, for each corpus, a head: decoder, joiner and the
two projections of the simple loss. The main corpus's have the plain names, those of a corpus "giga"
are `decoder_giga`, `joiner_giga`, `simple_am_proj_giga` and `simple_lm_proj_giga`. Recognition
needs one head.

Invariant: looks at the names of weights only, so it works for weights from anywhere; what is not a
whole head is left for strict loading to complain about.

Source: icefall, egs/librispeech/ASR/lstm_transducer_stateless2/model.py (the names).
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from snowmelt.core.errors import CheckpointError

__all__ = ["MAIN_HEAD", "head_names", "select_head"]

_T = TypeVar("_T")

# What the head with the plain names is called in options and messages.
MAIN_HEAD: Final = "main"

_PARTS: Final = ("decoder", "joiner", "simple_am_proj", "simple_lm_proj")


def head_names(weights: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the heads beside the main one, in the order of the weights.

    Args:
        weights: a transducer's state dict.

    Example:
        >>> parts = ("decoder", "joiner", "simple_am_proj", "simple_lm_proj")
        >>> head_names({f"{part}_giga.weight": None for part in parts})
        ('giga',)
    """
    modules = dict.fromkeys(key.split(".")[0] for key in weights)
    names = (m.removeprefix("decoder_") for m in modules if m.startswith("decoder_"))
    return tuple(
        name for name in names if name and all(f"{part}_{name}" in modules for part in _PARTS)
    )


def select_head(
    weights: Mapping[str, _T], head: str = MAIN_HEAD, *, name: str = "the checkpoint"
) -> dict[str, _T]:
    """Weights of the same model with one head, under the plain names.

    Args:
        weights: a transducer's state dict.
        head: "main", or one of `head_names(weights)`.
        name: what to call the weights in messages.

    Raises:
        CheckpointError: there is no such head; the message lists those there are.
    """
    extra = head_names(weights)
    if head != MAIN_HEAD and head not in extra:
        raise CheckpointError(
            f"{name} has no head '{head}'", f"choose {', '.join((MAIN_HEAD, *extra))}"
        )
    modules: dict[str, str | None] = {f"{part}_{other}": None for other in extra for part in _PARTS}
    if head != MAIN_HEAD:
        modules |= dict.fromkeys(_PARTS)
        modules |= {f"{part}_{head}": part for part in _PARTS}
    selected = {}
    for key, value in weights.items():
        module, dot, rest = key.partition(".")
        new_module = modules.get(module, module)
        if new_module is not None:
            selected[f"{new_module}{dot}{rest}"] = value
    return selected
