"""Kind features.fbank: filter banks of whole signals and of signals that arrive in pieces."""

from typing import Any

import numpy as np
import torch

from snowmelt.audio.fbank import FbankConfig, OnlineFbank, fbank
from tests.parity.cases import Run

__all__ = ["KINDS"]

# What our filter banks do not offer: a case that asks for anything else cannot be compared.
_FIXED = {
    "window_type": "povey",
    "remove_dc_offset": True,
    "round_to_power_of_two": True,
    "dither": 0.0,
    "use_energy": False,
    "use_power": True,
    "use_log_fbank": True,
    "samples_scale": 1.0,
}
_RENAMED = {"sampling_rate": "sample_rate"}


def _fbank(run: Run) -> dict[str, Any]:
    params = dict(run.params)
    pieces = params.pop("pieces", None)
    for name, value in _FIXED.items():
        assert params.pop(name, value) == value, name
    config = FbankConfig(**{_RENAMED.get(name, name): value for name, value in params.items()})
    inputs = run.inputs()
    samples = inputs["samples"].numpy()
    if run.call == "offline":
        return {"features": _offline(samples, inputs.get("batch_with"), config)}
    stream = OnlineFbank(config)
    ready = []
    for piece in np.split(samples, np.cumsum(pieces)[:-1]):
        stream.accept_waveform(piece)
        ready.append(stream.num_frames_ready)
    stream.input_finished()
    ready.append(stream.num_frames_ready)
    return {
        "features": torch.from_numpy(stream.get_frames(0, ready[-1])),
        "frames_ready": ready,
    }


def _offline(
    samples: np.ndarray, batch_with: torch.Tensor | None, config: FbankConfig
) -> torch.Tensor:
    num_frames = config.num_frames(len(samples))
    if batch_with is not None:
        # The original pads the signals of a batch with zeros before it cuts frames.
        samples = np.pad(samples, (0, len(batch_with) - len(samples)))
    return torch.from_numpy(fbank(samples, config)[:num_frames])


KINDS = {"features.fbank": _fbank}
