"""Stacks: their layers, their rates, and which of them are connected."""

from unittest import mock

import pytest
import torch

from snowmelt.models.zipformer import stack as stack_module
from snowmelt.models.zipformer.layer import ZipformerEncoderLayer
from snowmelt.models.zipformer.stack import (
    DownsampledZipformerEncoder,
    ZipformerEncoder,
    skip_connections,
)
from snowmelt.models.zipformer.windows import full_windows


def _stack(num_layers: int = 3) -> ZipformerEncoder:
    torch.manual_seed(0)
    layer = ZipformerEncoderLayer(8, 8, 2, feedforward_dim=8, dropout=0.0, cnn_module_kernel=3)
    return ZipformerEncoder(layer, num_layers, 0.0, warmup_begin=100.0, warmup_end=400.0)


def test_layers_start_equal_and_are_not_shared() -> None:
    first, second, _ = _stack().layers
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a is not b


def test_each_layer_has_its_own_part_of_the_warm_up() -> None:
    stack = _stack().train()
    stack.batch_count = 250.0
    with mock.patch.object(stack_module, "dropped_layers") as draw:
        stack._dropped_layers()
    (probs,) = draw.call_args.args
    # Ended at 200; half-way between 200 and 300; not begun.
    assert probs == pytest.approx([0.05, 0.5 - 0.45 * 50 / 300, 0.5])


def test_dropped_layers_are_passed_over() -> None:
    stack = _stack().train()
    calls: list[int] = []
    for index, layer in enumerate(stack.layers):
        layer.register_forward_hook(lambda *_, index=index: calls.append(index))  # type: ignore[misc]
    windows = full_windows(5, torch.tensor([5]))
    with mock.patch.object(stack_module, "dropped_layers", lambda probs: {1}):
        stack(torch.randn(5, 1, 8), windows)
    assert calls == [0, 2]


def test_feature_mask_is_applied_before_and_after_every_layer() -> None:
    stack = _stack(2).eval()
    inputs = []
    for layer in stack.layers:
        layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    mask = torch.ones(5, 1, 8)
    mask[2:4, :, 6:] = 0.0
    out = stack(torch.randn(5, 1, 8), full_windows(5, torch.tensor([5])), mask)
    for x in [*inputs, out]:
        assert not x[2:4, :, 6:].any()
        assert x[2:4, :, :6].all()


def test_a_downsampled_stack_comes_back_to_its_rate() -> None:
    torch.manual_seed(0)
    stack = DownsampledZipformerEncoder(_stack(1), input_dim=6, output_dim=8, downsample=4).eval()
    x = torch.randn(10, 2, 6)
    out = stack(x, full_windows(3, torch.tensor([3, 2])), x_lens=torch.tensor([10, 7]))
    assert out.shape == (10, 2, 8)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((1, 2, 4, 8, 2), [None, None, None, None, 1]),
        ((1, 2, 4, 2, 1), [None, None, None, 1, 0]),
        ((2, 4, 1), [None, None, 0]),
        ((4, 8, 2, 1), [None, None, 0, 0]),
        ((1,), [None]),
    ],
)
def test_skip_connections(factors: tuple[int, ...], expected: list[int | None]) -> None:
    assert skip_connections(factors) == expected
