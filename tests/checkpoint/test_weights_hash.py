"""One number for weights: changes with each of them, not with how they are held."""

import torch

from snowmelt.checkpoint.weights_hash import weights_sha256


def _weights():
    return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2), "c": torch.zeros(0)}


def test_the_same_weights_have_the_same_number():
    weights = _weights()
    turned = {"c": weights["c"], "b": weights["b"], "a": weights["a"].t().contiguous().t()}
    assert weights_sha256(weights) == weights_sha256(turned)
    assert len(weights_sha256(weights)) == 64
    parameter = torch.nn.Parameter(weights["a"].clone())
    assert weights_sha256({**weights, "a": parameter}) == weights_sha256(weights)


def test_other_weights_have_another():
    numbers = {weights_sha256(_weights())}
    changed = _weights()
    changed["a"][1, 2] = 5.0000005
    numbers.add(weights_sha256(changed))
    numbers.add(weights_sha256({**_weights(), "a": torch.arange(6.0).reshape(3, 2)}))
    numbers.add(weights_sha256({**_weights(), "b": torch.tensor(2, dtype=torch.int32)}))
    # The same bytes, as another type.
    numbers.add(weights_sha256({**_weights(), "a": _weights()["a"].view(torch.int32)}))
    renamed = _weights()
    renamed["d"] = renamed.pop("c")
    numbers.add(weights_sha256(renamed))
    numbers.add(weights_sha256({"a": _weights()["a"]}))
    assert len(numbers) == 7
