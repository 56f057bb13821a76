"""Kinds zipformer.*: the encoder whole, chunk by chunk, in training, and each of its modules.

The cases speak of dense masks and of attention weights (N * H, T, T), as the original does; the
modules here take `Windows` and give weights (B, N, H, S, L + S). The adapters translate.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import snowmelt.models.zipformer.encoder as encoder_module
from snowmelt.models.features import make_pad_mask
from snowmelt.models.zipformer.attention import RelPositionalEncoding
from snowmelt.models.zipformer.caches import LayerCache
from snowmelt.models.zipformer.encoder import Zipformer
from snowmelt.models.zipformer.layer import ZipformerEncoderLayer
from snowmelt.models.zipformer.resample import AttentionDownsample, SimpleCombiner, SimpleUpsample
from snowmelt.models.zipformer.subsampling import Conv2dSubsampling
from snowmelt.models.zipformer.windows import (
    dense_windows,
    full_windows,
    subsequent_chunk_mask,
)
from tests.parity.adapters.gradients import call_with_gradients
from tests.parity.cases import Run

__all__ = ["KINDS", "build_encoder"]

_ENCODER_ARGUMENTS = (
    "num_features",
    "output_downsampling_factor",
    "encoder_dims",
    "attention_dim",
    "encoder_unmasked_dims",
    "zipformer_downsampling_factors",
    "nhead",
    "feedforward_dim",
    "num_encoder_layers",
    "dropout",
    "cnn_module_kernels",
    "pos_dim",
    "num_left_chunks",
    "short_chunk_threshold",
    "short_chunk_size",
    "decode_chunk_size",
    "warmup_batches",
)


def build_encoder(params: dict[str, Any], *, compat: bool) -> Zipformer:
    """The encoder that a case describes, in evaluation mode, with random weights."""
    arguments = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in params.items()
        if name in _ENCODER_ARGUMENTS
    }
    return Zipformer(**arguments, icefall_compat=compat).eval()


def _loaded_encoder(run: Run) -> Zipformer:
    encoder = build_encoder(run.params, compat=run.compat)
    encoder.load_state_dict(run.weights())
    return encoder


def _whole(run: Run) -> dict[str, Any]:
    encoder = _loaded_encoder(run)
    return call_with_gradients(
        run,
        lambda x, x_lens: encoder(x, torch.as_tensor(x_lens)),
        module=encoder,
        output_names=("out", "out_lens"),
    )


def _streaming(run: Run) -> dict[str, Any]:
    encoder = _loaded_encoder(run)
    inputs = run.inputs()
    with torch.no_grad():
        out, out_lens, states = encoder.streaming_forward(
            inputs["x"],
            torch.as_tensor(inputs["x_lens"]),
            _flat_states(encoder, inputs["states"]),
        )
    return {"out": out, "out_lens": out_lens, "states": states}


# Batch axis of the seven groups of a flat list of states.
_BATCH_AXES = (1, 1, 2, 2, 2, 1, 1)


def _flat_states(encoder: Zipformer, reference: dict[str, Any]) -> list[Tensor]:
    """The golden states of the streams that go on, with fresh streams stacked behind them."""
    parts = [] if reference["golden"] is None else [reference["golden"]]
    parts += [encoder.get_init_state(torch.device("cpu"))] * reference["new_streams"]
    num_stacks = len(parts[0]) // len(_BATCH_AXES)
    return [
        torch.cat([part[i] for part in parts], dim=_BATCH_AXES[i // num_stacks])
        for i in range(len(parts[0]))
    ]


def _train_grad(run: Run) -> dict[str, Any]:
    encoder = _loaded_encoder(run).train()
    with _nothing_random(run.params):
        results = call_with_gradients(
            run, encoder, module=encoder, output_names=("out", "out_lens")
        )
    results["loss"] = (results["out"].detach() * run.inputs()["grad_output"]).sum()
    return results


@contextmanager
def _nothing_random(params: dict[str, Any]) -> Iterator[None]:
    """Training mode without its random parts, and with the attention chunk that the case gives."""

    def chunk_size(num_frames: int, *args: Any) -> int:
        return num_frames if params["full_attention"] else int(params["chunk_size"])

    with (
        # Every coin flip says no: nothing is skipped, no gradient is changed.
        mock.patch.object(random, "random", lambda: 0.999999),
        # The bypass scale is the exception: there the flip decides NOT to clamp.
        mock.patch.object(
            ZipformerEncoderLayer, "_training_bypass_scale", lambda layer: layer.bypass_scale
        ),
        mock.patch.object(encoder_module, "random_chunk_size", chunk_size),
    ):
        yield


def _masks(run: Run) -> dict[str, Any]:
    params = run.params
    if run.call == "make_pad_mask":
        return {"mask": make_pad_mask(run.inputs()["lengths"], params["max_len"])}
    mask = subsequent_chunk_mask(params["size"], params["chunk_size"], params["num_left_chunks"])
    return {"mask": mask}


def _small_module(
    build: Callable[..., nn.Module], *arguments: str, output: str = "out"
) -> Callable[[Run], dict[str, Any]]:
    """Adapter for a module whose `forward` is called with the inputs of the case."""

    def adapter(run: Run) -> dict[str, Any]:
        params = {name: run.params[name] for name in arguments if name in run.params}
        module = build(**params)
        weights = run.weights()
        if weights:
            module.load_state_dict(weights)
        module.eval()
        call_params = {name: value for name, value in run.params.items() if name not in arguments}
        return call_with_gradients(
            run,
            lambda **inputs: module(**inputs, **call_params),
            module=module,
            output_names=(output,),
        )

    return adapter


def _encoder_layer(run: Run) -> dict[str, Any]:
    names = ["d_model", "attention_dim", "nhead", "feedforward_dim", "dropout"]
    names += ["cnn_module_kernel", "pos_dim"]
    layer = ZipformerEncoderLayer(**{name: run.params[name] for name in names})
    layer.load_state_dict(run.weights())
    layer.eval()
    part = run.content.get("submodule", "")
    functions: dict[tuple[str, str], tuple[Callable[..., Any], tuple[str, ...]]] = {
        ("", "forward"): (partial(_layer_forward, layer), ("out",)),
        ("", "streaming_forward"): (partial(_layer_streaming, layer), _STREAMING_OUTPUTS),
        ("self_attn", "forward"): (partial(_attention, layer), ("out", "attn_weights")),
        ("self_attn", "forward2"): (partial(_attention2, layer), ("out",)),
    }
    if (part, run.call) not in functions and part and run.call == "forward":
        module = layer.get_submodule(part)
        functions[part, "forward"] = (lambda x, *masks: module(x, *masks), ("out",))
    if (part, run.call) not in functions:
        pytest.skip(f"{run.id}: {part}.{run.call} is not known to this runner")
    function, output_names = functions[part, run.call]
    inputs = {_MASK_NAMES.get(name, name): value for name, value in run.inputs().items()}
    if part and part != "self_attn":
        x, *masks = inputs.values()
        with torch.no_grad():
            return {"out": function(x, *masks)}
    return call_with_gradients(
        run, function, module=layer, inputs=inputs, output_names=output_names
    )


# What the original calls the mask differs from module to module.
_MASK_NAMES = {"src_key_padding_mask": "padding_mask", "key_padding_mask": "padding_mask"}

_STREAMING_OUTPUTS = (
    "out",
    "cached_len",
    "cached_avg",
    "cached_key",
    "cached_val",
    "cached_val2",
    "cached_conv1",
    "cached_conv2",
)


def _layer_forward(
    layer: ZipformerEncoderLayer,
    src: Tensor,
    pos_emb: Tensor,
    attn_mask: Tensor | None = None,
    padding_mask: Tensor | None = None,
) -> Tensor:
    windows = dense_windows(src.size(0), attn_mask, padding_mask)
    out: Tensor = layer(src, pos_emb, windows, padding_mask)
    return out


def _attention(
    layer: ZipformerEncoderLayer,
    x: Tensor,
    pos_emb: Tensor,
    attn_mask: Tensor | None = None,
    padding_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    windows = dense_windows(x.size(0), attn_mask, padding_mask)
    out, weights = layer.self_attn(x, pos_emb, windows)
    return out, weights.squeeze(0).flatten(end_dim=1)  # (N * H, T, T)


def _attention2(layer: ZipformerEncoderLayer, x: Tensor, attn_weights: Tensor) -> Tensor:
    weights = attn_weights.unflatten(0, (x.size(1), -1)).unsqueeze(0)  # (1, N, H, T, T)
    return layer.self_attn.forward2(x, weights, dense_windows(x.size(0)))


def _layer_streaming(
    layer: ZipformerEncoderLayer,
    src: Tensor,
    pos_emb: Tensor,
    cached_len: Tensor,
    cached_avg: Tensor,
    cached_key: Tensor,
    cached_val: Tensor,
    cached_val2: Tensor,
    cached_conv1: Tensor,
    cached_conv2: Tensor,
) -> tuple[Tensor, ...]:
    num_frames = src.size(0)
    cache = LayerCache(
        average=cached_avg,
        key=cached_key.transpose(0, 1),  # (L, N, A) -> (N, L, A)
        value=cached_val.transpose(0, 1),
        value2=cached_val2.transpose(0, 1),
        conv1=cached_conv1.transpose(1, 2),  # (N, C, K - 1) -> (N, K - 1, C)
        conv2=cached_conv2.transpose(1, 2),
    )
    # The original masks nothing here, not even cache rows that are not filled yet.
    lens = torch.full((src.size(1),), num_frames)
    windows = full_windows(num_frames, lens, left=cached_key.size(0))
    with torch.no_grad():
        out, new = layer.stream(src, pos_emb, windows, cached_len, cache, None)
    return (
        out,
        cached_len + num_frames,
        new.average,
        new.key.transpose(0, 1),
        new.value.transpose(0, 1),
        new.value2.transpose(0, 1),
        new.conv1.transpose(1, 2),
        new.conv2.transpose(1, 2),
    )


KINDS = {
    "zipformer.whole": _whole,
    "zipformer.streaming": _streaming,
    "zipformer.train_grad": _train_grad,
    "zipformer.masks": _masks,
    "zipformer.module.AttentionDownsample": _small_module(
        AttentionDownsample, "in_channels", "out_channels", "downsample"
    ),
    "zipformer.module.Conv2dSubsampling": _small_module(
        Conv2dSubsampling,
        "in_channels",
        "out_channels",
        "layer1_channels",
        "layer2_channels",
        "layer3_channels",
        "dropout",
    ),
    "zipformer.module.RelPositionalEncoding": _small_module(
        RelPositionalEncoding, "d_model", "dropout_rate", output="pos_emb"
    ),
    "zipformer.module.SimpleCombiner": _small_module(SimpleCombiner, "dim1", "dim2", "min_weight"),
    "zipformer.module.SimpleUpsample": _small_module(SimpleUpsample, "num_channels", "upsample"),
    "zipformer.module.ZipformerEncoderLayer": _encoder_layer,
}
