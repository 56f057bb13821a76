"""Are heads found by the names of weights, and is exactly one of them left?"""

import pytest

from snowmelt.checkpoint.heads import head_names, select_head
from snowmelt.core.errors import CheckpointError

_PARTS = ("decoder", "joiner", "simple_am_proj", "simple_lm_proj")


def _head(name: str) -> dict[str, str]:
    suffix = name and f"_{name}"
    keys = [f"{part}{suffix}.output.weight" for part in _PARTS]
    return {"joiner" + suffix + ".encoder_proj.bias": f"{name} bias", **dict.fromkeys(keys, name)}


def _weights(*heads: str) -> dict[str, str]:
    weights = {"encoder.decoder_giga.weight": "encoder"}
    for name in ("", *heads):
        weights |= _head(name)
    return weights


def test_heads_are_found_by_their_names() -> None:
    assert head_names(_weights()) == ()
    assert head_names(_weights("giga", "voice_mail")) == ("giga", "voice_mail")


def test_the_others_are_left_out() -> None:
    assert select_head(_weights("giga", "aishell")) == _weights()
    assert select_head(_weights()) == _weights()


def test_another_head_takes_the_place_of_the_main_one() -> None:
    weights = _weights("giga", "aishell")
    selected = select_head(weights, "giga")
    assert selected.keys() == _weights().keys()
    assert selected == select_head(dict(reversed(weights.items())), "giga")
    assert selected["encoder.decoder_giga.weight"] == "encoder"
    assert selected["joiner.encoder_proj.bias"] == "giga bias"
    assert {selected[f"{part}.output.weight"] for part in _PARTS} == {"giga"}


@pytest.mark.parametrize("missing", _PARTS)
def test_a_part_of_a_head_is_no_head(missing: str) -> None:
    weights = {k: v for k, v in _weights("giga").items() if not k.startswith(f"{missing}_giga.")}
    assert head_names(weights) == ()
    # Strict loading complains about it.
    assert select_head(weights) == weights


@pytest.mark.parametrize(
    ("heads", "choices"), [((), "choose main"), (("giga", "ted"), "choose main, giga, ted")]
)
def test_a_head_that_is_not_there(heads: tuple[str, ...], choices: str) -> None:
    with pytest.raises(CheckpointError, match=f"x.pt has no head 'libri'.*hint: {choices}\\)"):
        select_head(_weights(*heads), "libri", name="x.pt")
