"""How does a state dict become a transducer in torch, ready to recognise?

Invariant: torch is imported when the function is called; a model whose weights are not all finite
is never handed out.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from snowmelt.checkpoint.heads import MAIN_HEAD
from snowmelt.core.errors import CheckpointError
from snowmelt.presets.models import ModelConfig

if TYPE_CHECKING:
    from snowmelt.models.transducer import Transducer

__all__ = ["filled_transducer"]


def filled_transducer(
    source: Mapping[str, Any],
    config: ModelConfig,
    *,
    vocab_size: int,
    name: str,
    head: str = MAIN_HEAD,
    folded: bool = True,
) -> "Transducer":
    """A transducer with these weights, in CPU memory and evaluation mode.

    Args:
        source: a checkpoint's content, or a state dict.
        config: sizes of the model.
        vocab_size: V.
        name: what to call the weights in messages.
        head: whose decoder and joiner are taken, of a training on several corpora.
        folded: the scales that LSTM transducers have beside their weights are multiplied in; if
            False the state dict has the original's names.

    Raises:
        CheckpointError: they do not fit the model, or are not finite numbers.
    """
    from snowmelt.checkpoint.icefall import load_icefall
    from snowmelt.models.build import build_transducer
    from snowmelt.models.scaled_layers import fold_scales

    model = build_transducer(config, vocab_size)
    load_icefall(source, model, head=head, name=name)
    if folded:
        fold_scales(model)
    for key, parameter in model.named_parameters():
        # Such a model would not fail: it would find silence in everything.
        if not bool(parameter.isfinite().all()):
            raise CheckpointError(
                f"the weights of {name} are not finite numbers ({key})",
                "the training has diverged; choose an earlier checkpoint",
            )
    return model.eval()
