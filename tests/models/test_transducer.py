"""The transducer holds its parts under the original's names."""

import pytest
import torch
from torch import nn

from snowmelt.core.errors import ConfigError
from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.models.transducer import Transducer, TransducerHead


def _head() -> TransducerHead:
    decoder = Decoder(6, 8, blank_id=0, context_size=2)
    return TransducerHead(decoder, Joiner(4, 8, 5, 6), nn.Linear(4, 6), nn.Linear(8, 6))


def _parts(model: nn.Module) -> list[str]:
    return list(dict.fromkeys(key.split(".")[0] for key in model.state_dict()))


def test_parts_and_their_order() -> None:
    model = Transducer(nn.Linear(3, 4), _head())
    assert _parts(model) == ["encoder", "decoder", "joiner", "simple_am_proj", "simple_lm_proj"]
    assert model.simple_am_proj(torch.zeros(2, 4)).shape == (2, 6)
    assert model.simple_lm_proj(torch.zeros(2, 8)).shape == (2, 6)
    assert model.head_names == ()


def test_extra_heads_have_names() -> None:
    heads = {name: _head() for name in ("", "giga", "radio")}
    main, *others = heads.items()
    model = Transducer(nn.Linear(3, 4), main[1], others)
    assert _parts(model) == [
        "encoder",
        *("decoder", "joiner", "decoder_giga", "joiner_giga", "decoder_radio", "joiner_radio"),
        *("simple_am_proj", "simple_lm_proj"),
        *("simple_am_proj_giga", "simple_lm_proj_giga"),
        *("simple_am_proj_radio", "simple_lm_proj_radio"),
    ]
    assert model.head_names == ("giga", "radio")
    for name, head in heads.items():
        assert all(a is b for a, b in zip(model.head(name), head, strict=True))
    assert model.head() == model.head("")
    assert model.head("giga").joiner is model.joiner_giga


def test_an_unknown_head_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="the model has no head 'giga'") as error:
        Transducer(nn.Linear(3, 4), _head()).head("giga")
    assert "the main head only" in str(error.value.hint)
    with pytest.raises(ConfigError, match="no head 'libri'") as error:
        Transducer(nn.Linear(3, 4), _head(), [("giga", _head())]).head("libri")
    assert "giga" in str(error.value.hint)
