"""Settings of language models that cannot be built or trained are refused."""

from typing import Any

import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.presets.language_models import (
    LM_PRESETS,
    LM_TYPES,
    LmTrainConfig,
    RnnLmConfig,
    TransformerLmConfig,
    lm_preset,
)


@pytest.mark.parametrize("name", LM_PRESETS)
@pytest.mark.parametrize("lm_type", LM_TYPES)
def test_presets_come_in_all_types(name: str, lm_type: str) -> None:
    assert lm_preset(name, lm_type).lm_type == lm_type


@pytest.mark.parametrize(("name", "lm_type"), [("lm-huge", "rnn"), ("lm", "gru")])
def test_other_presets_are_refused(name: str, lm_type: str) -> None:
    with pytest.raises(ConfigError, match="presets are lm, lm-small, lm-tiny, types rnn, trans"):
        lm_preset(name, lm_type)


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        (RnnLmConfig, {"hidden_dim": 0}, "hidden_dim is 0, it must be positive"),
        (RnnLmConfig, {"dropout": 1.0}, "dropout is 1.0, it must be below 1"),
        (TransformerLmConfig, {"nhead": 7}, r"encoder_dim is 768, no multiple of nhead \(7\)"),
        (TransformerLmConfig, {"context_len": 0}, "context_len is 0, it must be positive"),
        (TransformerLmConfig, {"dropout": -0.1}, "dropout is -0.1, it must not be negative"),
        (LmTrainConfig, {"max_tokens": 0}, "max_tokens is 0, it must be positive"),
        (LmTrainConfig, {"seed": 2**32}, "it must be at most 4294967295"),
        (LmTrainConfig, {"base_lr": float("nan")}, "base_lr is nan, it must be a finite number"),
        (LmTrainConfig, {"use_fp16": True, "use_bf16": True}, "use_fp16 and use_bf16 are both on"),
    ],
)
def test_settings_out_of_range(settings: type, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**change)
