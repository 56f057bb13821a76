"""Small models whose weights leave nothing out, as experiments on disk."""

from pathlib import Path

import torch

from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.presets.models import ModelConfig
from snowmelt.runtime.backends.torch_eager import TorchBackend
from snowmelt.runtime.load import load_transducer
from tests.runtime.tiny import make_experiment, tiny_weights


def noisy_experiment(folder: Path, config: ModelConfig) -> Path:
    """An experiment with pretrained.pt alone.

    Fresh weights would hide faults: layers equal each other, many projections are almost 0. Every
    weight gets noise, the joiner is eager to emit.
    """
    make_experiment(folder, num_epochs=0, model=config)
    weights = tiny_weights(model=config)
    generator = torch.Generator().manual_seed(7)
    for value in weights.values():
        if value.is_floating_point():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    save_checkpoint(folder / "pretrained.pt", {"model": weights})
    return folder


def eager(folder: Path, decode_chunk_len: int | None = None) -> TorchBackend:
    """The trained model in torch."""
    model, config, tokenizer, *_ = load_transducer(folder, decode_chunk_len=decode_chunk_len)
    return TorchBackend(model, config.model, unk_id=tokenizer.unk_id)


__all__ = ["eager", "noisy_experiment"]
