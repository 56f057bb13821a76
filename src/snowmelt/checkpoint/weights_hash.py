"""Are two models the same? One number for all their weights.

Invariant: depends on names, types, shapes and values only, not on the file or the device that
holds them.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["weights_sha256"]


def weights_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights, in hexadecimal digits.

    Args:
        state_dict: tensors by name, in any order.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()
