"""What does snowmelt run on here? Versions, devices, and which of them it uses.

Invariant: nothing is required: what is not installed is reported as missing.
"""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Final

from snowmelt._version import __version__

__all__ = ["machine_facts"]

_PACKAGES: Final = (
    "torch",
    "numpy",
    "numba",
    "sentencepiece",
    "soundfile",
    "lhotse",
    "onnxruntime",
    "onnx",
    "safetensors",
    "huggingface_hub",
)

# Extensions that decide which matrix products a CPU has.
_CPU_FLAGS: Final = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


def machine_facts() -> dict[str, str]:
    """Name -> value, in the order to print them."""
    facts = {
        "snowmelt": __version__,
        "python": platform.python_version(),
        "system": f"{sys.platform} {platform.machine()}",
    }
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    facts["CPU cores"] = str(_num_cores())
    facts["CPU extensions"] = " ".join(_cpu_flags()) or "unknown"
    return facts | _devices()


def _devices() -> dict[str, str]:
    try:
        import torch
    except ImportError:
        return {"used": "ONNX models on the CPU only: torch is not installed"}
    from snowmelt.models.device import pick_device

    facts = {"threads": str(torch.get_num_threads())}
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["CUDA"] = f"{torch.version.cuda}: {', '.join(names)}"
        facts["CUDA bfloat16"] = "yes" if torch.cuda.is_bf16_supported() else "no"
    else:
        built = torch.version.cuda
        facts["CUDA"] = (
            f"no usable device, though torch is built for CUDA {built}: look at the driver"
            if built
            else "none: this torch is built for the CPU only"
        )
    facts["MPS"] = "yes" if torch.backends.mps.is_available() else "no"
    facts["used"] = f"--device auto takes {pick_device('auto')}"
    return facts


def _num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_flags() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        return []
    present = {
        word for line in text.splitlines() if line.startswith("flags") for word in line.split()
    }
    return [flag for flag in _CPU_FLAGS if flag in present]
