"""How does a trained model become the three ONNX files that sherpa-onnx runs?

    encoder   one chunk of features and the states -> projected encoder frames, new states
    decoder   the last tokens -> projected prediction network output
    joiner    one of each -> logits

Names, order, types, axes and metadata are sherpa-onnx's contract; it passes tensors by position,
icefall's scripts by name. The projections of the joiner are inside encoder and decoder, so the
joiner is one sum, one tanh and one matrix product.

Invariant: the axis of the streams, "N", is the only one without a fixed size; the first chunks of a
stream need no inputs of their own.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/export-onnx.py and
lstm_transducer_stateless2/export-onnx.py; sherpa-onnx.
"""

import copy
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.core.errors import MissingExtraError
from snowmelt.export.inference import InferenceDecoder, InferenceJoiner, InferenceTransducer
from snowmelt.export.lstm import InferenceLstm
from snowmelt.export.zipformer.encoder import InferenceZipformer
from snowmelt.models.transducer import Transducer
from snowmelt.models.zipformer.flat_state import STATE_BATCH_AXES, STATE_NAMES
from snowmelt.presets.models import ModelConfig
from snowmelt.runtime.backends.torch_eager import decoder_tables

__all__ = ["OnnxFiles", "export_onnx"]

# The original's. Old runtimes take it, and nothing here needs a newer one.
_OPSET: Final = 13

# What older ONNX Runtimes on devices still read.
_IR_VERSION: Final = 8

_AUTHOR: Final = {"version": "1", "model_author": "k2-fsa"}


class OnnxFiles(NamedTuple):
    """The contents of the three files."""

    encoder: bytes
    decoder: bytes
    joiner: bytes


def export_onnx(
    model: Transducer,
    config: ModelConfig,
    *,
    min_tail_s: float,
    sample_rate: int = 16000,
    vocabulary_hash: str = "",
    half: bool = False,
) -> OnnxFiles:
    """The three files of a model.

    Args:
        model: in evaluation mode on the CPU, one head, scales folded.
        config: gives the chunk length.
        min_tail_s, sample_rate: stored for our own runtime; others ignore them.
        vocabulary_hash: of the tokens, stored so that others can be told from them; empty: not.
        half: compute in half precision; inputs, outputs and states stay float32, as runtimes
            expect.

    Raises:
        MissingExtraError: onnx or onnxslim is not installed.
    """
    network = InferenceTransducer(model, unroll=True)
    if half:
        network = copy.deepcopy(network).half()
    encoder, decoder, joiner = network.encoder, network.decoder, network.joiner
    assert isinstance(encoder, InferenceZipformer | InferenceLstm), type(encoder)
    chunk_len, joiner_dim = config.decode_chunk_len, joiner.encoder_proj.out_features
    window = chunk_len + config.front_end.window_overlap
    names, axes = _state_names(encoder)
    states = _fresh_states(encoder)
    facts = {"decode_chunk_len": chunk_len, "T": window, **_facts(encoder)}
    return OnnxFiles(
        encoder=_graph(
            _EncoderStep(encoder, joiner, half),
            (torch.zeros(_TRACED_STREAMS, window, encoder.num_features), *states),
            {"x": 0, **dict(zip(names, axes, strict=True))},
            {"encoder_out": 0, **{f"new_{n}": a for n, a in zip(names, axes, strict=True)}},
            {**_AUTHOR, **facts, "min_tail_s": min_tail_s, "sample_rate": sample_rate},
        ),
        decoder=_graph(
            _DecoderStep(decoder, joiner, half),
            (torch.zeros(_TRACED_STREAMS, decoder.context_size, dtype=torch.int64),),
            {"y": 0},
            {"decoder_out": 0},
            {
                "context_size": decoder.context_size,
                "vocab_size": decoder.vocab_size,
                **({"vocabulary_hash": vocabulary_hash} if vocabulary_hash else {}),
            },
        ),
        joiner=_graph(
            _JoinerStep(joiner, half),
            (torch.zeros(_TRACED_STREAMS, joiner_dim), torch.zeros(_TRACED_STREAMS, joiner_dim)),
            {"encoder_out": 0, "decoder_out": 0},
            {"logit": 0},
            {"joiner_dim": joiner_dim},
        ),
    )


# Not 1: a size of one would be taken for a size that never changes.
_TRACED_STREAMS: Final = 2


