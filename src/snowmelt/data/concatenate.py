"""How are the utterances of a batch joined, so that less of it is padding?

The longest come first; the shortest are put behind them, with a gap of silence, as long as there is
room.

Invariant: no sound and no word is lost or repeated; the result depends on the batch alone.

Source of the rule: lhotse, lhotse/dataset/cut_transforms/concatenate.py; there joined utterances
have random names.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from lhotse.cut import Cut

from snowmelt.core.errors import ConfigError

__all__ = ["Concatenation", "concatenated"]


@dataclass(frozen=True)
class Concatenation:
    """How far utterances are joined.

    Attributes:
        duration_factor: longest joined utterance, as a multiple of the longest of the batch.
        gap_s: seconds of digital silence between two utterances.

    Raises:
        ConfigError: a factor below 1, or a negative gap.
    """

    duration_factor: float = 1.0
    gap_s: float = 1.0

    def __post_init__(self) -> None:
        if not self.duration_factor >= 1.0 or not self.gap_s >= 0.0:
            raise ConfigError(
                f"utterances cannot be joined with duration_factor {self.duration_factor:g} and "
                f"a gap of {self.gap_s:g} s",
                "duration_factor is at least 1, gap at least 0",
            )


def concatenated(cuts: Sequence[Cut], settings: Concatenation) -> list[Cut]:
    """Fewer, longer cuts with the same content.

    Args:
        cuts: the utterances of a batch, at least one.
        settings: how far to go.

    Returns:
        Cuts whose text is that of their utterances in order, and whose id is theirs joined by "+";
        the longest first.
    """
    left = deque(sorted(cuts, key=lambda cut: -cut.duration))
    limit = left[0].duration * settings.duration_factor
    joined = []
    while left:
        members = [left.popleft()]
        duration = members[0].duration
        while left and duration + settings.gap_s + left[-1].duration <= limit:
            members.append(left.pop())
            duration += settings.gap_s + members[-1].duration
        joined.append(_joined(members, settings.gap_s))
    return joined


def _joined(members: Sequence[Cut], gap_s: float) -> Cut:
    first, *others = members
    if not others:
        return first
    whole = first
    for cut in others:
        padded = whole.pad(whole.duration + gap_s) if gap_s else whole
        whole = padded.append(cut)
    return whole.with_id("+".join(cut.id for cut in members))
