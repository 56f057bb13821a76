"""ONNX files: sherpa-onnx's contract, clean graphs, and the numbers of the trained model."""

import dataclasses
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile

from benchmarks.foreign import sherpa_results
from snowmelt.core.errors import CheckpointError, SnowmeltError
from snowmelt.export.run import Forms, Source, export
from snowmelt.export.verify import TOLERANCE, compare, verify
from snowmelt.runtime.load import load_model
from snowmelt.runtime.recognizer import OfflineRecognizer, OnlineRecognizer
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.modified_beam import ModifiedBeamSearch
from snowmelt.text.tokenizer import vocabulary_hash
from tests.export.models import eager, noisy_experiment
from tests.runtime.tiny import TINY_MODELS, noise, tiny_tokenizer

_NUM_STATES = 35


@pytest.fixture(scope="module", params=list(TINY_MODELS))
def encoder(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def exp_dir(encoder, tmp_path_factory) -> Path:
    return noisy_experiment(tmp_path_factory.mktemp(encoder), TINY_MODELS[encoder])


@pytest.fixture(scope="module")
def exported(exp_dir, tmp_path_factory) -> Path:
    """A folder with three ONNX files and the vocabulary."""
    folder = tmp_path_factory.mktemp("onnx")
    (written,) = export(Source(exp_dir), Forms(onnx=True), folder)
    assert written.remark.startswith("verified on 7 random chunks of 1 and 3 streams")
    assert [path.name for path in written.files] == [
        f"{part}-pretrained.onnx" for part in ("encoder", "decoder", "joiner")
    ]
    return folder


def _graph(folder: Path, part: str) -> onnx.ModelProto:
    return onnx.load(folder / f"{part}-pretrained.onnx")


def _tensors(values) -> list[tuple[str, int, tuple[int | str, ...]]]:
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    ]


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def test_the_encoder_is_what_sherpa_onnx_expects(encoder, exported):
    model = _graph(exported, "encoder")
    inputs, outputs = _tensors(model.graph.input), _tensors(model.graph.output)
    floats, ints = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    if encoder == "lstm":
        states = [("state0", floats, (2, "N", 16)), ("state1", floats, (2, "N", 24))]
        assert inputs == [("x", floats, ("N", 37, 80)), *states]
        facts = {
            "model_type": "lstm",
            "decode_chunk_len": "32",
            "T": "37",
            "num_encoder_layers": "2",
            "d_model": "16",
            "rnn_hidden_size": "24",
        }
    else:
        left = (64, 32, 16, 8, 32)
        states = [
            *((f"cached_len_{i}", ints, (1, "N")) for i in range(5)),
            *((f"cached_avg_{i}", floats, (1, "N", 24)) for i in range(5)),
            *((f"cached_key_{i}", floats, (1, left[i], "N", 16)) for i in range(5)),
            *((f"cached_val_{i}", floats, (1, left[i], "N", 8)) for i in range(5)),
            *((f"cached_val2_{i}", floats, (1, left[i], "N", 8)) for i in range(5)),
            *((f"cached_conv1_{i}", floats, (1, "N", 24, 6)) for i in range(5)),
            *((f"cached_conv2_{i}", floats, (1, "N", 24, 6)) for i in range(5)),
        ]
        assert inputs == [("x", floats, ("N", 39, 80)), *states]
        facts = {
            "model_type": "zipformer",
            "decode_chunk_len": "32",
            "T": "39",
            "num_encoder_layers": "1,1,1,1,1",
            "encoder_dims": "24,24,24,24,24",
            "attention_dims": "16,16,16,16,16",
            "cnn_module_kernels": "7,7,7,7,7",
            "left_context_len": "64,32,16,8,32",
        }
    assert outputs[0] == ("encoder_out", floats, ("N", 8, 16))
    assert outputs[1:] == [(f"new_{name}", kind, shape) for name, kind, shape in states]
    ours = {"version": "1", "model_author": "k2-fsa"}
    ours |= {"min_tail_s": "0.4", "sample_rate": "16000"}
    assert _metadata(model) == facts | ours


def test_decoder_and_joiner_are_what_sherpa_onnx_expects(exported):
    floats, ints = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    decoder, joiner = _graph(exported, "decoder"), _graph(exported, "joiner")
    assert _tensors(decoder.graph.input) == [("y", ints, ("N", 2))]
    assert _tensors(decoder.graph.output) == [("decoder_out", floats, ("N", 16))]
    tokens = vocabulary_hash(tiny_tokenizer())
    sizes = {"context_size": "2", "vocab_size": "30"}
    assert _metadata(decoder) == {**sizes, "vocabulary_hash": tokens}
    projected = [("encoder_out", floats, ("N", 16)), ("decoder_out", floats, ("N", 16))]
    assert _tensors(joiner.graph.input) == projected
    assert _tensors(joiner.graph.output) == [("logit", floats, ("N", 30))]
    assert _metadata(joiner) == {"joiner_dim": "16"}


