"""Does Eve follow its formulas, skip bad steps whole, and go on exactly after a restart?"""

import copy
import io
import logging
import math

import pytest
import torch
from torch import nn

from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.optim.eden import Eden
from snowmelt.optim.eve import Eve

# Scalars of either shape, tensors above and below the target; the last one crosses it.
SHAPES = [(), (3, 4), (5,), (1,), (2, 1, 3), (40, 30)]
FACTORS = [1, 1, 1e-3, 1, 0.12, 0.098]


def make_params(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    values = [
        torch.randn(s, generator=generator, dtype=torch.float64).mul(f)
        for s, f in zip(SHAPES, FACTORS, strict=True)
    ]
    values[3].fill_(1.9)  # just below its bound
    return [nn.Parameter(value.to(dtype)) for value in values]


def make_grads(step, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1000 + step)
    grads = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
    grads[3] = -grads[3].abs()  # pushes a scalar against its bound
    grads[4] = None if step in (0, 3, 4) else grads[4]
    return [None if g is None else g.to(dtype) for g in grads]


def run(optimizer, params, steps, dtype=torch.float64):
    for step in steps:
        for param, grad in zip(params, make_grads(step, dtype), strict=True):
            param.grad = grad
        optimizer.step()


class Oracle:
    """The formulas, one parameter and one line after the other."""

    def __init__(self, params, lr, weight_decay=1e-3, target_rms=0.1):
        self.params = [p.detach().clone() for p in params]
        self.m = [torch.zeros_like(p) for p in self.params]
        self.v = [torch.zeros_like(p) for p in self.params]
        self.t = [0] * len(self.params)
        self.lr, self.weight_decay, self.target_rms = lr, weight_decay, target_rms

    def step(self, grads):
        for i, g in enumerate(grads):
            if g is None:
                continue
            p = self.params[i]
            self.t[i] += 1
            self.m[i] = 0.9 * self.m[i] + 0.1 * g
            self.v[i] = 0.98 * self.v[i] + 0.02 * g**2
            d = self.v[i].sqrt() / math.sqrt(1 - 0.98 ** self.t[i]) + 1e-8
            if p.numel() > 1 and p.norm() > self.target_rms * math.sqrt(p.numel()):
                p = p * (1 - self.weight_decay)
            p = p - self.lr / (1 - 0.9 ** self.t[i]) * self.m[i] / d
            self.params[i] = p.clamp(-10, 2) if p.numel() == 1 else p


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-11, 1e-13), (torch.float32, 1e-5, 1e-6)]
)
def test_equals_the_formulas(dtype, rtol, atol):
    params = make_params(dtype)
    optimizer, oracle = Eve(params, lr=0.01), Oracle(make_params(), 0.01)
    above = set()
    for step in range(40):
        run(optimizer, params, [step], dtype)
        oracle.step(make_grads(step))
        for ours, theirs in zip(params, oracle.params, strict=True):
            torch.testing.assert_close(ours.detach().double(), theirs, rtol=rtol, atol=atol)
        above.add(bool(oracle.params[5].square().mean().sqrt() > 0.1))
    assert above == {True, False}, "no parameter crossed the target: the test lost its point"
    assert params[3].item() == 2.0, "no scalar met its bound"


# Values of the original program after so many steps: a matrix, row by row, and a scalar.
VECTORS = {
    1: (0.9960000129, -2.0010000257, 0.5025000063, 3.9990000514, 0.5029999999),
    4: (0.9862515817, -1.9938350665, 0.5096373650, 3.9943344789, 0.5111414387),
    100: (0.8971777848, -1.8057824589, 0.4673901695, 3.6280383650, 0.5122921295),
    120: (0.8638026894, -1.7658303587, 0.4775419033, 3.5818478171, 0.5390453419),
}


