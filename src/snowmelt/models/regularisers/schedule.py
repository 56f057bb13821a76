"""What do regularisers know about how far training has come, and how is it saved?

Invariant: all such numbers are plain Python attributes; set and read only through these functions.
"""

from torch import nn

from snowmelt.core.errors import CheckpointError
from snowmelt.models.regularisers.balancer import ActivationBalancer
from snowmelt.models.regularisers.max_eig import MaxEig
from snowmelt.models.regularisers.whiten import Whiten

__all__ = [
    "load_regulariser_state",
    "regulariser_state",
    "set_batch_count",
    "set_schedule_scale",
]


def set_batch_count(model: nn.Module, batch_count: float) -> None:
    """Tell every module that follows a schedule how many batches have been trained.

    Call it before the forward of each batch, the first after resuming included.
    """
    for module in model.modules():
        if hasattr(module, "batch_count"):
            setattr(module, "batch_count", batch_count)  # noqa: B010 (a type checker sees a Tensor)


def set_schedule_scale(model: nn.Module, scale: float) -> None:
    """Set how long the balancers' own schedules are relative to the original's: 0.1 = a tenth."""
    for module in model.modules():
        if isinstance(module, ActivationBalancer):
            module.schedule_scale = scale


_STATE_NAMES = ("num_calls", "prob", "cur_prob")


def regulariser_state(model: nn.Module) -> dict[str, float | int]:
    """Numbers that regularisers keep outside the state dict, by module and attribute name."""
    return {
        f"{name}.{attribute}": getattr(module, attribute)
        for name, module in model.named_modules()
        if isinstance(module, ActivationBalancer | MaxEig | Whiten)
        for attribute in _STATE_NAMES
        if hasattr(module, attribute)
    }


def load_regulariser_state(model: nn.Module, state: dict[str, float | int]) -> None:
    """Put back what ``regulariser_state`` returned.

    Raises:
        CheckpointError: ``model`` has no such module.
    """
    modules = dict(model.named_modules())
    for key, value in state.items():
        name, _, attribute = key.rpartition(".")
        if name not in modules or not hasattr(modules[name], attribute):
            raise CheckpointError(
                f"the saved regularisers do not fit this model: it has no '{key}'",
                "resume with the configuration the checkpoint was written with",
            )
        setattr(modules[name], attribute, value)
