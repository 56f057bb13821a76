"""The transducer holds its parts under the original's names."""

import torch
from torch import nn

from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.models.transducer import Transducer


def test_parts_and_their_order() -> None:
    model = Transducer(
        encoder=nn.Linear(3, 4),
        decoder=Decoder(6, 8, blank_id=0, context_size=2),
        joiner=Joiner(4, 8, 5, 6),
        encoder_dim=4,
        decoder_dim=8,
        joiner_dim=5,
        vocab_size=6,
    )
    prefixes = dict.fromkeys(key.split(".")[0] for key in model.state_dict())
    assert list(prefixes) == ["encoder", "decoder", "joiner", "simple_am_proj", "simple_lm_proj"]
    assert model.simple_am_proj(torch.zeros(2, 4)).shape == (2, 6)
    assert model.simple_lm_proj(torch.zeros(2, 8)).shape == (2, 6)