def test_vectors_of_the_original():
    matrix = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=torch.float64))
    scalar = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    # The original's decay factor is the float32 number next to 0.999.
    factor = float(torch.tensor(1.0) - torch.tensor(1e-3))
    optimizer = Eve([matrix, scalar], lr=0.003, weight_decay=1 - factor)
    eden = Eden(optimizer, 5000, 10, warmup_batches=0, base_lr_key="initial_lr")
    index = 2.0 * torch.arange(2, dtype=torch.float64)[:, None] + torch.arange(2)
    for k in range(120):
        size = 50 if k >= 100 and k % 7 == 3 else 1
        matrix.grad = size * torch.cos(0.7 * k + index)
        scalar.grad = torch.tensor(size * math.cos(0.7 * k + 9), dtype=torch.float64)
        eden.step_batch(k + 1)
        optimizer.step()
        if k + 1 in VECTORS:
            values = [*matrix.flatten().tolist(), scalar.item()]
            assert values == pytest.approx(VECTORS[k + 1], rel=0, abs=1e-9), k + 1


def test_decay_does_not_depend_on_the_learning_rate():
    large, small = nn.Parameter(torch.full((4,), 0.2)), nn.Parameter(torch.full((4,), 0.05))
    optimizer = Eve([large, small], lr=0.0, weight_decay=0.1)
    large.grad, small.grad = torch.zeros(4), torch.zeros(4)
    optimizer.step()
    torch.testing.assert_close(large.data, torch.full((4,), 0.18))
    assert torch.equal(small.data, torch.full((4,), 0.05))


def test_a_parameter_without_gradient_is_left_alone():
    params = make_params()
    optimizer = Eve(params, lr=0.01)
    before = params[4].detach().clone()
    run(optimizer, params, [0])
    assert torch.equal(params[4], before)
    assert params[4] not in optimizer.state
    run(optimizer, params, [1])
    assert optimizer.state[params[4]]["step"] == 1
    assert optimizer.state[params[1]]["step"] == 2


def test_strides_do_not_matter():
    plain = nn.Parameter(torch.arange(1.0, 13).reshape(3, 4).sqrt())
    turned = nn.Parameter(plain.detach().t().contiguous().t())
    assert plain.stride() != turned.stride()
    optimizers = [Eve([plain], lr=0.01), Eve([turned], lr=0.01)]
    for step in range(3):
        grad = torch.cos(torch.arange(12.0).reshape(3, 4) + step)
        plain.grad = grad.t().contiguous().t()
        turned.grad = grad
        for optimizer in optimizers:
            optimizer.step()
        plain.grad = torch.full((), 0.5).expand(3, 4)
        turned.grad = torch.full((3, 4), 0.5)
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(plain, turned)


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e30])
def test_a_step_that_is_not_finite_is_skipped_whole(bad, caplog):
    # 1e30 itself is finite, its square in float32 is not.
    params = make_params(torch.float32)
    groups = [
        {"params": [(f"p{i}", p) for i, p in enumerate(params[:2])]},
        {"params": [(f"p{i + 2}", p) for i, p in enumerate(params[2:])]},
    ]
    optimizer = Eve(groups, lr=0.01)
    run(optimizer, params, range(3), torch.float32)
    before = [p.detach().clone() for p in params]
    state = copy.deepcopy(optimizer.state_dict()["state"])

    for param, grad in zip(params, make_grads(6, torch.float32), strict=True):
        param.grad = grad
    params[5].grad[7, 3] = bad
    with caplog.at_level(logging.WARNING):
        optimizer.step()
    assert optimizer.num_skipped_steps == 1
    assert caplog.messages == ["step skipped: the gradient of p5 is not finite (1 of 4 parameters)"]
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    after = optimizer.state_dict()["state"]
    for key, entry in state.items():
        assert entry["step"] == after[key]["step"]
        assert torch.equal(entry["exp_avg"], after[key]["exp_avg"])
        assert torch.equal(entry["exp_avg_sq"], after[key]["exp_avg_sq"])

    run(optimizer, params, [7], torch.float32)
    assert optimizer.num_skipped_steps == 1
    assert not torch.equal(params[0], before[0])


def test_without_any_gradient_nothing_happens():
    params = make_params()
    optimizer = Eve(params)
    optimizer.step()
    assert optimizer.num_skipped_steps == 0
    assert not optimizer.state


