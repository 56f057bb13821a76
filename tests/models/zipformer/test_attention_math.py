"""The attention's arithmetic against loops over queries and keys, in both of its forms."""

import math

import pytest
import torch
from torch import Tensor

from snowmelt.models.zipformer import attention_cpu, attention_math
from snowmelt.models.zipformer.attention_math import (
    apply_weights,
    attention_weights,
    shift_to_keys,
)
from snowmelt.models.zipformer.windows import (
    Windows,
    chunk_windows,
    forbidden_keys,
    full_windows,
)

_NUM_HEADS, _HEAD_DIM, _VALUE_DIM, _POS_DIM = 2, 6, 3, 4


def _inputs(windows: Windows, num_keys: int, pos_dim: int = _POS_DIM) -> list[Tensor]:
    """q, k, p, pos, and two values, float64, for the first axis of `windows.first` utterances."""
    torch.manual_seed(0)
    batch_size, num_frames = windows.first.size(0), windows.num_frames
    return [
        torch.randn(num_frames, batch_size, _NUM_HEADS * _HEAD_DIM, dtype=torch.float64),
        torch.randn(num_keys, batch_size, _NUM_HEADS * _HEAD_DIM, dtype=torch.float64),
        torch.randn(num_frames, batch_size, _NUM_HEADS * pos_dim, dtype=torch.float64),
        torch.randn(2 * windows.block - 1 + windows.left, _NUM_HEADS, pos_dim, dtype=torch.float64),
        torch.randn(num_keys, batch_size, _NUM_HEADS * _VALUE_DIM, dtype=torch.float64),
        torch.randn(num_keys, batch_size, _NUM_HEADS * _VALUE_DIM, dtype=torch.float64),
    ]


def _slow(inputs: list[Tensor], windows: Windows, n: int, h: int, t: int) -> Tensor:
    """Sum of the first values that query t of utterance n sees with head h."""
    q, k, p, pos, v, _ = inputs
    block, i = divmod(t, windows.block)
    own = slice(h * _HEAD_DIM, (h + 1) * _HEAD_DIM)
    position = p[t, n, h * _POS_DIM : (h + 1) * _POS_DIM]
    # Number of keys that are not given, but zeros in front.
    missing = windows.left + windows.num_frames - k.size(0)
    scores, values = [], []
    for j in range(windows.left + windows.block):
        if bool(forbidden_keys(windows)[block, n, 0, i, j]):
            continue
        key = block * windows.block + j - missing
        distance_row = windows.block - 1 - i + j
        scores.append(float(q[t, n, own] @ k[key, n, own] + position @ pos[distance_row, h]))
        values.append(v[key, n, h * _VALUE_DIM : (h + 1) * _VALUE_DIM])
    if not scores:
        return torch.zeros(_VALUE_DIM, dtype=torch.float64)
    exps = [math.exp(score - max(scores)) for score in scores]
    return sum(e / sum(exps) * value for e, value in zip(exps, values, strict=True))


_WINDOWS = {
    "full": (full_windows(9, torch.tensor([9, 4])), 9),
    "dense chunks": (chunk_windows(9, 4, 1, torch.tensor([9, 4])), 9),
    "blocks": (chunk_windows(50, 4, 2, torch.tensor([50, 21])), 50),
    "no left context": (chunk_windows(40, 16, 0, torch.tensor([40, 1])), 40),
    "stream": (chunk_windows(4, 4, 2, torch.tensor([4, 3]), torch.tensor([4, 20])), 12),
    "one frame": (chunk_windows(1, 1, 3, torch.tensor([1, 0]), torch.tensor([2, 0])), 4),
}


@pytest.mark.parametrize("name", _WINDOWS)
def test_equals_loops(name: str) -> None:
    windows, num_keys = _WINDOWS[name]
    inputs = _inputs(windows, num_keys)
    q, k, p, pos, v, _ = inputs
    weights = attention_weights(q, k, p, pos, windows)
    sums = apply_weights(weights, v, windows).unflatten(2, (_NUM_HEADS, _VALUE_DIM))
    for t in range(0, windows.num_frames, 3):
        for n in range(2):
            for h in range(_NUM_HEADS):
                torch.testing.assert_close(sums[t, n, h], _slow(inputs, windows, n, h, t))


