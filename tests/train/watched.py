"""Models to look into while they compute a loss and its gradients."""

import random

import torch
from torch import Tensor, nn

from snowmelt.models.build import build_transducer
from tests.runtime.tiny import TINY

__all__ = ["Small", "TinyTransducer"]


class Small(nn.Module):
    """Three layers; the middle one returns a tuple with a tensor of another kind in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.middle = Middle()
        self.last = nn.Linear(16, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, _, z = self.middle(self.first(x))
        return self.last(y * z["scale"]).sum()


class Middle(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        return x.tanh(), torch.arange(3), {"scale": x.exp()}


class TinyTransducer(nn.Module):
    """All parts of a small Zipformer transducer on one batch; returns a loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = build_transducer(TINY, 30)

    def forward(self, seed: int, num_frames: int = 120) -> Tensor:
        # Layers are skipped at random.
        random.seed(seed)
        torch.manual_seed(seed)
        x_lens = torch.tensor([num_frames, num_frames - 20])
        encoder_out, _ = self.model.encoder(torch.randn(2, num_frames, 80), x_lens)
        decoder_out = self.model.decoder(torch.randint(0, 30, (2, 4)))
        logits = self.model.joiner(encoder_out[:, :, None, :], decoder_out[:, None, :, :])
        simple = self.model.simple_am_proj(encoder_out).sum()
        return logits.square().mean() + simple + self.model.simple_lm_proj(decoder_out).sum()
