"""Every kind of model file by the tutorials' option names: the same words, clear refusals."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from snowmelt.checkpoint.files import load_checkpoint, save_checkpoint
from snowmelt.cli.main import main
from snowmelt.export.run import Forms, Source, export
from tests.export.models import noisy_experiment
from tests.runtime.tiny import TINY_MODELS, noise

_PARTS = ("encoder", "decoder", "joiner")


@pytest.fixture(scope="module", params=["lstm", pytest.param("zipformer", marks=pytest.mark.slow)])
def encoder(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def models(encoder, tmp_path_factory) -> Path:
    """exp/ has all, weights/ a checkpoint alone, jit/, trace/ and onnx/ files of other names."""
    root = tmp_path_factory.mktemp(encoder)
    exp_dir = noisy_experiment(root / "exp", TINY_MODELS[encoder])
    save_checkpoint(exp_dir / "epoch-3.pt", load_checkpoint(exp_dir / "pretrained.pt"))
    for folder, forms in (
        ("jit", Forms(jit=True)),
        ("trace", Forms(jit_trace=True)),
        ("onnx", Forms(onnx=True)),
    ):
        list(export(Source(exp_dir), forms, root / folder))
    (root / "weights").mkdir()
    shutil.copy(exp_dir / "pretrained.pt", root / "weights" / "w.pt")
    (root / "alone").mkdir()
    for part in _PARTS:
        # Names say nothing here.
        shutil.move(root / "onnx" / f"{part}-pretrained.onnx", root / "alone" / f"{part[0]}.bin")
        shutil.move(root / "trace" / f"{part}_jit_trace.pt", root / "alone" / f"{part[0]}.traced")
    shutil.move(root / "jit" / "cpu_jit.pt", root / "alone" / "model.scripted")
    return root


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for n, seconds in enumerate((2.3, 0.05, 1.1)):
        soundfile.write(folder / f"{n}.wav", noise(seconds, n), 16000)
    soundfile.write(folder / "eight.wav", noise(1.2, 4, rate=8000), 8000)
    return folder


def _kinds(root: Path) -> dict[str, list[str]]:
    """Options of each kind of file; none but the first has a vocabulary beside it."""
    tokens = ["--tokens", str(root / "onnx" / "tokens.txt")]

    def three(ending: str) -> list[str]:
        files = {f"--{part}-model-filename": f"{root}/alone/{part[0]}.{ending}" for part in _PARTS}
        return [*_flat(files), *tokens]

    return {
        "epoch": ["--checkpoint", f"{root}/exp/epoch-3.pt"],
        "weights": ["--checkpoint", f"{root}/weights/w.pt", *tokens],
        "scripted": ["--nn-model-filename", f"{root}/alone/model.scripted", *tokens],
        "traced": three("traced"),
        "onnx": three("bin"),
    }


def _flat(options: dict[str, str]) -> list[str]:
    return [word for item in options.items() for word in item]


def _transcribe(*words: str | Path) -> int:
    return main(["transcribe", *map(str, words)])


def _words(capsys) -> str:
    out, err = capsys.readouterr()
    assert err == ""
    return out


def _complaint(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1, (out, err)
    return err


@pytest.mark.parametrize("options", [[], ["--live"], ["--method", "modified_beam_search"]])
def test_all_kinds_find_the_same_words(models, sounds, options, capsys):
    """A folder and a file, whole and in chunks."""
    inputs = [sounds, sounds / "0.wav", "--format", "tsv", *options]
    assert _transcribe("--model", models / "exp", *inputs) == 0
    expected = _words(capsys)
    assert len(expected.splitlines()) >= 5 and len(expected) > 300
    for kind, chosen in _kinds(models).items():
        assert _transcribe(*chosen, *inputs) == 0
        assert _words(capsys) == expected, kind


def test_onnx_files_by_name_need_no_torch(models, sounds, capsys):
    chosen = _kinds(models)["onnx"]
    assert _transcribe(*chosen, sounds / "0.wav") == 0
    expected = _words(capsys)
    code = (
        "import sys\n"
        "sys.modules['torch'] = None  # any import of it now fails\n"
        "from snowmelt.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "transcribe", *chosen, sounds / "0.wav"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def _sizes(encoder: str, *, told_by_metadata: bool) -> list[str]:
    """What a tutorial's command would repeat."""
    if encoder == "lstm":
        sizes = {"--num-encoder-layers": "2", "--rnn-hidden-size": "24", "--encoder-dim": "16"}
        others = {"--dim-feedforward": "32", "--decoder-dim": "16", "--aux-layer-period": "0"}
    else:
        sizes = {
            "--num-encoder-layers": "1,1,1,1,1",
            "--encoder-dims": "24",
            "--attention-dims": "16,16,16,16,16",
            "--cnn-module-kernels": "7,7,7,7,7",
            "--decode-chunk-len": "32",
        }
        others = {
            "--nhead": "2,2,2,2,2",
            "--feedforward-dims": "32",
            "--decoder-dim": "16",
            "--zipformer-downsampling-factors": "1,2,4,8,2",
            "--encoder-unmasked-dims": "16",
            "--short-chunk-size": "50",
        }
    sizes |= {"--joiner-dim": "16", "--context-size": "2", "--sample-rate": "16000"}
    return _flat(sizes if told_by_metadata else sizes | others)


@pytest.mark.parametrize("kind", ["epoch", "weights", "scripted", "traced", "onnx"])
def test_sizes_may_be_repeated(models, encoder, sounds, kind, capsys):
    sizes = _sizes(encoder, told_by_metadata=kind == "onnx")
    assert _transcribe(*_kinds(models)[kind], sounds / "0.wav", *sizes) == 0
    assert _words(capsys).strip()


