"""The gate: what passes is written with a report; what does not is not written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from snowmelt.cli.main import main
from snowmelt.core.errors import CheckpointError, ConfigError, DataError
from snowmelt.export import int8_gate
from snowmelt.export.gate_set import GateCuts, GateUtterance, Heard, gate_utterances
from snowmelt.export.int8_gate import Gate, gated
from snowmelt.export.onnx import OnnxFiles, export_onnx
from snowmelt.export.quantize import layers_of
from snowmelt.export.run import Forms, GateOptions, Source, export
from snowmelt.presets.data import DataConfig
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.backends.onnx import OnnxBackend, OnnxModels
from snowmelt.runtime.load import load_model, load_transducer
from snowmelt.runtime.recognizer import OfflineRecognizer
from snowmelt.text.wer import WerStats
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_MODELS, noise, tiny_tokenizer

_SOUNDS = [noise(seconds, seed=n) for n, seconds in enumerate((1.3, 0.6, 2.1))]


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory) -> Path:
    return noisy_experiment(tmp_path_factory.mktemp("exp"), TINY_MODELS["lstm"])


@pytest.fixture(scope="module")
def cuts(exp_dir, tmp_path_factory) -> Path:
    """A manifest in which the model's own words are said."""
    folder = tmp_path_factory.mktemp("cuts")
    recognizer = OfflineRecognizer(load_model(exp_dir, device="cpu"))
    made = []
    for n, sound in enumerate(_SOUNDS):
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, sound)
        recognizer.decode_stream(stream)
        path = folder / f"{n}.wav"
        soundfile.write(path, sound, 16000, subtype="FLOAT")
        text = recognizer.get_result(stream)
        cut = MonoCut(str(n), 0.0, len(sound) / 16000, 0, recording=Recording.from_file(path))
        said = SupervisionSegment(str(n), cut.recording_id, 0.0, cut.duration, text=text)
        made.append(MonoCut(**{**vars(cut), "supervisions": [said]}))
    CutSet.from_cuts(made).to_file(folder / "cuts.jsonl.gz")
    return folder / "cuts.jsonl.gz"


def test_what_passes_is_written_with_a_report(exp_dir, cuts, tmp_path, capsys):
    command = ["export", "--exp-dir", exp_dir, "--output-dir", tmp_path, "--onnx", "--int8"]
    command += ["--gate-cuts", cuts, "--max-wer-increase", 100]
    assert main([str(word) for word in command]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-3:-1] == [str(tmp_path / f"int8-pretrained.{kind}") for kind in ("txt", "json")]
    report = json.loads((tmp_path / "int8-pretrained.json").read_text())
    assert report["num_utterances"] == 3 and report["wer_float32"] == 0.0
    assert report["audio_s"] == pytest.approx(4.0)
    sizes = [
        sum(f.stat().st_size for f in tmp_path.glob(p)) for p in ("*pretrained.onnx", "*int8.onnx")
    ]
    assert [report["bytes_float32"], report["bytes_int8"]] == sizes
    assert report["kept"] == [] and report["rtf_int8"] > 0 and report["logit_error"] > 0
    assert [trial["num_kept"] for trial in report["trials"]] == [0]
    text = (tmp_path / "int8-pretrained.txt").read_text()
    assert "allowed: +100 points" in text and "encoder/encoder_proj" in text
    assert "layers in 8 bits: WER on" in out[-1]


class _Ear:
    """Hears errors that each layer in 8 bits makes."""

    def __init__(self, errors: dict[str, int]) -> None:
        self.errors = errors
        self.rounded: list[set[str]] = []

    def __call__(self, model: SpeechModel, utterances: object) -> Heard:
        rounded = {name for name in self.errors if name in model.weights.split()}
        self.rounded.append(rounded)
        errors = sum(self.errors[name] for name in rounded)
        return Heard(WerStats(1000, 0, 0, errors), 1.0, 10.0)


@pytest.fixture(scope="module")
def full(exp_dir) -> OnnxFiles:
    model, config, *_ = load_transducer(exp_dir)
    return export_onnx(model, config.model, min_tail_s=0.4)


def _run(full: OnnxFiles, monkeypatch, errors: Callable[[int], int], allowed: float):
    """The gate with errors as layers make them; the i-th layer in the order of their harm."""
    # The smallest do most harm: some of them may stay.
    layers = sorted(layers_of(full), key=lambda layer: layer.num_weights)
    names = [layer.name for layer in layers]
    kept_of = {}

    def small(files: OnnxFiles, kept=()) -> OnnxFiles:
        result = OnnxFiles(*(f"{part} {sorted(kept)}".encode() for part in OnnxFiles._fields))
        kept_of[result] = set(kept)
        return result

    def model_of(files: OnnxFiles) -> SpeechModel:
        backend = OnnxBackend(OnnxModels(*full), unk_id=2)
        rounded = set(names) - kept_of.get(files, set(names))
        return SpeechModel(backend, tiny_tokenizer(), weights=" ".join(rounded))

    ear = _Ear({name: errors(i) for i, name in enumerate(names)})
    monkeypatch.setattr(int8_gate, "quantized", small)
    monkeypatch.setattr(int8_gate, "hear", ear)
    # What a layer alone changes the logits by: the first layer most.
    monkeypatch.setattr(
        int8_gate,
        "logits",
        lambda model, _: np.array([sum(1.0 / (1 + names.index(n)) for n in model.weights.split())]),
    )
    utterances = [GateUtterance("a", ["A"], lambda: (16000, _SOUNDS[0]))]
    return gated(full, Gate("dev", utterances, allowed), model_of), names, ear


