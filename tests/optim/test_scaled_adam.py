"""Does ScaledAdam follow the formulas, clip, skip bad steps, and go on exactly after a restart?"""

import copy
import io
import logging
import math

import pytest
import torch
from torch import nn

from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.optim.eden import Eden
from snowmelt.optim.scaled_adam import ScaledAdam
from tests.optim.scaled_adam_oracle import Oracle

# Two stacks of several parameters, a lone one above the size that is not copied, scalars of two
# shapes, one tensor that is too small and one that is too large.
SHAPES = [(), (3, 4), (5,), (), (3, 4), (100, 90), (2, 1, 3), (5,), (1,), (3, 4), (5,)]
FACTORS = [1, 1, 1e-7, 9.9, 5, 1, 1, 1, 1, 1, 3.2]


def make_params(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).mul(f).to(dtype))
        for s, f in zip(SHAPES, FACTORS, strict=True)
    ]


def make_grads(step, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1000 + step)
    scale = 30.0 if step % 7 == 5 else 1.0
    grads = [scale * torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
    grads[3] = grads[3].abs() * -1  # pushes a scalar against its bound
    return [None if i == 4 and step in (2, 3) else g.to(dtype) for i, g in enumerate(grads)]


def make(params, **options):
    names = [f"p{i}" for i in range(len(params))]
    options = {"lr": 0.05, "clipping_scale": 2.0, "clipping_update_period": 8, **options}
    return ScaledAdam(params, parameters_names=[names], **options)


def run(optimizer, params, steps, dtype=torch.float64):
    for step in steps:
        for param, grad in zip(params, make_grads(step, dtype), strict=True):
            param.grad = grad
        optimizer.step()


@pytest.mark.parametrize("clip_main_update", [True, False])
@pytest.mark.parametrize("clipping_scale", [2.0, None])
def test_equals_the_formulas(clip_main_update, clipping_scale):
    params = make_params()
    oracle = Oracle(params, 0.05, clipping_scale, 8, clip_main_update)
    optimizer = make(params, clipping_scale=clipping_scale, clip_main_update=clip_main_update)
    for step in range(40):
        run(optimizer, params, [step])
        oracle.step(make_grads(step))
        for ours, theirs in zip(params, oracle.params, strict=True):
            # float64 with float32 norms: thresholds may differ in the 8th digit
            torch.testing.assert_close(ours.data, theirs, rtol=1e-6, atol=1e-9)
    if clipping_scale is not None:
        state = optimizer.state[params[0]]
        assert oracle.num_clipped > 0
        assert state["num_clipped"] == oracle.num_clipped
        assert state["model_norm_threshold"] == pytest.approx(oracle.threshold, rel=1e-6)


# Values of the original program (clip_main_update False), and of the formulas (True).
VECTORS = {
    False: {
        1: (0.9942262604, -2.0057737396, 0.5057737395, 4.0057737396, 0.5002505000, 0.02505000),
        4: (0.9688108289, -1.9917574441, 0.5578423633, 4.0370522635, 0.5018465957, 0.02520000),
        5: (0.9719889484, -1.9741805605, 0.5761159094, 4.0380758328, 0.5020499593, 0.02524999),
        8: (1.0039236882, -1.9411825332, 0.5820868926, 4.0092947701, 0.5010812184, 0.02539998),
        100: (1.0057101119, -1.9265928235, 0.5947292685, 3.9902447429, 0.5013895804, 0.02999700),
        102: (0.9858598470, -1.9024105905, 0.6466788207, 4.0560751213, 0.5043238445, 0.03009687),
        120: (0.6536531065, -1.9281950916, 1.0749784876, 4.7330258847, 0.5341517684, 0.03099554),
    },
    True: {
        102: (0.9793372670, -1.9294507534, 0.6203857463, 4.0223248111, 0.5027789140, 0.03009687),
        120: (0.9126051125, -1.9199727462, 0.6995631799, 4.1012952179, 0.5067129876, 0.03099554),
    },
}


@pytest.mark.parametrize("clip_main_update", [True, False])
def test_vectors_of_the_original(clip_main_update):
    matrix = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=torch.float64))
    scalar = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    optimizer = ScaledAdam(
        [matrix, scalar],
        lr=0.05,
        clipping_scale=2.0,
        parameters_names=[["matrix", "scalar"]],
        clip_main_update=clip_main_update,
    )
    eden = Eden(optimizer, 5000, 3.5)
    index = 2.0 * torch.arange(2, dtype=torch.float64)[:, None] + torch.arange(2)
    for k in range(120):
        factor = 50 if k >= 100 and k % 7 == 3 else 1
        matrix.grad = factor * torch.cos(0.7 * k + index)
        scalar.grad = torch.tensor(factor * math.cos(0.7 * k + 9), dtype=torch.float64)
        eden.step_batch(k + 1)
        optimizer.step()
        if k + 1 in VECTORS[clip_main_update]:
            *expected, lr = VECTORS[clip_main_update][k + 1]
            # norms are float32, so the threshold has 7 digits from step 101 on
            atol = 1e-9 if k < 100 else 1e-8
            values = [*matrix.flatten().tolist(), scalar.item()]
            assert values == pytest.approx(expected, rel=0, abs=atol), k + 1
            assert optimizer.param_groups[0]["lr"] == pytest.approx(lr, rel=0, abs=1e-8)
        if k + 1 == 102:
            assert optimizer.state[scalar]["num_clipped"] == 1
    state = optimizer.state[scalar]
    assert state["model_norm_threshold"] == pytest.approx(6.739265, abs=1e-6)
    assert state["num_clipped"] == 3