@pytest.mark.parametrize("part", ["encoder", "decoder", "joiner"])
def test_graphs_are_clean(exported, part):
    """Opset 13, no control flow, nothing dead, nothing computed twice."""
    model = _graph(exported, part)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 13)]
    nodes = model.graph.node
    kinds = Counter(node.op_type for node in nodes)
    assert not kinds.keys() & {"If", "Loop", "Scan", "Identity", "Constant", "Shape", "Dropout"}
    used = {name for node in nodes for name in node.input}
    used |= {value.name for value in model.graph.output}
    assert [node.name for node in nodes if not used & set(node.output)] == []
    assert [weight.name for weight in model.graph.initializer if weight.name not in used] == []
    seen = Counter(
        (node.op_type, tuple(node.input), tuple(str(a) for a in node.attribute)) for node in nodes
    )
    assert [key for key, number in seen.items() if number > 1] == []
    # ONNX Runtime's convolutions over one axis are many times slower than those of images.
    ranks = {weight.name: len(weight.dims) for weight in model.graph.initializer}
    assert part != "encoder" or {
        ranks[node.input[1]] for node in nodes if node.op_type == "Conv"
    } <= {4}


def _results(recognizer, sounds):
    streams = [recognizer.create_stream() for _ in sounds]
    for stream, sound in zip(streams, sounds, strict=True):
        stream.accept_waveform(16000, sound)
        if isinstance(recognizer, OnlineRecognizer):
            stream.input_finished()
    if isinstance(recognizer, OfflineRecognizer):
        recognizer.decode_streams(streams)
    else:
        while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
            recognizer.decode_streams(ready)
    return [recognizer.get_result_all(stream) for stream in streams]


def _sounds() -> list[np.ndarray]:
    return [noise(seconds, seed=n) for n, seconds in enumerate((1.3, 0.05, 3.1, 0.8))]


@pytest.mark.parametrize("max_chunks", [1, 3])
def test_same_words_as_the_trained_model(exp_dir, exported, max_chunks):
    """Whole and in chunks, alone and packed, of different lengths."""
    trained, model = load_model(exp_dir, device="cpu"), load_model(exported)
    expected = _results(OnlineRecognizer(trained), _sounds())
    assert len(expected[2].tokens) > 20
    whole = _results(OfflineRecognizer(model), _sounds())
    chunked = _results(OnlineRecognizer(model, max_chunks=max_chunks), _sounds())
    alone = [_results(OnlineRecognizer(model), [sound])[0] for sound in _sounds()]
    for ours in (whole, chunked, alone):
        for a, b in zip(ours, expected, strict=True):
            assert (a.text, a.tokens, a.timestamps) == (b.text, b.tokens, b.timestamps)
            np.testing.assert_allclose(a.token_logprobs, b.token_logprobs, atol=1e-4)


@pytest.mark.parametrize("search", [GreedySearch(), ModifiedBeamSearch(beam=4)])
def test_same_words_in_sherpa_onnx(exported, search):
    """Given the samples and the tail that our recognizers hear, and one frame more."""
    model = load_model(exported)
    expected = _results(OnlineRecognizer(model, search=search), _sounds())
    is_greedy = isinstance(search, GreedySearch)
    found = sherpa_results(
        {p: exported / f"{p}-pretrained.onnx" for p in ("encoder", "decoder", "joiner")},
        exported / "tokens.txt",
        model,
        _sounds(),
        "greedy_search" if is_greedy else "modified_beam_search",
    )
    for foreign, result in zip(found, expected, strict=True):
        assert foreign.text.split() == result.text.split()
        np.testing.assert_allclose(foreign.timestamps, result.timestamps, atol=1e-3)


