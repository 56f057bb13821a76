"""Which options repeat what a model's weights say? They are accepted, and compared.

The original builds a model from these options, so its tutorials repeat them in every command.

Names are those of icefall's train.py of both recipes.
"""

import argparse
import logging
from typing import TYPE_CHECKING, Final

from snowmelt.cli.arguments import natural_int, positive_int, sizes

if TYPE_CHECKING:
    from snowmelt.runtime.backend import SpeechModel
    from snowmelt.runtime.dimensions import Dimensions

__all__ = ["add_dimension_options", "check_stated"]

_logger = logging.getLogger(__name__)

_LISTS: Final = (
    "num_encoder_layers",
    "feedforward_dims",
    "nhead",
    "encoder_dims",
    "attention_dims",
    "encoder_unmasked_dims",
    "zipformer_downsampling_factors",
    "cnn_module_kernels",
)

_NUMBERS: Final = (
    "encoder_dim",
    "rnn_hidden_size",
    "dim_feedforward",
    "aux_layer_period",
    "decoder_dim",
    "joiner_dim",
    "context_size",
    "short_chunk_size",
)

# Zero has a meaning.
_FROM_ZERO: Final = frozenset({"aux_layer_period"})


def add_dimension_options(parser: argparse.ArgumentParser) -> None:
    """The sizes of a model, which may be repeated, and the left context, which may be chosen."""
    group = parser.add_argument_group(
        "sizes of the model",
        "They are read from the weights; an option that says otherwise is an error.",
    )
    for name in _LISTS:
        group.add_argument(_flag(name), type=sizes, metavar="N,N,…", help=argparse.SUPPRESS)
    for name in _NUMBERS:
        kind = natural_int if name in _FROM_ZERO else positive_int
        group.add_argument(_flag(name), type=kind, metavar="N", help=argparse.SUPPRESS)
    group.add_argument(
        "--num-left-chunks",
        type=natural_int,
        metavar="N",
        help="chunks of left context in a Zipformer's attention (default: as trained). Also "
        "accepted: " + ", ".join(map(_flag, (*_LISTS, *_NUMBERS))),
    )


def check_stated(args: argparse.Namespace, model: "SpeechModel", name: str) -> None:
    """Compare the sizes that the options repeat with those of a loaded model.

    Args:
        args: values of `add_dimension_options`.
        model: the model.
        name: what to call it in messages.

    Raises:
        ConfigError: they differ.
    """
    from snowmelt.runtime.dimensions import check_dimensions

    values = {name: getattr(args, name) for name in (*_LISTS, *_NUMBERS)}
    stated: Dimensions = {key: value for key, value in values.items() if value is not None}
    unknown = check_dimensions(model.dimensions, stated, name)
    if unknown:
        _logger.warning("%s not compared: %s does not say it", ", ".join(unknown), name)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