def test_original_does_not_clip_the_main_update():
    def size_of_step(**options):
        params = make_params()
        optimizer = make(params, **options)
        run(optimizer, params, range(10))
        before = params[5].detach().clone()
        for param, grad in zip(params, make_grads(10), strict=True):
            param.grad = 1e6 * grad
        optimizer.step()
        return (params[5] - before).norm().item()

    unclipped = size_of_step(clipping_scale=None, clip_main_update=False)
    assert size_of_step(clip_main_update=False) == pytest.approx(unclipped, rel=0.01)
    assert size_of_step(clip_main_update=True) < 0.6 * unclipped


def test_a_parameter_does_not_see_its_neighbours():
    together, alone = make_params(), make_params()
    run(make(together, clipping_scale=None), together, range(9))
    for i, param in enumerate(alone):
        optimizer = ScaledAdam([param], 0.05, parameters_names=[["p"]])
        for step in range(9):
            param.grad = make_grads(step)[i]
            optimizer.step()
        torch.testing.assert_close(param, together[i], rtol=1e-12, atol=1e-12)


def test_strides_do_not_matter():
    plain = [nn.Parameter(torch.arange(1.0, 13).reshape(3, 4).sqrt()) for _ in range(2)]
    turned = [nn.Parameter(p.detach().T.contiguous().T) for p in plain]
    for params in (plain, turned):
        optimizer = make(params, clipping_scale=None)
        for step in range(5):
            for param in params:
                param.grad = torch.cos(torch.arange(12.0).reshape(4, 3) + step).T
            optimizer.step()
    for a, b in zip(plain, turned, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def save_and_load(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stop", [0, 1, 6, 13])
def test_resuming_gives_the_same_bits(stop, dtype):
    params = make_params(dtype)
    optimizer = make(params)
    run(optimizer, params, range(stop), dtype)
    resumed = [nn.Parameter(p.detach().clone()) for p in params]
    optimizer_resumed = make(resumed, lr=0.7)
    optimizer_resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    run(optimizer, params, range(stop, 30), dtype)
    run(optimizer_resumed, resumed, range(stop, 30), dtype)
    for a, b in zip(params, resumed, strict=True):
        assert torch.equal(a, b)
    ours, theirs = optimizer.state_dict(), optimizer_resumed.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for key, entry in ours["state"].items():
        assert list(entry) == list(theirs["state"][key])
        for name, value in entry.items():
            other = theirs["state"][key][name]
            if isinstance(value, torch.Tensor):
                assert value.dtype == other.dtype
                assert torch.equal(value, other), name
            else:
                assert value == other, name


def test_loading_does_not_share_memory():
    params = make_params()
    optimizer = make(params)
    run(optimizer, params, range(3))
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    other = make_params()
    optimizer_other = make(other)
    optimizer_other.load_state_dict(state)
    run(optimizer_other, other, range(3, 6))
    for key, entry in before["state"].items():
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, state["state"][key][name]), name


def test_state_of_the_original_loads_and_keeps_our_options():
    params = make_params()
    optimizer = make(params)
    run(optimizer, params, range(3))
    state = optimizer.state_dict()
    for name in ("param_names", "clip_main_update"):  # icefall does not know these
        del state["param_groups"][0][name]
    other = make_params()
    optimizer_other = make(other, clip_main_update=False)
    optimizer_other.load_state_dict(state)
    assert optimizer_other.param_groups[0]["clip_main_update"] is False
    assert optimizer_other.param_groups[0]["param_names"][1] == "p1"
    run(optimizer_other, other, range(3, 5))
    assert optimizer_other.state[other[0]]["step"] == 5


def test_misfitting_state_is_refused():
    def optimizer_for(shapes, names):
        params = [nn.Parameter(torch.ones(s)) for s in shapes]
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer = ScaledAdam(params, parameters_names=[names])
        optimizer.step()
        return optimizer

    saved = optimizer_for([(2,), (2,), (3,)], ["a", "b", "c"]).state_dict()
    nameless = copy.deepcopy(saved)
    del nameless["param_groups"][0]["param_names"]

    def refusal(state, shapes, names):
        with pytest.raises(CheckpointError) as error:
            optimizer_for(shapes, names).load_state_dict(state)
        return str(error.value)

    assert "3 parameters instead of 2" in refusal(saved, [(2,), (3,)], ["a", "c"])
    assert "'b' where the model has 'x'" in refusal(saved, [(2,), (2,), (3,)], ["a", "x", "c"])
    assert "other parameters" in refusal(nameless, [(3,), (2,), (2,)], ["a", "b", "c"])
    text = refusal(nameless, [(2,), (2,), (4,)], ["a", "b", "c"])
    assert "'delta' of 'c' is (1, 3) instead of (1, 4)" in text
    del nameless["state"][0]["exp_avg_sq"]
    text = refusal(nameless, [(2,), (2,), (3,)], ["a", "b", "c"])
    assert "'exp_avg_sq' of 'a' is nothing instead of (2, 2)" in text


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("where", [0, 5, 10])
def test_step_with_bad_gradient_changes_nothing(bad, where, caplog):
    params = make_params(torch.float32)
    optimizer = make(params)
    run(optimizer, params, range(5), torch.float32)
    before = copy.deepcopy([p.detach() for p in params]), copy.deepcopy(optimizer.state_dict())
    params[where].grad.view(-1)[-1] = bad
    with caplog.at_level(logging.WARNING):
        optimizer.step()
    assert optimizer.num_skipped_steps == 1
    assert f"the gradient of p{where} is not finite (1 of 11 parameters)" in caplog.text
    for old, param in zip(before[0], params, strict=True):
        assert torch.equal(old, param)
    for key, entry in before[1]["state"].items():
        for name, value in entry.items():
            now = optimizer.state_dict()["state"][key][name]
            assert torch.equal(value, now) if isinstance(value, torch.Tensor) else value == now
    # and the run goes on as if the step had not been
    run(optimizer, params, range(5, 8), torch.float32)
    undisturbed = make_params(torch.float32)
    run(make(undisturbed), undisturbed, range(8), torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(params, undisturbed, strict=True))


def test_bad_gradient_in_one_group_stops_all_groups():
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    groups = [{"params": [p]} for p in params]
    optimizer = ScaledAdam(groups, parameters_names=[["a"], ["b"]])
    params[0].grad = torch.ones(3)
    params[1].grad = torch.full((3,), math.nan)
    optimizer.step()
    assert torch.equal(params[0], torch.ones(3))
    params[1].grad = torch.ones(3)
    optimizer.step()
    assert not torch.equal(params[0], torch.ones(3))


def test_without_gradient_momentum_goes_on():
    params = make_params()
    optimizer = make(params)
    run(optimizer, params, range(3))
    before = params[1].detach().clone()
    optimizer.zero_grad()
    optimizer.step()
    assert not torch.equal(params[1], before)


def test_strong_clipping_names_the_culprit(caplog):
    params = make_params()
    optimizer = make(params)
    run(optimizer, params, range(9))
    params[5].grad = params[5].grad * 1e6
    with caplog.at_level(logging.WARNING):
        optimizer.step()
    assert "100% of their squared norm is in p5" in caplog.text


def test_clipping_switched_on_in_mid_run_waits_for_norms():
    params = make_params()
    optimizer = make(params, clipping_scale=None)
    run(optimizer, params, range(10))
    assert "model_norms" not in optimizer.state[params[0]]
    optimizer.param_groups[0]["clipping_scale"] = 2.0
    run(optimizer, params, range(10, 16))
    assert "model_norm_threshold" not in optimizer.state[params[0]]
    run(optimizer, params, [16])
    assert optimizer.state[params[0]]["model_norm_threshold"] > 0


def test_copy_of_an_optimizer_works_on_its_own_state():
    params = make_params()
    optimizer = make(params)
    run(optimizer, params, range(3))
    twin_params, twin = copy.deepcopy((params, optimizer))
    run(optimizer, params, range(3, 6))
    run(twin, twin_params, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(params, twin_params, strict=True))


def test_closure():
    param = nn.Parameter(torch.ones(3))
    optimizer = ScaledAdam([param], parameters_names=[["p"]])

    def closure():
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3.0
    assert not torch.equal(param, torch.ones(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be >= 0, got -1.0"),
        ({"clipping_scale": 0.0}, "clipping_scale must be > 0 or None, got 0.0"),
        ({"betas": (0.9, 1.0)}, "betas must be in"),
        ({"size_update_period": 0}, "size_update_period must be >= 1, got 0"),
        ({"parameters_names": [["a", "b"]]}, "1 parameters, but 2 names"),
        ({"parameters_names": []}, "1 parameter groups, but names for 0 groups"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        ScaledAdam([nn.Parameter(torch.ones(2))], **{"parameters_names": [["a"]], **options})
