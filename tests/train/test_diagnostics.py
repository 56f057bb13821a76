"""Are the statistics those of all batches together, and is what is kept bounded?"""

import math

import pytest
import torch
from torch import nn

from snowmelt.train import diagnostics as diagnostics_module
from snowmelt.train.diagnostics import Diagnostics
from tests.train.watched import Small, TinyTransducer

STATISTICS = ["abs", "positive", "value", "rms", "min", "max", "eigs"]


def table(report):
    """(tensor, dimension, statistic) -> the numbers of a line: mean, 0 %, 10 %, ..., 100 %."""
    rows = {}
    for line in report.splitlines()[1:]:
        if line.startswith(("no gradient", "eigenvalues")):
            continue
        name, dim, size, statistic, *numbers = line.rsplit(maxsplit=15)
        rows[name, dim, statistic] = (int(size), [float(number) for number in numbers])
    return rows


def expected(values):
    """The numbers of every statistic for (M, size) values."""
    values = values.detach().double()
    moment = values.T @ values / len(values)
    by_place = {
        "abs": values.abs().mean(0),
        "positive": (values > 0).double().mean(0),
        "value": values.mean(0),
        "rms": values.square().mean(0).sqrt(),
        "min": values.min(0).values,
        "max": values.max(0).values,
        "eigs": torch.linalg.eigvalsh(moment),
    }
    numbers = {}
    for statistic, per_place in by_place.items():
        ordered = sorted(per_place.tolist())
        picks = [ordered[round(p / 10 * (len(ordered) - 1))] for p in range(11)]
        numbers[statistic] = [sum(ordered) / len(ordered), *picks]
    return numbers


def check(rows, name, dim, values):
    for statistic, numbers in expected(values).items():
        size, found = rows[name, dim, statistic]
        assert size == values.shape[1]
        # Three digits are printed; eigenvalues near 0 are rounding.
        assert found == pytest.approx(numbers, rel=6e-3, abs=1e-5), (name, statistic)


def test_statistics_are_those_of_all_batches():
    torch.manual_seed(0)
    model = Small()
    batches = [torch.randn(5, 7, 12), 3 * torch.randn(2, 9, 12) + 1]
    outputs, gradients, weight_gradients = [], [], []
    model.first.register_forward_hook(lambda m, i, o: outputs.append(o.detach()))
    with Diagnostics(model) as diagnostics:
        for x in batches:
            model.zero_grad()
            model(x).backward()
            weight_gradients.append(model.first.weight.grad.clone())
    model(100 * torch.randn(5, 7, 12)).backward()  # nobody looks any more

    report = diagnostics.report()
    rows = table(report)
    check(rows, "first.output", "2/3", torch.cat([o.reshape(-1, 16) for o in outputs[:2]]))
    check(rows, "first.weight.param_grad", "1/2", torch.cat(weight_gradients))
    check(rows, "first.weight.param_grad", "0/2", torch.cat([g.T for g in weight_gradients]))
    check(rows, "first.weight.param", "1/2", model.first.weight)
    check(rows, "first.bias.param", "0/1", model.first.bias[None])
    # d tanh(x) = exp(x) (last weight summed over its outputs)
    scale = [model.last.weight.sum(0) * o.exp() for o in outputs[:2]]
    gradients = torch.cat([s.reshape(-1, 16) for s in scale])
    check(rows, "middle.grad[0]", "2/3", gradients)
    # 3 outputs, 5, 7, 2 and 9 are too few, and the other parts of the table are known.
    assert ("last.output", "2/3", "abs") not in rows
    assert {size for size, _ in rows.values()} == {12, 16}


def test_sorted_by_name_with_statistics_in_order():
    model = Small()
    with Diagnostics(model) as diagnostics:
        model(torch.randn(5, 12)).backward()
    keys = list(table(diagnostics.report()))
    names = [name for name, _, _ in keys]
    assert names == sorted(names)
    assert [s for n, _, s in keys if n == "first.output"] == STATISTICS
    widths = {len(line) for line in diagnostics.report().splitlines() if "no gradient" not in line}
    assert len(widths) == 1, "columns are not aligned"


def test_names_parameters_without_gradient():
    model = Small()
    with Diagnostics(model) as diagnostics:
        model(torch.randn(5, 12)).backward()
    lines = diagnostics.report().splitlines()
    assert [line for line in lines if line.startswith("no gradient")] == [
        "no gradient: unused.bias",
        "no gradient: unused.weight",
    ]


def test_a_dimension_of_changing_length_is_left_out():
    model = nn.Identity()
    with Diagnostics(model) as diagnostics:
        for num_frames in (20, 5, 20, 31, 20):
            model(torch.ones(12, num_frames, 16))
    dims = {dim for name, dim, _ in table(diagnostics.report())}
    assert dims == {"0/3", "2/3"}
    left = diagnostics_module._MAX_MOMENT_ELEMENTS - 12**2 - 16**2
    assert diagnostics._moment_elements_left == left, "room was not given back"


@pytest.mark.parametrize(
    ("size", "is_measured"), [(10, False), (11, True), (31, False), (32, True)]
)
def test_which_dimensions_are_measured(size, is_measured):
    model = nn.Identity()
    with Diagnostics(model) as diagnostics:
        model(torch.ones(3, size))
    assert bool(table(diagnostics.report())) is is_measured


def test_no_eigenvalues_of_long_dimensions_or_without_room(monkeypatch):
    model = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Identity()])
    monkeypatch.setattr(diagnostics_module, "_MAX_MOMENT_ELEMENTS", 2 * 20**2 - 1)
    with Diagnostics(model) as diagnostics:
        model[0](torch.ones(3, 513))
        model[1](torch.ones(3, 20))
        model[2](torch.ones(3, 20))
    rows = table(diagnostics.report())
    assert [n for n, _, s in rows if s == "eigs"] == ["1.output"]
    assert [n for n, _, s in rows if s == "rms"] == ["0.output", "1.output", "2.output"]
    assert diagnostics.report().endswith("the model is too large for all of them")


def test_a_nan_is_shown_where_it_is():
    model = nn.Identity()
    x = torch.ones(4, 12)
    x[2, 7] = math.nan
    with Diagnostics(model) as diagnostics:
        model(x)
    rows = table(diagnostics.report())
    _, numbers = rows["Identity.output", "1/2", "abs"]
    assert numbers[1:11] == [1.0] * 10
    assert math.isnan(numbers[11])
    _, numbers = rows["Identity.output", "1/2", "eigs"]
    assert all(map(math.isnan, numbers))


def test_products_are_exact_under_autocast():
    # 1 + 2^-9 is 1 in bfloat16.
    model = nn.Identity()
    with Diagnostics(model) as diagnostics, torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.full((1, 16), 1 + 2**-9))
    assert diagnostics._places["Identity.output", 2, 1]._moment[0, 0].item() == (1 + 2**-9) ** 2


def test_a_transducer():
    model = TinyTransducer()
    with Diagnostics(model) as diagnostics:
        for seed, num_frames in enumerate((120, 160)):
            model(seed, num_frames).backward()
        kept = len(diagnostics._places)
        model(3, 120).backward()
        assert len(diagnostics._places) <= kept, "more batches, more to keep"
    rows = table(diagnostics.report())
    names = {name for name, _, _ in rows}
    assert "model.encoder.encoders.0.layers.0.output" in names
    assert "model.encoder.encoders.0.layers.0.grad" in names
    assert "model.joiner.output_linear.weight.param" in names
    assert "model.joiner.output_linear.weight.param_grad" in names
