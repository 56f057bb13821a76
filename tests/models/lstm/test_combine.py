"""RandomCombine: which layers, and in what shares."""

import math

import pytest
import torch

from snowmelt.models.lstm.combine import RandomCombine, aux_layers


@pytest.mark.parametrize(
    ("num_layers", "period", "expected"),
    [(12, 3, (4, 7, 10, 11)), (12, 0, (11,)), (6, 1, (2, 3, 4, 5)), (1, 1, (0,)), (3, 9, (1, 2))],
)
def test_layers_that_take_part(num_layers: int, period: int, expected: tuple[int, ...]) -> None:
    assert aux_layers(num_layers, period) == expected


def _weights(combine: RandomCombine, num_frames: int = 40_000) -> torch.Tensor:
    """(frames, n): the parts that the inputs have in each frame."""
    n = combine.num_inputs
    inputs = [torch.eye(n)[i].expand(num_frames, 1, n) for i in range(n)]
    return combine(inputs).squeeze(1)


def test_evaluation_takes_the_last() -> None:
    inputs = [torch.randn(3, 2, 4) for _ in range(3)]
    before = torch.get_rng_state()
    assert RandomCombine(3).eval()(inputs) is inputs[-1]
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_of_a_frame_add_up_to_one() -> None:
    torch.manual_seed(0)
    weights = _weights(RandomCombine(3).train())
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))
    assert (weights >= 0).all()


def test_a_third_of_the_frames_is_one_input_and_half_of_these_the_last() -> None:
    torch.manual_seed(0)
    weights = _weights(RandomCombine(3).train())
    is_pure = (weights == 1.0).any(dim=1)
    assert float(is_pure.float().mean()) == pytest.approx(0.333, abs=0.02)
    shares = weights[is_pure].mean(dim=0)
    assert shares.tolist() == pytest.approx([0.25, 0.25, 0.5], abs=0.02)


def test_mixtures_favour_the_last_by_its_weight() -> None:
    torch.manual_seed(0)
    weights = _weights(RandomCombine(4, final_weight=0.8, pure_prob=0.0, stddev=2.0).train())
    logs = weights.double().log()
    logs = logs[logs.isfinite().all(dim=1)]
    advantage = (logs[:, 3:] - logs[:, :3]).mean()
    assert float(advantage) == pytest.approx(math.log(0.8 / 0.2 * 3.0), abs=0.1)
    spread = (logs[:, 0] - logs[:, 1]).std()
    assert float(spread) == pytest.approx(2.0 * 2.0**0.5, abs=0.1)


def test_gradients_go_to_all_inputs_in_their_shares() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    out = RandomCombine(3).train()(inputs)
    assert out.dtype == torch.float64
    grads = torch.autograd.grad(out.sum(), inputs)
    torch.testing.assert_close(torch.stack(grads).sum(dim=0), torch.ones_like(out))