def test_the_most_harmful_layers_stay_float32(full, monkeypatch):
    """Ten errors in each of the first three layers, half an error allowed: as few as needed."""
    (files, report), names, ear = _run(full, monkeypatch, lambda i: 10 * (i < 3), 0.5)
    assert sorted(report.kept) == sorted(names[:3])
    assert (report.wer_float32, report.wer_int8) == (0.0, 0.0)
    assert report.trials[0].errors == 30 and report.trials[0].num_kept == 0
    errors = {layer.name: layer.logit_error for layer in report.layers}
    assert [errors[name] for name in names[:3]] == pytest.approx([1.0, 1 / 2, 1 / 3])
    assert ear.rounded[0] == set() and ear.rounded[1] == set(names)
    assert (
        set(names[3:]) in ear.rounded and files.encoder == f"encoder {sorted(names[:3])}".encode()
    )


def test_what_is_allowed_is_used(full, monkeypatch):
    (_, report), names, _ = _run(full, monkeypatch, lambda i: 10 * (i < 3), 1.0)
    assert sorted(report.kept) == sorted(names[:2]) and report.wer_int8 == 1.0
    (_, report), _, _ = _run(full, monkeypatch, lambda i: 10 * (i < 3), 3.0)
    assert report.kept == [] and report.layers[0].logit_error is None


def test_too_much_harm_is_refused(full, monkeypatch):
    """Half of the weights must be in 8 bits: all but the largest layer are less than that."""
    num_layers = len(layers_of(full))
    with pytest.raises(CheckpointError) as caught:
        _run(full, monkeypatch, lambda i: 1, -0.1)
    message = str(caught.value)
    assert message.startswith(
        f"int8 raises the word error rate on dev from 0.00 to {num_layers / 10:.2f} %, with "
        f"{num_layers - 1} of {num_layers} layers in float32 to 0.10 %; "
    )
    assert "allowed are -0.1 points" in message and "--max-wer-increase" in message


def test_a_refusal_leaves_no_quantised_file(exp_dir, cuts, tmp_path):
    gate = GateOptions(GateCuts(str(cuts)), max_wer_increase=-1.0)
    written = []
    with pytest.raises(CheckpointError, match="int8 raises the word error rate"):
        for form in export(Source(exp_dir), Forms(onnx=True, int8=True, gate=gate), tmp_path):
            written.append(form)
    assert len(written) == 1
    assert not list(tmp_path.glob("*int8*"))


def test_gates_that_cannot_be(exp_dir, cuts, tmp_path, capsys):
    with pytest.raises(ConfigError, match="--gate-cuts is a test of quantised files"):
        Forms(onnx=True, gate=GateOptions(GateCuts()))
    assert main(["export", "--exp-dir", str(exp_dir), "--onnx", "--max-wer-increase", "1"]) == 2
    assert "--max-wer-increase needs words to count" in capsys.readouterr().err
    data = DataConfig(corpus="digits", tokenizer="chars")
    for name, content in (("none.jsonl", None), ("bad.jsonl", "{"), ("other.jsonl", '{"id": 3}\n')):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=name):
            gate_utterances(GateCuts(str(tmp_path / name)), data, "main")
    with pytest.raises(DataError, match="digits"):
        gate_utterances(GateCuts("dev", data_dir=tmp_path), data, "main")
    silent = [cut.drop_supervisions() for cut in CutSet.from_file(cuts)]
    CutSet.from_cuts(silent).to_file(tmp_path / "silent.jsonl")
    with pytest.raises(DataError, match="holds no utterance with words"):
        gate_utterances(GateCuts(str(tmp_path / "silent.jsonl")), data, "main")
    assert [len(u.words) > 0 for u in gate_utterances(GateCuts(str(cuts)), data, "main")]


def test_sound_beside_a_manifest_is_found_from_anywhere(cuts, tmp_path):
    manifest = tmp_path / "cuts.jsonl.gz"
    CutSet.from_cuts([_relative(cut) for cut in CutSet.from_file(cuts)]).to_file(manifest)
    for n, sound in enumerate(_SOUNDS):
        soundfile.write(tmp_path / f"{n}.wav", sound, 16000, subtype="FLOAT")
    found = gate_utterances(GateCuts(str(manifest)), DataConfig(), "main")
    assert [len(u.load()[1]) for u in found] == [len(sound) for sound in _SOUNDS]


def _relative(cut: MonoCut) -> MonoCut:
    cut.recording.sources[0].source = Path(cut.recording.sources[0].source).name
    return cut


def test_an_empty_manifest_says_why(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="empty or damaged"):
        gate_utterances(GateCuts(str(tmp_path / "empty.txt")), DataConfig(), "main")
