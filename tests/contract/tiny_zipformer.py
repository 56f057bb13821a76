"""A Zipformer small enough to be run hundreds of times, with weights that leave nothing out."""

import random
from typing import Any

import torch

from snowmelt.models.zipformer.encoder import Zipformer

__all__ = ["tiny_zipformer"]


def tiny_zipformer(
    dtype: torch.dtype = torch.float64,
    *,
    seed: int = 0,
    factors: tuple[int, ...] = (1, 2, 4, 8, 2),
    **arguments: Any,
) -> Zipformer:
    """Five stacks of 16 and 20 channels, 12 mel bins, in evaluation.

    Fresh weights would hide faults: layers equal each other, stack outputs of combiners count for
    nothing, many projections are almost 0. So every weight gets noise.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    num_stacks = len(factors)
    encoder = Zipformer(
        num_features=12,
        encoder_dims=(16,) * (num_stacks - 1) + (20,),
        attention_dim=(8,) * num_stacks,
        encoder_unmasked_dims=(12,) * num_stacks,
        zipformer_downsampling_factors=factors,
        nhead=(2,) * num_stacks,
        feedforward_dim=(24,) * num_stacks,
        num_encoder_layers=(1,) * (num_stacks - 1) + (2,),
        cnn_module_kernels=(5,) * num_stacks,
        **{"num_left_chunks": 2, "decode_chunk_size": 8, **arguments},
    )
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return encoder.to(dtype).eval()