@pytest.mark.parametrize("kind", ["epoch", "weights", "scripted", "traced", "onnx"])
@pytest.mark.parametrize(
    ("size", "is_of"),
    [
        (("--num-encoder-layers", "12"), "both"),
        (("--context-size", "1"), "both"),
        (("--joiner-dim", "512"), "both"),
        (("--rnn-hidden-size", "1024"), "lstm"),
        (("--encoder-dims", "24,24,24,24,32"), "zipformer"),
        (("--attention-dims", "192"), "zipformer"),
    ],
)
def test_another_size_is_one_line(models, encoder, sounds, kind, size, is_of, capsys):
    assert _transcribe(*_kinds(models)[kind], sounds / "0.wav", *size) == 2
    error = _complaint(capsys)
    assert f"{' '.join(size)}: {models}" in error
    assert (" has " in error) if is_of in (encoder, "both") else ("which has none" in error)


def test_what_a_file_does_not_say_is_not_compared(models, encoder, sounds, capsys, caplog):
    assert _transcribe(*_kinds(models)["onnx"], sounds / "0.wav", "--decoder-dim", "99") == 0
    assert "--decoder-dim not compared" in caplog.text


def test_the_left_context_may_be_chosen_for_checkpoints(models, encoder, sounds, capsys):
    found = {}
    for kind in ("epoch", "weights"):
        for left in ("1", "4"):
            options = [*_kinds(models)[kind], sounds / "0.wav", "--num-left-chunks", left]
            if encoder == "lstm":
                assert _transcribe(*options) == 2
                assert "which has none" in _complaint(capsys)
                continue
            assert _transcribe(*options) == 0
            found[kind, left] = _words(capsys)
    for left in ("1", "4") if found else ():
        assert found["epoch", left] == found["weights", left]
    assert not found or found["epoch", "1"] != found["epoch", "4"]
    for kind in ("scripted", "traced", "onnx"):
        options = [*_kinds(models)[kind], sounds / "0.wav", "--num-left-chunks"]
        if encoder == "zipformer":
            assert _transcribe(*options, "4") == 0
            assert _words(capsys) == found["epoch", "4"]
        assert _transcribe(*options, "2") == 2
        assert ("has 4" if encoder == "zipformer" else "which has none") in _complaint(capsys)


def test_misuse_is_one_line(models, encoder, sounds, tmp_path, capsys):
    kinds = _kinds(models)
    checkpoint, scripted, onnx = kinds["weights"][1], kinds["scripted"][1], kinds["onnx"]
    traced, tokens = kinds["traced"], kinds["onnx"][-1]
    empty, text = tmp_path / "empty.pt", tmp_path / "text.pt"
    empty.touch()
    text.write_text("no model")
    small = tmp_path / "tokens.txt"
    small.write_text("<blk> 0\n<sos/eos> 1\n<unk> 2\n")

    def swapped(options: list[str]) -> list[str]:
        return [*options[:3], options[5], options[4], options[3], *options[6:]]

    for options, reason in (
        ([], "no model is given"),
        (["--model", models / "exp", "--checkpoint", checkpoint], "both name a model"),
        (["--checkpoint", checkpoint, *onnx], "and the three files both name a model"),
        (onnx[:4], "needs --joiner-model-filename beside it"),
        (["--checkpoint", models / "exp"], "is a folder (hint: --model"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt does not exist"),
        (["--checkpoint", empty], "is empty"),
        (["--checkpoint", text], "neither a checkpoint nor"),
        (["--checkpoint", scripted], "is a TorchScript program (hint: pass it as --nn-model"),
        (["--checkpoint", onnx[1]], "is an ONNX model (hint: pass it as --encoder-model"),
        (["--nn-model-filename", checkpoint], "is a checkpoint (hint: pass it as --checkpoint"),
        (["--nn-model-filename", traced[1], "--tokens", tokens], "is no whole model"),
        ([*onnx[:5], traced[5], *onnx[6:]], "is torchscript (hint: take the three files of"),
        ([*onnx[:5], checkpoint, *onnx[6:]], "w.pt is a checkpoint, not a part"),
        (swapped(onnx), "j.bin has 2 inputs: it is no decoder"),
        (swapped(traced), "j.traced is no traced decoder: it has no embedding"),
        (["--checkpoint", checkpoint], "tokens.txt does not exist"),
        (["--checkpoint", checkpoint, "--tokens", small], "of another shape"),
        ([*scripted_with(scripted, small)], "has 30 tokens, the vocabulary 3"),
        ([*onnx[:6], "--tokens", small], "has 30 tokens, the vocabulary given 3"),
        (["--checkpoint", models / "exp" / "epoch-3.pt", "--tokens", small], "is not the one that"),
        (["--checkpoint", checkpoint, "--tokens", text], "line 1 is 'no model'"),
        (["--checkpoint", checkpoint, "--bpe-model", text], "line 1 is 'no model'"),
        ([*onnx, "--bpe-model", models / "onnx", "--tokens", small], "different vocabularies"),
        ([*onnx, "--sample-rate", "8000"], "the model hears 16000 samples a second"),
        ([*onnx, "--epoch", "3"], "averaging checkpoints is not possible"),
        ([*scripted_with(scripted, tokens), "--head", "giga"], "another head is not possible"),
        ([*kinds["epoch"], "--epoch", "3"], "epoch-3.pt is one file"),
        ([*onnx, "--encoder-dims", "24,x"], "'x' is not a whole number of at least 1"),
    ):
        assert _transcribe(*options, sounds / "0.wav") == 2, options
        assert reason in _complaint(capsys)


def scripted_with(model: str, tokens: str | Path) -> list[str | Path]:
    return ["--nn-model-filename", model, "--tokens", tokens]
