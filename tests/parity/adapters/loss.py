"""Kinds loss.*: the transducer losses under k2's names."""

import inspect
from typing import Any

import torch
from torch import Tensor

from snowmelt.loss import rnnt
from tests.parity.adapters.gradients import call_with_gradients
from tests.parity.cases import Run

__all__ = ["KINDS"]

_OUTPUT_NAMES = {
    "get_rnnt_prune_ranges": ("ranges",),
    "do_rnnt_pruning": ("am_pruned", "lm_pruned"),
}


def _transducer(run: Run) -> dict[str, Any]:
    function = getattr(rnnt, run.call)
    # A case lists the options of all its functions; each takes its own.
    known = inspect.signature(function).parameters
    options = {name: value for name, value in run.params.items() if name in known}

    def call(**inputs: Any) -> Any:
        if isinstance(inputs.get("boundary"), list):
            inputs["boundary"] = torch.tensor(inputs["boundary"])
        if run.call in ("rnnt_loss", "rnnt_loss_pruned"):
            am, lm, ranges = inputs.pop("am"), inputs.pop("lm"), inputs.get("ranges")
            inputs["logits"] = _logits(am, lm, ranges)
        returned = function(**inputs, **options)
        if options.get("return_grad"):
            loss, (px_grad, py_grad) = returned
            return loss, px_grad, py_grad
        return returned

    names = _OUTPUT_NAMES.get(run.call, ("loss", "px_grad", "py_grad"))
    results = call_with_gradients(run, call, output_names=names)
    if "expected_s_range" in run.content:
        assert results["ranges"].size(-1) == run.content["expected_s_range"]
    return results


def _logits(am: Tensor, lm: Tensor, ranges: Tensor | None) -> Tensor:
    if ranges is None:
        return am.unsqueeze(2) + lm.unsqueeze(1)  # (N, T, S+1, V)
    am_pruned, lm_pruned = rnnt.do_rnnt_pruning(am, lm, ranges)
    return am_pruned + lm_pruned  # (N, T, R, V)


def _mutual_information(run: Run) -> dict[str, Any]:
    inputs = run.inputs()
    scores, (px_grad, py_grad) = rnnt.mutual_information_recursion(
        inputs["px"], inputs["py"], inputs["boundary"], return_grad=run.params["return_grad"]
    )
    return {"scores": scores, "px_grad": px_grad, "py_grad": py_grad}


KINDS = {
    "loss.transducer": _transducer,
    "loss.mutual_information": _mutual_information,
}
