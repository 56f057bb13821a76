"""The joiner: one formula for every number of axes."""

import pytest
import torch

from snowmelt.models.joiner import Joiner


def test_formula_and_projection_outside() -> None:
    torch.manual_seed(0)
    joiner = Joiner(6, 5, 7, 9).eval()
    encoder_out, decoder_out = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 4, 5)
    logits = joiner(encoder_out, decoder_out)
    assert logits.shape == (2, 3, 4, 9)
    projected = joiner.encoder_proj(encoder_out), joiner.decoder_proj(decoder_out)
    expected = joiner.output_linear(torch.tanh(projected[0] + projected[1]))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(joiner(*projected, project_input=False), expected)
    flat = joiner(encoder_out[0, 0], decoder_out[0, 0])
    torch.testing.assert_close(flat, logits[0, 0])


def test_inputs_broadcast() -> None:
    joiner = Joiner(6, 5, 7, 9)
    logits = joiner(torch.randn(2, 3, 1, 6), torch.randn(2, 1, 4, 5))
    assert logits.shape == (2, 3, 4, 9)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_is_scriptable() -> None:
    joiner = Joiner(6, 5, 7, 9).eval()
    encoder_out, decoder_out = torch.randn(2, 6), torch.randn(2, 5)
    assert torch.equal(
        torch.jit.script(joiner)(encoder_out, decoder_out), joiner(encoder_out, decoder_out)
    )


def test_scaled_form_is_the_same_formula() -> None:
    torch.manual_seed(0)
    joiner = Joiner(6, 5, 7, 9, scaled=True)
    parts = ["weight", "bias", "weight_scale", "bias_scale"]
    layers = ["encoder_proj", "decoder_proj", "output_linear"]
    assert list(joiner.state_dict()) == [f"{layer}.{part}" for layer in layers for part in parts]
    encoder_out, decoder_out = torch.randn(4, 6), torch.randn(4, 5)
    hidden = joiner.encoder_proj(encoder_out) + joiner.decoder_proj(decoder_out)
    expected = joiner.output_linear(hidden.tanh())
    torch.testing.assert_close(joiner(encoder_out, decoder_out), expected)
