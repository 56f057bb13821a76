"""Does the optimiser's state lie where icefall's checkpoints have it?"""

from collections import defaultdict

import torch
from torch import nn

from snowmelt.optim.parameter_stacks import stack_parameters


def make(shapes, dtype=torch.float32):
    params = [
        nn.Parameter(torch.full(shape, float(i + 1), dtype=dtype)) for i, shape in enumerate(shapes)
    ]
    group = {"params": params, "size_update_period": 4}
    state = defaultdict(dict)
    return params, state, stack_parameters(group, state)


def test_layout():
    params, state, stacks = make([(8, 1, 3), (8,), (), (2, 384), (8,), (32,), ()])
    # scalars first, then by sizes as numbers: 8 before 32, (2, 384) before (8,)
    filed = [next(p for p in state if state[p] is stack.state) for stack in stacks]
    assert [tuple(p.shape) for p in filed] == [(), (2, 384), (8,), (8, 1, 3), (32,)]
    assert filed[0] is params[2]
    assert filed[2] is params[1]
    shapes = {
        name: tuple(value.shape) for name, value in state[params[1]].items() if name != "step"
    }
    assert list(shapes.items()) == [
        ("delta", (2, 8)),
        ("param_rms", (2, 1)),
        ("scale_exp_avg_sq", (2, 1)),
        ("scale_grads", (4, 2, 1)),
        ("exp_avg_sq", (2, 8)),
    ]
    assert list(state[params[2]]) == ["step", "delta", "exp_avg_sq"]
    assert state[params[2]]["delta"].shape == (2,)
    assert state[params[0]]["scale_grads"].shape == (4, 1, 1, 1, 1)


def test_types_are_separate_stacks():
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, dtype=torch.float64))]
    state = defaultdict(dict)
    stacks = stack_parameters({"params": params, "size_update_period": 4}, state)
    assert [stack.state["delta"].dtype for stack in stacks] == [torch.float32, torch.float64]


def test_first_sizes_are_those_of_the_parameters():
    params, state, _ = make([(2, 2), (2, 2)])
    assert state[params[0]]["param_rms"].flatten().tolist() == [1.0, 2.0]


def test_slices_are_views_and_cover_every_parameter_once():
    params, _, stacks = make([(40, 1000), (3,), (40, 1000), *[(30, 200)] * 20, ()])
    seen = []
    for stack in stacks:
        for piece in stack.slices:
            seen += piece.indexes
            assert all(p is params[i] for p, i in zip(piece.params, piece.indexes, strict=True))
            for tensor in (piece.delta, piece.exp_avg_sq, piece.param_rms, piece.scale_grads):
                if tensor is not None and tensor.numel():
                    owner = {
                        t.untyped_storage().data_ptr()
                        for t in stack.state.values()
                        if isinstance(t, torch.Tensor)
                    }
                    assert tensor.untyped_storage().data_ptr() in owner
            # a large parameter is not copied
            if piece.params[0].numel() > 10_000:
                assert piece.parameter().data_ptr() == piece.params[0].data_ptr()
    assert sorted(seen) == list(range(len(params)))


def test_missing_gradient_is_zero():
    params, _, stacks = make([(3,), (3,)])
    params[1].grad = torch.ones(3)
    (piece,) = stacks[0].slices
    assert piece.gradient().tolist() == [[0, 0, 0], [1, 1, 1]]
