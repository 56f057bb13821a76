"""The recursion as a differentiable function: gradients, joint shares, arguments."""

import pytest
import torch
from torch import Tensor

from snowmelt.core.errors import UserError
from snowmelt.loss.recursion import (
    joint_mutual_information_recursion,
    mutual_information_recursion,
    whole_lattice,
)


def arcs(n: int, s: int, t: int, *, is_regular: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    px = torch.randn(n, s, t + int(is_regular), generator=generator, dtype=torch.float64)
    py = torch.randn(n, s + 1, t, generator=generator, dtype=torch.float64)
    return px.requires_grad_(), py.requires_grad_()


@pytest.mark.parametrize("is_regular", [True, False])
@pytest.mark.parametrize("boundary", [None, torch.tensor([[0, 0, 2, 4], [1, 1, 3, 3]])])
def test_gradcheck(is_regular: bool, boundary: Tensor | None) -> None:
    px, py = arcs(2, 3, 4, is_regular=is_regular)
    assert torch.autograd.gradcheck(
        lambda x, y: mutual_information_recursion(x, y, boundary), (px, py)
    )


def test_returned_gradient_is_that_of_the_summed_scores() -> None:
    px, py = arcs(3, 2, 5, is_regular=True)
    scores, (px_grad, py_grad) = mutual_information_recursion(px, py, return_grad=True)
    assert not px_grad.requires_grad and not py_grad.requires_grad
    wanted = torch.autograd.grad(scores.sum(), (px, py))
    assert torch.equal(px_grad, wanted[0]) and torch.equal(py_grad, wanted[1])


def test_weight_of_each_utterance_reaches_its_gradient() -> None:
    px, py = arcs(2, 2, 3, is_regular=True)
    scores, (px_grad, _) = mutual_information_recursion(px, py, return_grad=True)
    (weighted,) = torch.autograd.grad(scores @ torch.tensor([2.0, -3.0]).double(), px)
    torch.testing.assert_close(weighted, torch.stack([2 * px_grad[0], -3 * px_grad[1]]))


def test_no_boundary_is_the_whole_lattice() -> None:
    px, py = arcs(2, 3, 4, is_regular=True)
    explicit = mutual_information_recursion(px, py, whole_lattice(2, 3, 4))
    assert torch.equal(mutual_information_recursion(px, py), explicit)
    assert whole_lattice(2, 3, 4).tolist() == [[0, 0, 3, 4], [0, 0, 3, 4]]


def test_joint_shares_add_up_and_have_the_right_gradient() -> None:
    sources = [arcs(2, 3, 4, is_regular=True, seed=seed) for seed in (1, 2, 3)]
    px, py = [x for x, _ in sources], [y for _, y in sources]
    shares = joint_mutual_information_recursion(px, py)
    assert shares.shape == (3, 2)
    total = mutual_information_recursion(sum(px), sum(py))
    torch.testing.assert_close(shares.sum(dim=0), total)
    for ours, wanted in zip(
        torch.autograd.grad(shares.sum(), px), torch.autograd.grad(total.sum(), px), strict=True
    ):
        torch.testing.assert_close(ours, wanted)


def test_joint_share_of_a_forbidden_arc_is_zero_not_nan() -> None:
    px, py = arcs(1, 1, 2, is_regular=True)
    px = px.detach()
    px[0, 0, 2] = -torch.inf
    assert joint_mutual_information_recursion([px], [py]).isfinite().all()


@pytest.mark.parametrize(
    ("px", "py", "boundary", "message"),
    [
        (torch.zeros(1, 2, 4), torch.zeros(1, 3, 3).double(), None, "float32 or float64"),
        (torch.zeros(1, 2, 4).half(), torch.zeros(1, 3, 3).half(), None, "half precision"),
        (torch.zeros(1, 2, 5), torch.zeros(1, 3, 3), None, r"\(1, 2, 5\)"),
        (torch.zeros(1, 2, 1), torch.zeros(1, 3, 0), None, "T >= 1"),
        (torch.zeros(1, 2, 4), torch.zeros(1, 3, 3), torch.zeros(1, 4), "int64"),
        (
            torch.zeros(2, 2, 4),
            torch.zeros(2, 3, 3),
            torch.tensor([[0, 0, 2, 3], [0, 0, 3, 3]]),
            "utterance 1",
        ),
        (
            torch.zeros(1, 2, 4),
            torch.zeros(1, 3, 3),
            torch.tensor([[2, 0, 1, 3]]),
            "outside the lattice",
        ),
    ],
)
def test_bad_arguments(px: Tensor, py: Tensor, boundary: Tensor | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mutual_information_recursion(px, py, boundary)


def test_joint_needs_pairs() -> None:
    with pytest.raises(UserError, match="equally many"):
        joint_mutual_information_recursion([torch.zeros(1, 1, 2)], [])