class _EncoderStep(nn.Module):
    """One chunk of every stream, all frames valid; tensors in, tensors out."""

    def __init__(
        self, encoder: InferenceZipformer | InferenceLstm, joiner: InferenceJoiner, half: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.encoder_proj = joiner.encoder_proj
        self.half_precision = half

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        if self.half_precision:
            x, states = x.half(), tuple(s.half() if s.is_floating_point() else s for s in states)
        if isinstance(self.encoder, InferenceLstm):
            out, pair = self.encoder.advance(x, None, (states[0], states[1]))
            new_states = list(pair)
        else:
            out, new_states = self.encoder.advance(x, None, list(states))
        outputs = self.encoder_proj(out), *new_states
        return tuple(o.float() if o.dtype == torch.float16 else o for o in outputs)


class _DecoderStep(nn.Module):
    """The prediction network with a table for each place of the context in place of a convolution.

    Convolutions over one axis are slow in ONNX Runtime. The token before the first, -1, is the
    last row, which is zero.
    """

    def __init__(self, decoder: InferenceDecoder, joiner: InferenceJoiner, half: bool) -> None:
        super().__init__()
        self.decoder_proj = joiner.decoder_proj
        self.half_precision = half
        for place, table in enumerate(decoder_tables(copy.deepcopy(decoder).float())):
            # A copy: what is made for inference alone cannot be traced.
            self.register_buffer(f"place{place}", table.to(self.decoder_proj.weight.dtype).clone())

    def forward(self, y: Tensor) -> Tensor:
        tables = list(self.buffers())
        total = F.embedding(y[:, 0], tables[0])
        for place, table in enumerate(tables[1:], start=1):
            total = total + F.embedding(y[:, place], table)
        out: Tensor = self.decoder_proj(total.relu())
        return out.float() if self.half_precision else out


class _JoinerStep(nn.Module):
    def __init__(self, joiner: InferenceJoiner, half: bool) -> None:
        super().__init__()
        self.joiner = joiner
        self.half_precision = half

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        if self.half_precision:
            encoder_out, decoder_out = encoder_out.half(), decoder_out.half()
        logit: Tensor = self.joiner(encoder_out, decoder_out, project_input=False)
        return logit.float() if self.half_precision else logit


def _state_names(encoder: InferenceZipformer | InferenceLstm) -> tuple[list[str], list[int]]:
    """Names of the states in their order, and the axis of the streams in each."""
    if isinstance(encoder, InferenceLstm):
        return ["state0", "state1"], [1, 1]
    names, axes = [], []
    for name, axis in zip(STATE_NAMES, STATE_BATCH_AXES, strict=True):
        names += [f"cached_{name}_{i}" for i in range(encoder.num_stacks)]
        axes += [axis] * encoder.num_stacks
    return names, axes


def _fresh_states(encoder: InferenceZipformer | InferenceLstm) -> list[Tensor]:
    states = encoder.get_init_states(_TRACED_STREAMS, torch.device("cpu"))
    return [s.float() if s.is_floating_point() else s for s in states]


def _facts(encoder: InferenceZipformer | InferenceLstm) -> dict[str, Any]:
    """What sherpa-onnx makes fresh states from."""
    if isinstance(encoder, InferenceLstm):
        return {
            "model_type": "lstm",
            "num_encoder_layers": encoder.num_encoder_layers,
            "d_model": encoder.d_model,
            "rnn_hidden_size": encoder.rnn_hidden_size,
        }
    return {
        "model_type": "zipformer",
        "num_encoder_layers": encoder.num_layers,
        "encoder_dims": encoder.encoder_dims,
        "attention_dims": encoder.attention_dims,
        "cnn_module_kernels": encoder.kernel_sizes,
        "left_context_len": [encoder.left_context(i) for i in range(encoder.num_stacks)],
    }


def _graph(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_axes: Mapping[str, int],
    output_axes: Mapping[str, int],
    metadata: Mapping[str, Any],
) -> bytes:
    onnx, onnxslim = _exporters()
    traced = io.BytesIO()
    with torch.inference_mode(), warnings.catch_warnings():
        # torch prefers its other exporter, whose dynamic sizes do not fit this contract, and
        # remarks on sizes that become constants, as they are meant to.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            traced,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=_OPSET,
            input_names=list(input_axes),
            output_names=list(output_axes),
            dynamic_axes={
                name: {axis: "N"} for name, axis in {**input_axes, **output_axes}.items()
            },
        )
        graph = onnxslim.slim(onnx.load_from_string(traced.getvalue()))
    graph.ir_version = min(graph.ir_version, _IR_VERSION)
    graph.producer_name, graph.producer_version = "snowmelt", ""
    onnx.helper.set_model_props(graph, {key: _text(value) for key, value in metadata.items()})
    onnx.checker.check_model(graph, full_check=True)
    content: bytes = graph.SerializeToString()
    return content


def _text(value: Any) -> str:
    return (
        ",".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )


def _exporters() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxslim
    except ImportError as error:
        raise MissingExtraError(
            f"exporting to ONNX needs {error.name}", "pip install 'snowmelt[export]'"
        ) from None
    return onnx, onnxslim
