"""Kinds lstm.whole_and_streaming and lstm.train_grad: the LSTM encoder."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import snowmelt.models.lstm.projected as projected_module
from snowmelt.models.lstm.combine import RandomCombine
from snowmelt.models.lstm.encoder import Lstm
from snowmelt.models.lstm.state import flat_to_state, state_to_flat
from snowmelt.models.state import stack_states
from tests.parity.adapters.gradients import call_with_gradients
from tests.parity.cases import Run

__all__ = ["KINDS", "build_lstm"]

_ENCODER_ARGUMENTS = (
    "num_features",
    "d_model",
    "rnn_hidden_size",
    "dim_feedforward",
    "num_encoder_layers",
    "dropout",
    "layer_dropout",
    "aux_layer_period",
)


def build_lstm(params: dict[str, Any]) -> Lstm:
    """The encoder that a case describes, in evaluation mode, with random weights."""
    assert params["subsampling_factor"] == 4
    encoder = Lstm(**{name: params[name] for name in _ENCODER_ARGUMENTS})
    encoder.warmup = params.get("warmup", 1.0)
    return encoder.eval()


def _loaded_encoder(run: Run) -> Lstm:
    encoder = build_lstm(run.params)
    encoder.load_state_dict(run.weights())
    return encoder


def _whole_and_streaming(run: Run) -> dict[str, Any]:
    encoder = _loaded_encoder(run)
    inputs = run.inputs()
    x, x_lens = inputs["x"], torch.as_tensor(inputs["x_lens"])
    with torch.no_grad():
        if "states" not in inputs:
            out, out_lens = encoder(x, x_lens)
            return {"out": out, "out_lens": out_lens}
        golden, new_streams = inputs["states"]["golden"], inputs["states"]["new_streams"]
        parts = [] if golden is None else [flat_to_state(golden)]
        parts += [encoder.init_state(1)] * new_streams
        out, out_lens, state = encoder.stream(x, x_lens, stack_states(parts))
    return {"out": out, "out_lens": out_lens, "states": list(state_to_flat(state))}


def _train_grad(run: Run) -> dict[str, Any]:
    encoder = _loaded_encoder(run).train()
    with _nothing_random(encoder):
        results = call_with_gradients(
            run, encoder, module=encoder, output_names=("out", "out_lens")
        )
    results["loss"] = (results["out"].detach() * run.inputs()["grad_output"]).sum()
    return results


@contextmanager
def _nothing_random(encoder: Lstm) -> Iterator[None]:
    """Training mode without its random parts, and without the gradient filter."""

    def unfiltered(
        threshold: float, x: Tensor, weights: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        return x, weights

    for module in encoder.modules():
        if isinstance(module, RandomCombine):
            module.eval()
    with (
        # Every coin flip says no: no balancer changes a gradient.
        mock.patch.object(random, "random", lambda: 0.999999),
        mock.patch.object(projected_module, "filter_gradients", unfiltered),
    ):
        yield


KINDS = {
    "lstm.whole_and_streaming": _whole_and_streaming,
    "lstm.train_grad": _train_grad,
}
