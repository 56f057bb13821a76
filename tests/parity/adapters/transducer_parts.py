"""Kinds decoder, joiner, model.zipformer_loss and keys: the transducer and what it is made of."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snowmelt.models.build import build_transducer
from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.models.transducer import Transducer
from snowmelt.presets.models import ZipformerConfig
from snowmelt.train.objective import transducer_loss
from tests.parity.adapters.gradients import call_with_gradients
from tests.parity.adapters.zipformer import build_encoder
from tests.parity.cases import Run

__all__ = ["KINDS", "build_decoder_and_joiner"]


def build_decoder_and_joiner(run: Run) -> tuple[Decoder, Joiner]:
    """Both in evaluation mode, with the run's weights (keys `decoder.*` and `joiner.*`)."""
    _require_zipformer_recipe(run)
    params = run.params
    parts = nn.ModuleDict(
        {
            "decoder": Decoder(
                params["vocab_size"],
                params["decoder_dim"],
                params["blank_id"],
                params["context_size"],
            ),
            "joiner": Joiner(
                params["encoder_dim"],
                params["decoder_dim"],
                params["joiner_dim"],
                params["vocab_size"],
            ),
        }
    )
    parts.load_state_dict(run.weights())
    parts.eval()
    return parts["decoder"], parts["joiner"]  # type: ignore[return-value]


def _decoder(run: Run) -> dict[str, Any]:
    _require_zipformer_recipe(run)
    names = ["vocab_size", "decoder_dim", "blank_id", "context_size"]
    decoder = Decoder(**{name: run.params[name] for name in names})
    decoder.load_state_dict(run.weights())
    decoder.eval()
    need_pad = run.params["need_pad"]
    return call_with_gradients(run, lambda y: decoder(y, need_pad=need_pad), module=decoder)


def _joiner(run: Run) -> dict[str, Any]:
    _require_zipformer_recipe(run)
    names = ["encoder_dim", "decoder_dim", "joiner_dim", "vocab_size"]
    joiner = Joiner(**{name: run.params[name] for name in names})
    joiner.load_state_dict(run.weights())
    joiner.eval()
    project_input = run.params["project_input"]
    return call_with_gradients(
        run,
        lambda encoder_out, decoder_out: joiner(encoder_out, decoder_out, project_input),
        module=joiner,
        output_names=("logits",),
    )


def _zipformer_loss(run: Run) -> dict[str, Any]:
    params = run.params
    if params.get("reduction", "sum") != "sum":
        pytest.skip(f"{run.id}: reduction {params['reduction']!r} is not known to this runner")
    encoder_dim = params["encoder"]["encoder_dims"][-1]
    model = Transducer(
        encoder=build_encoder(params["encoder"], compat=run.compat),
        decoder=Decoder(
            params["vocab_size"],
            params["decoder_dim"],
            params["blank_id"],
            params["context_size"],
        ),
        joiner=Joiner(
            encoder_dim, params["decoder_dim"], params["joiner_dim"], params["vocab_size"]
        ),
        encoder_dim=encoder_dim,
        decoder_dim=params["decoder_dim"],
        joiner_dim=params["joiner_dim"],
        vocab_size=params["vocab_size"],
    )
    model.load_state_dict(run.weights())
    model.eval()

    def objective(x: Tensor, x_lens: Tensor, y: list[list[int]]) -> tuple[Tensor, ...]:
        losses = transducer_loss(
            model,
            x,
            x_lens,
            nn.utils.rnn.pad_sequence([torch.tensor(ids, dtype=torch.int64) for ids in y], True),
            torch.tensor([len(ids) for ids in y]),
            prune_range=params["prune_range"],
            am_scale=params["am_scale"],
            lm_scale=params["lm_scale"],
        )
        simple_loss, pruned_loss = losses[0].sum(), losses[1].sum()
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


def _keys(run: Run) -> dict[str, Any]:
    """The one run of a list of keys; its "results" are compared here, in order."""
    _require_zipformer_recipe(run)
    content = run.case.content
    options = dict(run.params["options"])
    assert options.pop("subsampling_factor") == 4
    config = ZipformerConfig(**{name: _option_value(value) for name, value in options.items()})
    model = build_transducer(config, run.params["vocab_size"])
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


def _require_zipformer_recipe(run: Run) -> None:
    if run.params.get("recipe", "zipformer") != "zipformer":
        pytest.skip(
            f"{run.id}: kind {run.case.kind} of the {run.params['recipe']} recipe is not built yet"
        )


KINDS = {
    "decoder": _decoder,
    "joiner": _joiner,
    "model.zipformer_loss": _zipformer_loss,
    "keys": _keys,
}
