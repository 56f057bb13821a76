"""Do the averages hold what they promise, and are the right files chosen?"""

import copy
import logging

import pytest
import torch
from torch import nn

from snowmelt.checkpoint.average import (
    average_checkpoints,
    average_checkpoints_with_averaged_model,
    find_checkpoints,
    load_average,
    update_averaged_model,
)
from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.core.errors import CheckpointError

PERIOD = 10


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def model_at(batch):
    """State dict after `batch` batches of an imaginary training."""
    generator = torch.Generator().manual_seed(batch)
    state = make_model().state_dict()
    for value in state.values():
        if value.is_floating_point():
            value += torch.randn(value.shape, generator=generator)
        else:
            value += batch
    return state


def train(stop, float64_part=False):
    """Checkpoint after `stop` batches, with the running mean kept on the way."""
    model, average = make_model(), make_model().to(torch.float64)
    for batch in range(1, stop + 1):
        model.load_state_dict(model_at(batch))
        if batch % PERIOD == 0:
            update_averaged_model(model, average, batch, PERIOD)
    mean = average.state_dict()
    checkpoint = {
        "model": model.state_dict(),
        "model_avg": {k: v.float() if v.is_floating_point() else v for k, v in mean.items()},
        "batch_idx_train": stop,
        "average_period": PERIOD,
    }
    return {**checkpoint, "snowmelt": {"model_avg": mean}} if float64_part else checkpoint


def mean_of(batches):
    states = [model_at(batch) for batch in batches]
    return {k: sum(s[k].double() for s in states) / len(states) for k in states[0]}


def assert_mean(result, batches, rtol=1e-5):
    for key, value in mean_of(batches).items():
        if result[key].is_floating_point():
            assert result[key].dtype is torch.float32
            # rtol: the running mean was stored in float32, and differences of it lose a digit
            torch.testing.assert_close(result[key].double(), value, rtol=rtol, atol=1e-6)


def test_running_mean_is_the_mean_of_the_models():
    checkpoint = train(55, float64_part=True)
    mean = checkpoint["snowmelt"]["model_avg"]
    for key, value in mean_of([10, 20, 30, 40, 50]).items():
        if mean[key].is_floating_point():
            assert mean[key].dtype is torch.float64
            torch.testing.assert_close(mean[key], value, rtol=1e-7, atol=1e-7)
    assert mean["1.num_batches_tracked"] == 0  # integers keep their first value


def test_running_mean_of_state_dicts_equals_that_of_modules():
    model, average = make_model(), make_model().to(torch.float64)
    states = copy.deepcopy((model.state_dict(), average.state_dict()))
    update_averaged_model(model, average, 20, PERIOD)
    update_averaged_model(*states, 20, PERIOD)
    assert all(torch.equal(v, average.state_dict()[k]) for k, v in states[1].items())


def test_tied_weights_are_averaged_once():
    def tied(value):
        model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        model[1].weight = model[0].weight
        nn.init.constant_(model[0].weight, value)
        return model

    average = tied(1.0).to(torch.float64)
    update_averaged_model(tied(3.0), average, 20, 10)
    assert average[1].weight.unique().tolist() == [2.0]


@pytest.mark.parametrize("float64_part", [False, True])
@pytest.mark.parametrize(("start", "stop"), [(20, 50), (25, 59), (40, 50), (9, 50), (None, 40)])
def test_difference_of_running_means(start, stop, float64_part):
    first = None if start is None else train(start, float64_part)
    result = average_checkpoints_with_averaged_model(first, train(stop, float64_part))
    begin = 0 if start is None else start // PERIOD * PERIOD
    batches = range(begin + PERIOD, stop + 1, PERIOD)
    assert_mean(result, batches)


def test_float64_part_saves_digits():
    for float64_part, rtol in ((True, 2e-7), (False, 1e-3)):
        result = average_checkpoints_with_averaged_model(
            train(290, float64_part), train(300, float64_part)
        )
        for key, value in model_at(300).items():
            if value.is_floating_point():
                torch.testing.assert_close(result[key], value, rtol=rtol, atol=rtol)


def test_no_running_mean_in_between():
    with pytest.raises(
        CheckpointError, match="no running mean was taken between batches 20 and 29"
    ):
        average_checkpoints_with_averaged_model(train(21), train(29))
    with pytest.raises(CheckpointError, match="between batches 0 and 9"):
        average_checkpoints_with_averaged_model(None, train(9))
    with pytest.raises(CheckpointError, match="between batches 50 and 20"):
        average_checkpoints_with_averaged_model(train(50), train(20))


@pytest.mark.parametrize("key", ["model_avg", "batch_idx_train", "average_period"])
def test_what_is_missing_is_named(key):
    checkpoint = train(20)
    del checkpoint[key]
    what = "holds no running mean" if key == "model_avg" else f"has no number '{key}'"
    with pytest.raises(CheckpointError, match=f"epoch-2.pt {what}.*use-averaged-model 0"):
        average_checkpoints_with_averaged_model(None, checkpoint, names=["epoch-2.pt"])