@pytest.mark.parametrize("limit", [None, 2.0])
@pytest.mark.parametrize("pos_dim", [4, 3])
@pytest.mark.parametrize("name", _WINDOWS)
def test_training_on_the_cpu_gives_the_same_numbers_and_gradients(
    name: str, pos_dim: int, limit: float | None
) -> None:
    windows, num_keys = _WINDOWS[name]
    results = []
    for dtype in (torch.float64, torch.float32):  # float64 takes the form made of torch operations
        inputs = [x.to(dtype).requires_grad_() for x in _inputs(windows, num_keys, pos_dim)]
        assert attention_math._trains_on_cpu(inputs[0], windows) == (dtype == torch.float32)
        q, k, p, pos, v, v2 = inputs
        weights = attention_weights(q, k, p, pos, windows, score_limit=limit, score_penalty=0.01)
        sums = apply_weights(weights, v, windows)
        sums2 = apply_weights(weights, v2, windows)
        (sums.square().sum() + (sums2 * sums.detach().cos()).sum()).backward()
        outputs = [x.detach() for x in (weights, sums, sums2)]
        results.append([*outputs, *(x.grad for x in inputs)])
    for expected, result in zip(*results, strict=True):
        assert expected is not None and result is not None
        # float32 rounds scores of about 10 at 1e-6, gradients are sums that cancel.
        scale = float(expected.abs().max())
        torch.testing.assert_close(result.double(), expected, rtol=0.0, atol=2e-5 * scale)


@pytest.mark.parametrize("is_faster", [True, False])
def test_half_precision_trains_on_the_cpu(monkeypatch: pytest.MonkeyPatch, is_faster: bool) -> None:
    monkeypatch.setattr(attention_cpu, "bf16_is_faster", lambda: is_faster)
    windows, num_keys = _WINDOWS["blocks"]
    inputs = [x.bfloat16().requires_grad_() for x in _inputs(windows, num_keys)]
    q, k, p, pos, v, _ = inputs
    weights = attention_weights(q, k, p, pos, windows)
    sums = apply_weights(weights, v, windows)
    assert weights.dtype == (torch.bfloat16 if is_faster else torch.float32)
    assert sums.dtype == torch.bfloat16
    grad = torch.linspace(-1.0, 1.0, sums.numel()).sin().view_as(sums)
    sums.backward(grad.bfloat16())
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = apply_weights(attention_weights(*exact[:4], windows), exact[4], windows)
    expected.backward(grad.double())
    # Scores of up to 8 keep 8 bits where products are of bfloat16: weights are off by 2 %.
    tolerance = 0.03 if is_faster else 0.01
    torch.testing.assert_close(sums.double(), expected, rtol=tolerance, atol=tolerance)
    for own, wanted in zip(inputs[:5], exact[:5], strict=True):
        assert own.grad is not None and wanted.grad is not None
        assert own.grad.dtype == torch.bfloat16
        error = (own.grad.double() - wanted.grad).norm() / wanted.grad.norm()
        assert float(error) < tolerance


def test_penalty_pulls_at_large_scores_that_are_seen() -> None:
    windows = full_windows(3, torch.tensor([2]))
    q, k, p, pos, _, _ = (x[:, :1] for x in _inputs(full_windows(3, torch.tensor([2])), 3))
    pos = torch.zeros(5, _NUM_HEADS, _POS_DIM, dtype=torch.float64)
    q = torch.full_like(q, 2.0)
    k = torch.ones_like(k).requires_grad_()
    # Equal weights sum to 1 whatever k is: what gradient there is comes from the penalty alone.
    weights = attention_weights(q, k, p, pos, windows, score_limit=10.0, score_penalty=0.5)
    weights.sum().backward()
    assert k.grad is not None
    torch.testing.assert_close(k.grad[:2], torch.full_like(k.grad[:2], 3 * 0.5 * 2.0))
    assert not k.grad[2].any()


def test_a_query_that_sees_nothing_has_weights_of_zero() -> None:
    windows = full_windows(3, torch.tensor([0]))
    for dtype in (torch.float64, torch.float32):
        q, k, p, pos, _, _ = (x.to(dtype).requires_grad_() for x in _inputs(windows, 3))
        assert not attention_weights(q, k, p, pos, windows).any()


def test_shift_to_keys_runs_along_the_diagonals() -> None:
    table = torch.arange(8).expand(3, 8)  # S = 3, W = 6
    assert shift_to_keys(table.contiguous(), 6).tolist() == [
        [2, 3, 4, 5, 6, 7],
        [1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 5],
    ]
    assert shift_to_keys(torch.arange(4)[None], 4).tolist() == [[0, 1, 2, 3]]
