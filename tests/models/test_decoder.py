"""The stateless decoder: context, padding, ids before the start."""

import pytest
import torch

from snowmelt.models.decoder import Decoder


@pytest.mark.parametrize("context_size", [1, 2, 4])
def test_search_sees_what_training_saw(context_size: int) -> None:
    torch.manual_seed(0)
    decoder = Decoder(11, 8, blank_id=0, context_size=context_size).eval()
    y = torch.randint(0, 11, (3, 6))
    whole = decoder(y)
    assert whole.shape == (3, 6, 8)
    history = torch.cat([torch.full((3, context_size - 1), -1), y], dim=1)
    for s in range(6):
        context = history[:, s : s + context_size]
        torch.testing.assert_close(decoder(context, need_pad=False)[:, 0], whole[:, s])


def test_ids_before_the_start_are_zero_vectors() -> None:
    torch.manual_seed(0)
    decoder = Decoder(11, 8, blank_id=0, context_size=2).eval()
    out = decoder(torch.tensor([[-1, -1]]), need_pad=False)
    assert torch.equal(out, torch.zeros(1, 1, 8))


def test_negative_ids_send_no_gradient_to_the_blank() -> None:
    decoder = Decoder(5, 8, blank_id=0, context_size=1)
    decoder(torch.tensor([[-1]])).sum().backward()
    assert decoder.embedding.weight.grad is not None
    assert float(decoder.embedding.weight.grad.abs().sum()) == 0.0


@pytest.mark.parametrize("context_size", [1, 2])
def test_parameter_names(context_size: int) -> None:
    decoder = Decoder(11, 8, blank_id=0, context_size=context_size)
    conv = {"conv.weight": (8, 4, 2)} if context_size == 2 else {}
    expected = {"embedding.weight": (11, 8), **conv}
    assert {key: tuple(value.shape) for key, value in decoder.state_dict().items()} == expected


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_is_scriptable_with_ids_before_the_start() -> None:
    decoder = Decoder(11, 8, blank_id=0, context_size=2).eval()
    y = torch.tensor([[-1, 0], [3, 4]])
    expected = decoder(y, need_pad=False)
    assert torch.equal(torch.jit.script(decoder)(y, need_pad=False), expected)


@pytest.mark.parametrize("context_size", [1, 2])
def test_scaled_form(context_size: int) -> None:
    """Other names, every channel convolved alone, and the same function of effective weights."""
    torch.manual_seed(0)
    decoder = Decoder(11, 6, blank_id=0, context_size=context_size, scaled=True)
    names = ["embedding.scale", "embedding.weight"]
    names += ["conv.weight", "conv.weight_scale"] if context_size == 2 else []
    assert list(decoder.state_dict()) == names
    y = torch.tensor([[3, 1, -1], [10, 0, 2]])
    rows = decoder.embedding.weight[y.clamp(min=0)] * decoder.embedding.scale.exp()
    rows = rows * (y >= 0)[..., None]
    expected = rows
    if context_size == 2:
        weight = decoder.conv.weight.squeeze(1) * decoder.conv.weight_scale.exp()  # (C, 2)
        before = torch.cat([torch.zeros_like(rows[:, :1]), rows[:, :-1]], dim=1)
        expected = before * weight[:, 0] + rows * weight[:, 1]
    torch.testing.assert_close(decoder(y), expected.relu())