def test_transcribe_works_without_torch(exported, tmp_path):
    sounds = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path, sound in zip(sounds, _sounds()[2:], strict=True):
        soundfile.write(path, sound, 16000)
    code = (
        "import sys\n"
        "sys.modules['torch'] = None  # any import of it now fails\n"
        "from snowmelt.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "transcribe", "--model", exported, *sounds]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    heard = [soundfile.read(path, dtype="float32")[0] for path in sounds]
    expected = _results(OnlineRecognizer(load_model(exported)), heard)
    assert done.stdout.splitlines() == [result.text for result in expected]


@pytest.mark.slow
@pytest.mark.parametrize("chunk_len", [16, 64])
def test_other_chunk_lengths(exp_dir, chunk_len, tmp_path):
    source = Source(exp_dir, decode_chunk_len=chunk_len)
    assert len(list(export(source, Forms(onnx=True), tmp_path))) == 1
    backend = load_model(tmp_path).backend
    assert backend.decode_chunk_len == chunk_len
    reference = eager(exp_dir, chunk_len)
    assert max(compare(reference, backend, num_features=80, vocab_size=30)) < TOLERANCE


def test_half_precision_takes_and_gives_float32(encoder, exp_dir, tmp_path):
    _, written = export(Source(exp_dir), Forms(onnx=True, fp16=True), tmp_path)
    assert written.files[0].name == "encoder-pretrained.fp16.onnx"
    full, half = (onnx.load(tmp_path / f"encoder-pretrained{x}.onnx") for x in ("", ".fp16"))
    assert _tensors(half.graph.input) == _tensors(full.graph.input)
    assert _tensors(half.graph.output) == _tensors(full.graph.output)
    kept = sum(w.raw_data.__len__() for w in half.graph.initializer)
    assert kept < 0.6 * sum(w.raw_data.__len__() for w in full.graph.initializer)
    backend = load_model(tmp_path / "encoder-pretrained.fp16.onnx").backend
    differences = compare(eager(exp_dir), backend, num_features=80, vocab_size=30)
    assert 0.0 < max(differences) < 0.1


@pytest.mark.parametrize("part", ["encoder", "decoder", "joiner"])
def test_another_model_is_not_verified(encoder, exp_dir, exported, part, tmp_path):
    other = noisy_experiment(tmp_path, TINY_MODELS[encoder])
    reference = eager(other)
    module = {
        "encoder": reference._encoder_proj,
        "decoder": reference.scorer._joiner.decoder_proj,
        "joiner": reference.scorer._joiner.output_linear,
    }[part]
    module.bias.data += 3e-4
    backend = load_model(exported).backend
    with pytest.raises(SnowmeltError, match="differs from the trained one"):
        verify(reference, backend, num_features=80, vocab_size=30)


def test_files_are_named_after_their_checkpoints(tmp_path):
    from snowmelt.export.run import _suffix
    from snowmelt.runtime.load import WeightsChoice
    from tests.runtime.tiny import make_experiment

    zipformer, lstm = TINY_MODELS["zipformer"], TINY_MODELS["lstm"]
    make_experiment(tmp_path, num_epochs=3)
    plain = WeightsChoice(epoch=3, avg=2, use_averaged_model=False)
    averaged = dataclasses.replace(plain, use_averaged_model=True)
    assert _suffix(Source(tmp_path, plain), zipformer) == "epoch-3-avg-2"
    assert _suffix(Source(tmp_path, averaged), zipformer) == "epoch-3-avg-2-with-averaged-model"
    assert _suffix(Source(tmp_path, averaged), lstm) == "epoch-3-avg-2"
    by_batch = dataclasses.replace(plain, iteration=20)
    assert _suffix(Source(tmp_path, by_batch), zipformer) == "iter-20-avg-2"


def test_windows_must_be_whole(exported):
    backend = load_model(exported).backend
    window = 32 + backend.front_end.window_overlap
    short = np.zeros((1, window - 1, 80), np.float32)
    with pytest.raises(ValueError, match=f"whole windows of {window} frames"):
        backend.encode(short, np.array([window - 1]), [backend.init_state()])
    with pytest.raises(ValueError, match=r"must have \d \+ k \* 32 frames"):
        backend.encode_whole(short, np.array([window - 1]))


def test_a_damaged_set_is_named(exported, tmp_path):
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    with pytest.raises(CheckpointError, match="takes chunks of 32 frames, not of 64"):
        load_model(copy, decode_chunk_len=64)
    (copy / "tokens.txt").write_text("<blk> 0\n<sos/eos> 1\n<unk> 2\n")
    with pytest.raises(CheckpointError, match="has 30 tokens, the vocabulary beside it 3"):
        load_model(copy)
    model = _graph(copy, "encoder")
    del model.metadata_props[:]
    onnx.save(model, copy / "encoder-pretrained.onnx")
    with pytest.raises(CheckpointError, match="is a model of type ''"):
        load_model(copy)
    shutil.copy(copy / "encoder-pretrained.onnx", copy / "encoder-other.onnx")
    with pytest.raises(CheckpointError, match="has several encoders"):
        load_model(copy)
    (copy / "encoder-pretrained.onnx").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is no model that ONNX Runtime can load"):
        load_model(copy / "encoder-pretrained.onnx")
