"""The runner itself: what a reference means, and that a wrong value is seen."""

import json

import pytest
import safetensors.torch
import torch

from tests.parity.cases import find_cases
from tests.parity.compare import differences


@pytest.fixture
def make_run(tmp_path):
    def make(tensors, case=None, **run):
        directory = tmp_path / "area" / "case"
        directory.mkdir(parents=True)
        safetensors.torch.save_file(tensors, directory / "tensors.safetensors")
        content = {"kind": "k", "tolerance": {"rtol": 0.0, "atol": 0.1}, **(case or {})}
        content["runs"] = [{"name": "r", "call": "forward", **run}]
        (directory / "case.json").write_text(json.dumps(content))
        return next(find_cases(tmp_path.resolve())).runs()[0]

    return make


def test_references(make_run):
    x = torch.arange(24.0).reshape(2, 3, 4)
    run = make_run({"x": x, "w.a": torch.ones(1), "w.b": torch.zeros(2)})
    resolve = run.case.resolve
    assert run.id == "area/case:r"
    assert resolve(None) is None
    assert torch.equal(resolve("x"), x)
    assert [t.shape for t in resolve(["x", "w.a"])] == [(2, 3, 4), (1,)]
    assert sorted(resolve({"prefix": "w."})) == ["a", "b"]
    assert torch.equal(resolve({"tensor": "x", "axis": 1, "start": 1, "stop": 3}), x[:, 1:3])
    assert torch.equal(resolve({"tensor": "x", "axis": 2, "index": 3}), x[:, :, 3])
    rows = {"tensor": "x", "select": [{"row": 1, "start": 0, "stop": 2}]}
    assert torch.equal(resolve(rows), x[1, 0:2][None])
    expanded = resolve({"tensor": "x", "unsqueeze": 2, "expand_to": [2, 3, 5]})
    assert torch.equal(expanded, x[:, :, None].expand(2, 3, 5, 4))
    assert resolve({"zeros": [2, 1]}).tolist() == [[0.0], [0.0]]
    assert resolve({"value": [[1], []]}) == [[1], []]
    assert resolve({"model": {"prefix": "w."}, "n": {"value": 3}})["n"] == 3
    assert resolve({"from_run": None, "tensors": None, "new_streams": 2}) == {
        "golden": None,
        "new_streams": 2,
    }


def test_run_overrides_case(make_run):
    run = make_run(
        {"w.a": torch.ones(1), "v.a": torch.zeros(1)},
        case={
            "params": {"p": 1, "q": 2},
            "compat": True,
            "weights": [{"prefix": "v.", "key_prefix": ""}],
        },
        params={"q": 3},
        compat=False,
        weights=[{"prefix": "w.", "key_prefix": "part."}],
        tolerance={"out": "exact"},
        outputs={"out": "w.a", "other": "v.a"},
        skip_outputs={"other": "no value"},
    )
    assert run.params == {"p": 1, "q": 3}
    assert run.compat is False
    assert run.weights() == {"part.a": torch.ones(1)}
    assert run.tolerance("out") == "exact"
    assert list(run.outputs) == ["out"]


@pytest.mark.parametrize(
    ("tolerance", "actual", "agrees"),
    [
        ({"rtol": 0.0, "atol": 0.1}, [1.05, 100.0], True),
        ({"rtol": 0.0, "atol": 0.1}, [1.2, 100.0], False),
        ({"rtol": 0.01, "atol": 0.0}, [1.0, 100.9], True),
        ({"rel_to_max": 0.01, "atol": 0.0}, [1.9, 100.0], True),
        ({"rel_to_max": 0.01, "atol": 0.0}, [2.1, 100.0], False),
        ({"rel_to_tensor": "scale", "factor": 0.1, "atol": 0.0}, [1.4, 100.0], True),
        ({"rel_to_tensor": "scale", "factor": 0.1, "atol": 0.0}, [1.0, 101.0], False),
        ("exact", [1.0, 100.0], True),
        ("exact", [1.0, 100.00001], False),
        ({"rtol": 0.0, "atol": 0.1}, [float("nan"), 100.0], False),
        ({"rtol": 1.0, "atol": 0.0}, [float("inf"), 100.0], False),
    ],
)
def test_tolerances(make_run, tolerance, actual, agrees):
    tensors = {"y": torch.tensor([1.0, 100.0]), "scale": torch.tensor([5.0, 5.0])}
    run = make_run(tensors, outputs={"out": "y"}, tolerance={"out": tolerance})
    assert (differences(run, "out", torch.tensor(actual)) == []) is agrees


def test_integers_shapes_and_infinities_are_exact(make_run):
    tensors = {"i": torch.tensor([3]), "f": torch.tensor([float("inf")])}
    run = make_run(tensors, outputs={"i": "i", "f": "f", "v": {"value": [[1, "a"], [0.5]]}})
    assert differences(run, "i", torch.tensor([4]))
    assert differences(run, "i", torch.tensor([3.0])), "a float is no integer"
    assert differences(run, "i", torch.tensor([[3]])), "another shape"
    assert not differences(run, "f", torch.tensor([float("inf")]))
    assert differences(run, "f", torch.tensor([1e30]))
    assert not differences(run, "v", [[1, "a"], [0.55]])
    assert differences(run, "v", [[1, "b"], [0.5]])
    assert differences(run, "v", [[2, "a"], [0.5]])
    assert differences(run, "v", [[1, "a"], []])


def test_only_valid_parts_are_compared(make_run):
    run = make_run(
        {"y": torch.zeros(2, 3), "lens": torch.tensor([3, 1])},
        outputs={"out": "y", "rows": "y"},
        valid={
            "out": {"lens": "lens", "batch_axis": 0, "time_axis": 1},
            "rows": {"indexes": [1]},
        },
    )
    assert not differences(run, "out", torch.tensor([[0.0, 0.0, 0.0], [0.0, 9.0, 9.0]]))
    assert differences(run, "out", torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, 0.0]]))
    assert not differences(run, "rows", torch.tensor([[9.0, 9.0, 9.0], [0.0, 0.0, 0.0]]))
    assert differences(run, "rows", torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]))


def test_transducers_in_text_form(make_run, tmp_path):
    run = make_run({"x": torch.zeros(1)}, outputs={"g": {"file": "g.txt"}}, compare="fst_text")
    (tmp_path / "area" / "case" / "g.txt").write_text("\n1 2 3 3 0.5\n1\n2 0 3 3\n0 1.5\n")
    assert not differences(run, "g", "1\t2\t3\t3\t0.55\n1\n2\t0\t3\t3\n0\t1.45\n")
    for wrong in (
        "1 2 3 3 0.7\n1\n2 0 3 3\n0 1.5\n",
        "1 2 3 4 0.5\n1\n2 0 3 3\n0 1.5\n",
        "1 2 3 3 0.5\n1\n2 0 3 3\n",
        "1 2 3 3 0.5\n1 0\n2 0 3 3\n0 1.5\n",
    ):
        assert differences(run, "g", wrong), wrong
