"""Which parts make a transducer?

Several corpora with different ways of writing share one encoder; each has a head of its own, which
is all that knows tokens.

Invariant: it only holds the parts, under the original's parameter names. The loss is the trainer's
affair (``train/objective.py``), the search is ``search``'s.

Source: icefall, egs/librispeech/ASR: model.py of pruned_transducer_stateless7 and, for several
heads, of lstm_transducer_stateless2.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from snowmelt.core.errors import ConfigError
from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner

__all__ = ["Transducer", "TransducerHead"]


class TransducerHead(NamedTuple):
    """What turns the encoder's output into scores of tokens.

    ``simple_am_proj`` and ``simple_lm_proj`` give the (.., V) logits whose sum is the simple joiner
    that tells the pruned loss where to look.
    """

    decoder: Decoder
    joiner: Joiner
    simple_am_proj: nn.Module
    simple_lm_proj: nn.Module


class Transducer(nn.Module):
    """An encoder and its heads.

    Args:
        encoder: (N, T, F) features to (N, T'', encoder_dim).
        head: the main head, whose parts have plain names.
        extra_heads: names, which are identifiers, and heads; the parts of ("giga", head) are
            ``decoder_giga``, ``joiner_giga``, ``simple_am_proj_giga`` and ``simple_lm_proj_giga``.
    """

    decoder: Decoder
    joiner: Joiner
    simple_am_proj: nn.Module
    simple_lm_proj: nn.Module

    def __init__(
        self,
        encoder: nn.Module,
        head: TransducerHead,
        extra_heads: Sequence[tuple[str, TransducerHead]] = (),
    ) -> None:
        super().__init__()
        names = tuple(name for name, _ in extra_heads)
        assert len(set(names)) == len(names) and all(n.isidentifier() for n in names), names
        self.head_names = names
        self.encoder = encoder
        heads = [("", head), *extra_heads]
        # The original's order: it is that of the parameters in optimisers and files.
        for parts in (("decoder", "joiner"), ("simple_am_proj", "simple_lm_proj")):
            for name, modules in heads:
                for part in parts:
                    setattr(self, _part_name(part, name), getattr(modules, part))

    def head(self, name: str = "") -> TransducerHead:
        """A head.

        Args:
            name: one of ``head_names``, or "" for the main head.

        Raises:
            ConfigError: there is no such head.
        """
        if name and name not in self.head_names:
            raise ConfigError(
                f"the model has no head '{name}'",
                f"it has {', '.join(self.head_names) or 'the main head only'}",
            )
        parts = [getattr(self, _part_name(part, name)) for part in TransducerHead._fields]
        return TransducerHead(*parts)


def _part_name(part: str, head: str) -> str:
    return f"{part}_{head}" if head else part
