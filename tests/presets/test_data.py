"""What a run learns from: settings that cannot work are refused, mixes are complete."""

from typing import Any

import pytest

from snowmelt.core.config import from_dict, to_dict
from snowmelt.core.errors import ConfigError
from snowmelt.presets.data import DataConfig, MixPart


@pytest.mark.parametrize("name", ["max_duration", "num_buckets", "num_workers"])
def test_data_settings_that_must_be_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0, it must be positive"):
        DataConfig(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"duration_factor": 0.5}, "duration_factor is 0.5, it must be at least 1"),
        ({"cut_edges": 1.5}, "cut_edges is 1.5, it must be from 0 to 1"),
        ({"gap": -1.0}, "gap is -1.0, it must not be negative"),
        ({"musan_min_snr_db": 21.0}, "musan_min_snr_db is 21, above musan_max_snr_db, 20"),
        ({"mini_libri": True}, "Cannot set both mini-libri and full-libri flags to True"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**settings)
    assert message in str(caught.value)


def test_one_corpus_is_a_mix_of_itself() -> None:
    config = DataConfig(corpus="an4", speed_perturb=True, enable_spec_aug=False)
    assert config.parts == (MixPart("an4", 1.0, speed_perturb=True, enable_spec_aug=False),)
    assert config.extra_heads == ()


def test_the_others_of_a_mix_have_heads_of_their_own() -> None:
    mix = (MixPart("librispeech", 0.1), MixPart("gigaspeech", 0.6), MixPart("mine", 0.3))
    config = DataConfig(corpus="librispeech", mix=mix)
    assert config.parts == mix and config.extra_heads == ("giga", "mine")
    assert [part.label for part in mix] == ["libri", "giga", "mine"]
    assert from_dict(DataConfig, to_dict(config)) == config
    for head in ("giga", "gigaspeech"):
        assert config.part_of_head(head) == mix[1]
    for head in ("main", "libri", "librispeech", "unknown"):
        assert config.part_of_head(head) == mix[0]


def _mix(**shares: float) -> dict[str, Any]:
    return {"corpus": "a", "mix": tuple(MixPart(name, p) for name, p in shares.items())}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (_mix(a=0.5, b=0.4), "the shares of mix add up to 0.9, not to 1"),
        (_mix(b=0.5, a=0.5), "the main corpus is a, the mix begins with b"),
        (_mix(a=0.0, b=1.0), "mix is a=0,b=1: shares lie between 0 and 1, the first above 0"),
        (_mix(a=1.5, b=-0.5), "mix is a=1.5,b=-0.5: shares lie between 0 and 1"),
        (_mix(a=float("nan"), b=0.5), "shares lie between 0 and 1"),
        (
            {"corpus": "a", "mix": (MixPart("a", 0.5), MixPart("a", 0.5))},
            "mix names a twice",
        ),
    ],
)
def test_what_is_no_mix(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**settings)
    assert message in str(caught.value)
