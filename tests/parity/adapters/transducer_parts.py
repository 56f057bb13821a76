"""Kinds decoder, joiner, lstm.giga, model.* and keys: the transducer and what it is made of."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snowmelt.models.build import build_transducer
from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.models.scaled_layers import ScaledLinear
from snowmelt.models.transducer import Transducer, TransducerHead
from snowmelt.presets.models import LstmConfig, ZipformerConfig
from snowmelt.train.objective import TransducerLosses, transducer_loss
from tests.parity.adapters.gradients import call_with_gradients
from tests.parity.adapters.lstm import build_lstm
from tests.parity.adapters.zipformer import build_encoder
from tests.parity.cases import Run

__all__ = ["KINDS", "build_decoder_and_joiner"]


def build_decoder_and_joiner(run: Run) -> tuple[Decoder, Joiner]:
    """Both in evaluation mode, with the run's weights (keys `decoder.*` and `joiner.*`)."""
    params = run.params
    scaled = _recipe(run) == "lstm"
    head = _build_head(params, params["encoder_dim"], scaled=scaled)
    parts = nn.ModuleDict({"decoder": head.decoder, "joiner": head.joiner})
    parts.load_state_dict(run.weights())
    parts.eval()
    return head.decoder, head.joiner


def _build_head(params: dict[str, Any], encoder_dim: int, *, scaled: bool) -> TransducerHead:
    decoder_dim, vocab_size = params["decoder_dim"], params["vocab_size"]
    linear = ScaledLinear if scaled else nn.Linear
    return TransducerHead(
        Decoder(vocab_size, decoder_dim, params["blank_id"], params["context_size"], scaled=scaled),
        Joiner(encoder_dim, decoder_dim, params["joiner_dim"], vocab_size, scaled=scaled),
        linear(encoder_dim, vocab_size),
        linear(decoder_dim, vocab_size),
    )


def _decoder(run: Run) -> dict[str, Any]:
    names = ["vocab_size", "decoder_dim", "blank_id", "context_size"]
    arguments = {name: run.params[name] for name in names}
    decoder = Decoder(**arguments, scaled=_recipe(run) == "lstm")
    decoder.load_state_dict(run.weights())
    decoder.eval()
    need_pad = run.params["need_pad"]
    return call_with_gradients(run, lambda y: decoder(y, need_pad=need_pad), module=decoder)


def _joiner(run: Run) -> dict[str, Any]:
    names = ["encoder_dim", "decoder_dim", "joiner_dim", "vocab_size"]
    arguments = {name: run.params[name] for name in names}
    joiner = Joiner(**arguments, scaled=_recipe(run) == "lstm")
    joiner.load_state_dict(run.weights())
    joiner.eval()
    project_input = run.params["project_input"]
    return call_with_gradients(
        run,
        lambda encoder_out, decoder_out: joiner(encoder_out, decoder_out, project_input),
        module=joiner,
        output_names=("logits",),
    )


def _loaded_lstm_model(run: Run) -> Transducer:
    params = run.params
    encoder = build_lstm(params["encoder"])
    head, *others = (
        _build_head(params, encoder.d_model, scaled=True)
        for _ in range(1 + bool(params["giga_heads"]))
    )
    model = Transducer(encoder, head, [("giga", other) for other in others])
    model.load_state_dict(run.weights())
    return model.eval()


def _lstm_part(run: Run) -> dict[str, Any]:
    """One part of a model with two heads."""
    part = _loaded_lstm_model(run).get_submodule(run.content["submodule"])
    params = run.content["params"]
    with torch.no_grad():
        returned = part(*run.inputs().values(), **params)
    values = returned if isinstance(returned, tuple) else (returned,)
    return dict(zip(("out", "out_lens"), values, strict=False))


def _zipformer_loss(run: Run) -> dict[str, Any]:
    params = run.params
    if params.get("reduction", "sum") != "sum":
        pytest.skip(f"{run.id}: reduction {params['reduction']!r} is not known to this runner")
    encoder = build_encoder(params["encoder"], compat=run.compat)
    head = _build_head(params, params["encoder"]["encoder_dims"][-1], scaled=False)
    model = Transducer(encoder, head)
    model.load_state_dict(run.weights())
    model.eval()

    def objective(x: Tensor, x_lens: Tensor, y: list[list[int]]) -> tuple[Tensor, ...]:
        losses = _losses(run, model, x, x_lens, y)
        simple_loss, pruned_loss = losses.simple_loss.sum(), losses.pruned_loss.sum()
        scales = params["grad_objective"]
        total = scales["simple_loss"] * simple_loss + scales["pruned_loss"] * pruned_loss
        return total, simple_loss, pruned_loss

    results = call_with_gradients(
        run, objective, module=model, output_names=("total", "simple_loss", "pruned_loss")
    )
    if "grad.params" in results:
        results["grad.params"] = {
            key: gradient
            for key, gradient in results["grad.params"].items()
            if not key.startswith("encoder.")
        }
    return results


def _lstm_loss(run: Run) -> dict[str, Any]:
    params = run.params
    if params["reduction"] != "none":
        pytest.skip(f"{run.id}: reduction {params['reduction']!r} is not known to this runner")
    model = _loaded_lstm_model(run)
    with torch.no_grad():
        losses = _losses(
            run,
            model,
            **run.inputs(),
            head="" if params["libri"] else "giga",
            delay_penalty=params["delay_penalty"],
        )
    return {"simple_loss": losses.simple_loss, "pruned_loss": losses.pruned_loss}


def _losses(
    run: Run, model: Transducer, x: Tensor, x_lens: Tensor, y: list[list[int]], **options: Any
) -> TransducerLosses:
    tokens = [torch.tensor(ids, dtype=torch.int64) for ids in y]
    return transducer_loss(
        model,
        x,
        x_lens,
        nn.utils.rnn.pad_sequence(tokens, batch_first=True),
        torch.tensor([len(ids) for ids in y]),
        prune_range=run.params["prune_range"],
        am_scale=run.params["am_scale"],
        lm_scale=run.params["lm_scale"],
        **options,
    )


def _keys(run: Run) -> dict[str, Any]:
    """The one run of a list of keys; its "results" are compared here, in order."""
    content = run.case.content
    options = {name: _option_value(value) for name, value in run.params["options"].items()}
    assert options.pop("subsampling_factor") == 4
    kind = LstmConfig if _recipe(run) == "lstm" else ZipformerConfig
    heads = ("giga",) if run.params.get("enable_giga") else ()
    model = build_transducer(kind(**options), run.params["vocab_size"], extra_heads=heads)
    parameters = dict(model.named_parameters())
    keys = [
        [
            key,
            list(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            "parameter" if key in parameters else "buffer",
        ]
        for key, tensor in model.state_dict().items()
    ]
    assert len(keys) == content["num_keys"]
    assert keys == content["keys"]
    assert sum(p.numel() for p in parameters.values()) == content["total_parameters"]
    return {}


def _option_value(value: Any) -> Any:
    """Lists are written as text in the options: "2,4,3,2,4"."""
    return tuple(int(part) for part in value.split(",")) if isinstance(value, str) else value


def _recipe(run: Run) -> str:
    recipe: str = run.params.get("recipe", "zipformer")
    assert recipe in ("zipformer", "lstm"), recipe
    return recipe


KINDS = {
    "decoder": _decoder,
    "joiner": _joiner,
    "lstm.giga": _lstm_part,
    "model.lstm_loss": _lstm_loss,
    "model.zipformer_loss": _zipformer_loss,
    "keys": _keys,
}