def test_closure_is_evaluated():
    param = nn.Parameter(torch.ones(3))
    optimizer = Eve([param], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3.0
    assert bool((param < 1).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_going_on_from_a_saved_state_is_exact(dtype):
    params = make_params(dtype)
    optimizer = Eve(params, lr=0.01)
    run(optimizer, params, range(5), dtype)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    resumed_params = [nn.Parameter(p.detach().clone()) for p in params]
    file.seek(0)
    state = torch.load(file, weights_only=True)
    untouched = copy.deepcopy(state)
    resumed = Eve(resumed_params, lr=0.5)
    resumed.load_state_dict(state)
    assert resumed.param_groups[0]["lr"] == 0.01
    run(optimizer, params, range(5, 9), dtype)
    run(resumed, resumed_params, range(5, 9), dtype)
    assert all(torch.equal(p, q) for p, q in zip(params, resumed_params, strict=True))
    for key, entry in untouched["state"].items():
        assert torch.equal(entry["exp_avg"], state["state"][key]["exp_avg"]), "wrote into the dict"


def test_state_has_the_layout_of_the_original():
    params = make_params()
    optimizer = Eve(params, lr=0.003)
    Eden(optimizer, 5000, 10, warmup_batches=0, base_lr_key="initial_lr")
    run(optimizer, params, [1])
    state = optimizer.state_dict()
    assert state["param_groups"] == [
        {
            "lr": 0.003,
            "betas": (0.9, 0.98),
            "eps": 1e-8,
            "weight_decay": 1e-3,
            "target_rms": 0.1,
            "initial_lr": 0.003,
            "params": [0, 1, 2, 3, 4, 5],
        }
    ]
    assert list(state["state"]) == [0, 1, 2, 3, 4, 5]
    assert list(state["state"][1]) == ["step", "exp_avg", "exp_avg_sq"]
    assert state["state"][1]["step"] == 1
    assert isinstance(state["state"][1]["step"], int)
    assert state["state"][1]["exp_avg"].shape == (3, 4)


def named(params, names="abcdef"):
    return list(zip(names, params, strict=True))


def saved_state():
    params = make_params()
    optimizer = Eve(named(params), lr=0.003)
    run(optimizer, params, range(2))
    return optimizer.state_dict()


def test_a_state_without_names_and_new_options_loads():
    state = saved_state()
    del state["param_groups"][0]["param_names"], state["param_groups"][0]["target_rms"]
    optimizer = Eve(named(make_params()), target_rms=0.2)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["target_rms"] == 0.2
    assert optimizer.param_groups[0]["param_names"] == list("abcdef")


def rename(state):
    state["param_groups"][0]["param_names"][1] = "z"


def shorten(state):
    state["param_groups"][0]["params"].pop()


def reshape(state):
    state["state"][2]["exp_avg"] = torch.zeros(3, 4)


def empty(state):
    del state["state"][2]["exp_avg_sq"]


def forget(state):
    del state["state"][0]["step"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (rename, "parameter 'z' where the model has 'b'"),
        (shorten, "5 parameters instead of 6"),
        (reshape, r"'exp_avg' of 'c' is \(3, 4\) instead of \(5,\)"),
        (empty, r"'exp_avg_sq' of 'c' is nothing instead of \(5,\)"),
        (forget, "no 'step' of 'a'"),
    ],
)
def test_a_state_of_other_parameters_is_refused(spoil, message):
    state = copy.deepcopy(saved_state())
    spoil(state)
    optimizer = Eve(named(make_params()))
    with pytest.raises(CheckpointError, match=message):
        optimizer.load_state_dict(state)
    assert not optimizer.state, "nothing may be loaded from it"


@pytest.mark.parametrize(
    "option",
    [
        {"lr": -1.0},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"eps": -1e-8},
        {"weight_decay": 0.2},
        {"weight_decay": -0.1},
        {"target_rms": 0.0},
        {"target_rms": 11.0},
    ],
)
def test_arguments_are_checked(option):
    [(name, value)] = option.items()
    with pytest.raises(ConfigError) as caught:
        Eve([nn.Parameter(torch.zeros(2))], **option)
    assert caught.value.message.startswith(f"{name} must be ")
    assert caught.value.message.endswith(f"got {value}")
    assert caught.value.hint


def test_a_parameter_with_gaps_is_refused():
    view = nn.Parameter(torch.zeros(4, 6)[:, ::2])
    with pytest.raises(ConfigError, match="parameter 1 is a view with gaps"):
        Eve([nn.Parameter(torch.zeros(2)), view])
