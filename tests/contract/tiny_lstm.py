"""An LSTM encoder small enough to be run hundreds of times, with weights that leave nothing out."""

import random
from typing import Any

import torch

from snowmelt.models.lstm.encoder import Lstm

__all__ = ["tiny_lstm"]


def tiny_lstm(dtype: torch.dtype = torch.float64, *, seed: int = 0, **arguments: Any) -> Lstm:
    """Three layers of 12 channels and 20 cells, 12 mel bins, in evaluation.

    Fresh layers equal each other and their biases are 0, which would hide faults: every weight gets
    noise.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    sizes = {"d_model": 12, "rnn_hidden_size": 20, "dim_feedforward": 16, "num_encoder_layers": 3}
    encoder = Lstm(12, **{**sizes, **arguments})
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return encoder.to(dtype).eval()
