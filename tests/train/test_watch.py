"""Is every tensor shown, under its name and in order, without changing what is learnt?"""

import torch
from torch import nn

from snowmelt.train.watch import watch_tensors
from tests.train.watched import Small, TinyTransducer


def test_names_order_and_values():
    torch.manual_seed(0)
    model, x = Small(), torch.randn(5, 12)
    seen = []
    stop = watch_tensors(model, lambda name, tensor: seen.append((name, tensor)))
    model(x).backward()
    names = [name for name, _ in seen]
    forward = [
        "first.output",
        "middle.output[0]",
        "middle.output[2]['scale']",  # [1] holds integers
        "last.output",
        "Small.output",
    ]
    assert names[:5] == forward
    assert sorted(names[5:]) == sorted(
        [name.replace(".output", ".grad") for name in forward]
        + [f"{part}.{kind}.param_grad" for part in ("first", "last") for kind in ("weight", "bias")]
    )
    assert names.index("last.grad") < names.index("first.grad")
    tensors = dict(seen)
    assert torch.equal(tensors["first.output"], model.first(x))
    assert torch.equal(tensors["last.grad"], torch.ones(5, 3))
    assert torch.equal(tensors["first.weight.param_grad"], model.first.weight.grad)
    assert not any(tensor.requires_grad for tensor in tensors.values())

    seen.clear()
    loss = model(x)
    seen.clear()
    stop()
    loss.backward()
    model(x).backward()
    assert seen == []
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(p._backward_hooks for p in model.parameters())


def test_a_parameter_that_is_handed_through_is_shown_once_per_batch():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self):
            return self.weight

    table, names = Table(), []
    watch_tensors(table, lambda name, tensor: names.append(name))
    for _ in range(2):
        table().sum().backward()
    assert names == ["Table.output", "weight.param_grad"] * 2


def test_without_gradients_only_outputs_are_shown():
    model, names = Small(), []
    model.first.weight.requires_grad_(False)
    watch_tensors(model, lambda name, tensor: names.append(name))
    with torch.no_grad():
        model(torch.ones(1, 12))
    assert names[-1] == "Small.output"
    assert all(".output" in name for name in names)
    model(torch.ones(1, 12)).backward()
    assert "first.weight.param_grad" not in names
    assert "first.bias.param_grad" in names


def test_looking_changes_no_number():
    plain, watched = TinyTransducer(), TinyTransducer()
    names = []
    watch_tensors(watched, lambda name, tensor: names.append(name))
    for model in (plain, watched):
        model(seed=3).backward()
    assert any(name.startswith("model.encoder.encoders.") for name in names)
    for (name, p), q in zip(plain.named_parameters(), watched.parameters(), strict=True):
        if p.grad is None:
            assert q.grad is None, name
        else:
            assert torch.equal(p.grad, q.grad), name
