"""Does a saved optimiser state belong to these parameters? What all optimisers compare.

Invariant: compares and raises; nothing is loaded here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from snowmelt.core.errors import CheckpointError

__all__ = ["check_groups", "misfit"]


def check_groups(
    saved_groups: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> None:
    """Compare the groups of a saved state with those of the optimiser it shall be loaded into.

    Names are compared where both sides know them: icefall saves none.

    Raises:
        CheckpointError: other number of groups, or other number or names of parameters.
    """
    if len(saved_groups) != len(groups):
        raise misfit(f"{len(saved_groups)} parameter groups instead of {len(groups)}")
    for saved, group in zip(saved_groups, groups, strict=True):
        if len(saved["params"]) != len(group["params"]):
            raise misfit(f"{len(saved['params'])} parameters instead of {len(group['params'])}")
        names = zip(saved.get("param_names", ()), group.get("param_names", ()), strict=False)
        for theirs, ours in names:
            if theirs != ours:
                raise misfit(f"parameter '{theirs}' where the model has '{ours}'")


def misfit(what: str) -> CheckpointError:
    """The error for a saved state of other parameters, or of another optimiser."""
    return CheckpointError(
        f"the saved optimiser state does not fit the model: {what}",
        "resume with the model options of that checkpoint, or start with a fresh optimiser",
    )
