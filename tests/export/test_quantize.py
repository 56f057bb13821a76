"""8-bit files: which layers are rounded, how well, and what stays as it was."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from snowmelt.export.onnx import OnnxFiles, export_onnx
from snowmelt.export.quantize import layers_of, quantized
from snowmelt.export.verify import compare
from snowmelt.runtime.backends.onnx import OnnxBackend, OnnxModels
from snowmelt.runtime.load import load_transducer
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_MODELS


@pytest.fixture(scope="module", params=list(TINY_MODELS))
def encoder(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def full(encoder, tmp_path_factory) -> OnnxFiles:
    folder = noisy_experiment(tmp_path_factory.mktemp(encoder), TINY_MODELS[encoder])
    model, config, *_ = load_transducer(folder)
    return export_onnx(model, config.model, min_tail_s=0.4, vocabulary_hash="x")


def _backend(files: OnnxFiles) -> OnnxBackend:
    return OnnxBackend(OnnxModels(*files), unk_id=2)


def _differences(full: OnnxFiles, other: OnnxFiles):
    return compare(_backend(full), _backend(other), num_features=80, vocab_size=30)


def test_every_layer_once(encoder, full):
    layers = layers_of(full)
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names)
    if encoder == "zipformer":
        # Of each layer: three feed-forward modules and two convolutions with two products each,
        # pooling, and four of the attention; one more behind the front end and in the joiner.
        assert sum(name.startswith("encoder/") for name in names) == 5 * 15 + 2
        assert names[1] == "encoder/encoders.0/layers.0/feed_forward1/in_proj"
    else:
        # Input, recurrence and projection of the LSTM, and two of its feed-forward module; a step
        # each uses the recurrence's again.
        assert sum(name.startswith("encoder/") for name in names) == 2 * 5 + 2
        assert sorted({len(layer.nodes) for layer in layers}) == [1, 8]
    assert names[-4:] == [
        "decoder/place0",
        "decoder/place1",
        "decoder/decoder_proj",
        "joiner/joiner/output_linear",
    ]


def test_all_of_them(full):
    small = quantized(full)
    assert 0 < max(_differences(full, small)) < 0.5
    for before, after in zip(full, small, strict=True):
        old, new = onnx.load_from_string(before), onnx.load_from_string(after)
        assert list(new.graph.input) == list(old.graph.input)
        assert list(new.graph.output) == list(old.graph.output)
        assert list(new.metadata_props) == list(old.metadata_props)
        weights = {w.name for w in new.graph.initializer if w.data_type == 1 and len(w.dims) == 2}
        products = [n for n in new.graph.node if n.op_type in ("MatMul", "Gemm", "Gather")]
        assert not [n for n in products if weights & set(n.input)]
        used = {name for node in new.graph.node for name in node.input}
        assert not [w.name for w in new.graph.initializer if w.name not in used]


def test_weights_are_rounded_by_channel(full):
    """Each to the nearest of 255 steps of its output channel."""
    (layer,) = [x for x in layers_of(full) if x.name == "encoder/encoder_proj"]
    old = onnx.load_from_string(full.encoder)
    new = onnx.load_from_string(quantized(full).encoder)
    values = {
        w.name: numpy_helper.to_array(w) for w in (*old.graph.initializer, *new.graph.initializer)
    }
    weight = values[layer.weight]
    integers = values[f"{layer.weight}_int8"]
    scale = values[f"{layer.weight}_int8_scale"]
    assert integers.dtype == np.int8 and integers.shape == weight.shape
    assert scale.shape == weight.shape[1:]
    np.testing.assert_array_equal(np.abs(integers).max(axis=0), 127)
    assert (np.abs(integers * scale - weight) <= scale / 2 * 1.001).all()


def test_none_or_one_of_them(full):
    names = {layer.name for layer in layers_of(full)}
    assert quantized(full, names) == full
    largest = quantized(full, names - {"encoder/encoder_proj"})
    assert largest[1:] == full[1:]
    encoder, decoder, joiner = _differences(full, largest)
    assert encoder > 0 and decoder == joiner == 0
    joiner_only = quantized(full, names - {"joiner/joiner/output_linear"})
    assert joiner_only[:2] == full[:2]
    assert _differences(full, joiner_only).joiner > 0
