"""Where does a model compute? The device that an option names.

Invariant: what a machine does not have is refused here, before anything is loaded.
"""

from typing import Final

import torch

from snowmelt.core.errors import ConfigError

__all__ = ["pick_device"]

_DEVICES: Final = ("auto", "cpu", "cuda", "mps")


def pick_device(name: str) -> torch.device:
    """The device that `--device` names; "auto" takes CUDA if there is one, else the CPU.

    Raises:
        ConfigError: the machine has no such device.
    """
    has = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return torch.device("cuda" if has["cuda"] else "cpu")
    if name not in has:
        raise ConfigError(f"there is no device {name!r}", f"choose {', '.join(_DEVICES)}")
    if not has[name]:
        raise ConfigError(f"this machine has no usable {name} device", "use --device cpu")
    return torch.device(name)