def test_plain_mean():
    states = [model_at(batch) for batch in (1, 2, 4)]
    before = copy.deepcopy(states)
    result = average_checkpoints([states[0], {"model": states[1]}, states[2]])
    assert_mean(result, [1, 2, 4])
    assert result["1.num_batches_tracked"] == 2  # (1 + 2 + 4) // 3
    for old, state in zip(before, states, strict=True):
        assert all(torch.equal(old[key], state[key]) for key in old)
    one = average_checkpoints([states[0]])
    assert all(torch.equal(one[key], states[0][key]) for key in one)


def test_different_models_are_not_averaged():
    with pytest.raises(CheckpointError, match="different models: only one has '2.bias'"):
        average_checkpoints([model_at(1), {**model_at(1), "2.bias": torch.ones(1)}])
    with pytest.raises(CheckpointError, match=r"different models: '0.bias' is \(2,\) and \(3,\)"):
        average_checkpoints([model_at(1), {**model_at(1), "0.bias": torch.ones(3)}])


@pytest.fixture
def exp_dir(tmp_path):
    for number in (1, 2, 3, 9, 10):
        (tmp_path / f"epoch-{number}.pt").touch()
    for number in (900, 1000, 1100):
        (tmp_path / f"checkpoint-{number}.pt").touch()
    for name in ("epoch-x.pt", ".tmp-1-epoch-4.pt", "best-valid-loss.pt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"epoch": 3, "avg": 2}, ["epoch-1", "epoch-3"]),
        ({"epoch": 3, "avg": 3}, ["epoch-3"]),
        ({"epoch": 10, "avg": 1}, ["epoch-9", "epoch-10"]),
        ({"epoch": 3, "avg": 1, "use_averaged_model": False}, ["epoch-3"]),
        ({"epoch": 3, "avg": 3, "use_averaged_model": False}, ["epoch-1", "epoch-2", "epoch-3"]),
        ({"iteration": 1100, "avg": 2}, ["checkpoint-900", "checkpoint-1100"]),
        ({"iteration": 1000, "avg": 1}, ["checkpoint-900", "checkpoint-1000"]),
        (
            {"iteration": 1000, "avg": 2, "epoch": 3, "use_averaged_model": False},
            ["checkpoint-900", "checkpoint-1000"],
        ),
    ],
)
def test_choice(exp_dir, options, names):
    choice = find_checkpoints(exp_dir, **options)
    assert [path.stem for path in choice.files] == names
    assert choice.use_averaged_model is options.get("use_averaged_model", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 5, "avg": 2}, r"has no epoch-5.pt \(hint: there are 5: epoch 1, 2, 3, 9, 10"),
        ({"epoch": 9, "avg": 5}, "has no epoch-4.pt"),
        (
            {"epoch": 9, "avg": 7, "use_averaged_model": False},
            "has no epoch-4.pt, epoch-5.pt, epoch-6.pt, epoch-7.pt, epoch-8.pt",
        ),
        ({"epoch": 3, "avg": 4}, r"epoch 3 has no 4 epochs to average \(hint: --avg 3"),
        ({"epoch": 3, "avg": 0}, "cannot average 0 checkpoints"),
        ({}, "neither an epoch nor an iteration"),
        ({"iteration": 950}, r"has no checkpoint-950.pt \(hint: .*900, 1000, 1100"),
        ({"iteration": 1100, "avg": 3}, "needs 4 of them, .* has 3"),
        ({"iteration": 900, "avg": 2, "use_averaged_model": False}, "needs 2 of them, .* has 1"),
    ],
)
def test_choice_refused(exp_dir, options, message):
    with pytest.raises(CheckpointError, match=message):
        find_checkpoints(exp_dir, **options)


def test_choice_in_an_empty_folder(tmp_path):
    with pytest.raises(CheckpointError, match="has no epoch-1.pt .*there is no epoch-N.pt"):
        find_checkpoints(tmp_path, epoch=1)


def test_load_average(tmp_path, caplog):
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path / f"epoch-{epoch}.pt", train(20 * epoch))
    with caplog.at_level(logging.INFO):
        assert_mean(load_average(find_checkpoints(tmp_path, epoch=3, avg=1)), [50, 60])
        assert_mean(load_average(find_checkpoints(tmp_path, epoch=3, avg=3)), range(10, 61, 10))
        plain = find_checkpoints(tmp_path, epoch=3, avg=2, use_averaged_model=False)
        assert_mean(load_average(plain), [40, 60])
        one = find_checkpoints(tmp_path, epoch=2, use_averaged_model=False)
        assert_mean(load_average(one), [40])
    assert caplog.messages == [
        "Weights: mean of the models after epoch-2.pt up to epoch-3.pt",
        "Weights: mean of all models up to epoch-3.pt",
        "Weights: mean of epoch-2.pt, epoch-3.pt",
        "Weights: epoch-2.pt",
    ]
