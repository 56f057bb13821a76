"""Bundles: the words of the experiment from every form; every mutation gives one clear line."""

import copy
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from snowmelt.cli.main import main
from snowmelt.core.errors import CheckpointError
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.bundle import Bundle
from snowmelt.runtime.load import WeightsChoice, default_search, load_model
from snowmelt.runtime.load_bundle import onnx_form, torch_form
from snowmelt.runtime.recognizer import OfflineRecognizer, OnlineRecognizer
from snowmelt.search.methods import SearchOptions, build_search
from tests.runtime.bundles import (
    BLANK_PENALTY,
    CHOICE,
    bundled_experiment,
    facts_of,
    make_bundle,
    sum_up,
    write_facts,
)
from tests.runtime.tiny import TINY, TINY_LSTM, TINY_MODELS, noise

_FILES = (
    *("bundle.json", "tokens.txt", "model.safetensors", "SHA256SUMS"),
    *("encoder.onnx", "decoder.onnx", "joiner.onnx"),
)


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory) -> Path:
    return bundled_experiment(tmp_path_factory.mktemp("exp"), TINY_LSTM)


@pytest.fixture(scope="module")
def bundle(exp_dir, tmp_path_factory) -> Path:
    return make_bundle(exp_dir, tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture(scope="module")
def archive(bundle, tmp_path_factory) -> Path:
    """The same in one file, made as anybody may make it."""
    return _archived(bundle, tmp_path_factory.mktemp("archive") / "model.snowmelt")


def _archived(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for inside in folder.iterdir():
            file.write(inside, inside.name)
    return path


@pytest.fixture
def damaged(bundle, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def _words(model: SpeechModel) -> list[str]:
    recognizer = OfflineRecognizer(model)
    streams = [recognizer.create_stream() for _ in range(3)]
    for seed, stream in enumerate(streams):
        stream.accept_waveform(16000, noise(1.0 + 0.4 * seed, seed))
    recognizer.decode_streams(streams)
    words = [recognizer.get_result(stream) for stream in streams]
    assert all(words)
    return words


def _line(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_model(path)
    assert str(path) in str(error.value) and len(str(error.value).splitlines()) == 1
    return str(error.value)


def _doctor(path: Path, capsys) -> list[str]:
    assert main(["doctor", str(path)]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


@pytest.mark.parametrize("encoder", list(TINY_MODELS))
def test_all_forms_say_the_words_of_the_experiment(encoder, tmp_path):
    exp_dir = bundled_experiment(tmp_path / "exp", TINY_MODELS[encoder])
    folder = make_bundle(exp_dir, tmp_path / "folder")
    file = _archived(folder, tmp_path / "file.snowmelt")
    trained = load_model(exp_dir, weights=CHOICE, device="cpu")
    options = SearchOptions(blank_penalty=BLANK_PENALTY)
    recognizer = OnlineRecognizer(trained, search=build_search(options))
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, noise(1.4, 1))
    stream.input_finished()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    for path in (folder, file):
        bundle = Bundle(path)
        onnx, eager = _words(onnx_form(bundle)), _words(torch_form(bundle, device="cpu"))
        assert onnx == eager and onnx[1] == recognizer.get_result(stream)


def test_what_it_says_of_itself(bundle, archive):
    for path in (bundle, archive):
        facts = Bundle(path).facts
        assert facts.model == TINY_LSTM and facts.weights == ("safetensors", "onnx")
        assert (facts.vocabulary.kind, facts.vocabulary.size) == ("chars", 30)
        assert (facts.letter_case, facts.licence, facts.head) == ("upper", "CC0-1.0", "main")
        training = facts.training
        assert (training.corpora, training.epochs, training.hours) == (("digits",), 2, 1.0)
        assert training.averaging is not None and training.averaging.avg == CHOICE.avg
        assert [(r.test_set, r.wer) for r in training.results] == [("digits-test", 12.5)]
        assert default_search(path).blank_penalty == BLANK_PENALTY
        assert load_model(path).search.blank_penalty == BLANK_PENALTY


def test_info(archive, damaged, capsys):
    (damaged / "joiner.onnx").write_bytes(b"nothing")
    for path, form in ((archive, "file"), (damaged, "folder")):
        assert main(["info", str(path), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["kind"], facts["form"], facts["licence"]) == ("bundle", form, "CC0-1.0")
        assert facts["training"]["results"][0]["wer"] == 12.5
        intact = {file["file"]: file["intact"] for file in facts["files"]}
        assert intact.pop("joiner.onnx") is (path == archive)
        assert len(intact) == 5 and all(intact.values())
    # Beside others in a folder, the one bundle is what the folder means.
    assert main(["info", str(archive.parent)]) == 0
    assert "kind: bundle" in capsys.readouterr().out
    assert load_model(archive.parent).weights == f"{archive} (ONNX)"


def test_what_is_asked_for_chooses_the_form(bundle, archive, exp_dir, tmp_path):
    assert load_model(archive).weights == f"{archive} (ONNX)"
    longer = load_model(bundle, decode_chunk_len=64)
    assert longer.weights == f"{bundle} (safetensors)" and longer.backend.decode_chunk_len == 64
    with pytest.raises(CheckpointError, match="is a bundle: averaging checkpoints is not possible"):
        load_model(bundle, weights=WeightsChoice())
    onnx = make_bundle(exp_dir, tmp_path / "onnx", weights="onnx")
    assert not (onnx / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match=r"chunks of 64 frames is not possible"):
        load_model(onnx, decode_chunk_len=64)
    eager = make_bundle(exp_dir, tmp_path / "eager", weights="safetensors")
    assert not (eager / "encoder.onnx").exists()
    assert load_model(eager, device="cpu").weights == f"{eager} (safetensors)"
    with pytest.raises(CheckpointError, match=r"none\.snowmelt does not exist"):
        load_model(tmp_path / "none.snowmelt")


def test_the_folder_serves_other_programs_too(bundle):
    """It is a folder of ONNX files with its tokens; sha256sum knows the sums."""
    assert load_model(bundle / "encoder.onnx").weights == str(bundle / "encoder.onnx")
    run = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=bundle, capture_output=True)
    assert run.returncode == 0, run.stderr


def test_onnx_bundles_need_no_torch(archive):
    program = (
        "import sys; sys.modules['torch'] = None; import snowmelt; "
        "print(snowmelt.load_model(sys.argv[1]).weights)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(archive)], capture_output=True, text=True
    )
    assert run.stdout == f"{archive} (ONNX)\n", run.stderr


def test_healthy(bundle, archive, capsys):
    for path in (bundle, archive):
        assert main(["doctor", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}: healthy\n"


@pytest.mark.parametrize("name", _FILES)
def test_every_file_removed_altered_or_never_fetched(damaged, name, capsys):
    path = damaged / name
    content = path.read_bytes()
    has_sums = name != "SHA256SUMS"
    # The weights for torch are not read where ONNX files serve; the doctor reads everything.
    seen = _doctor if name == "model.safetensors" else lambda path, _: [_line(path)]

    path.unlink()
    assert f"has no {name}" in seen(damaged, capsys)[0]
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert ("damaged" if has_sums else "SHA256SUMS") in seen(damaged, capsys)[0]
    assert _doctor(damaged, capsys)
    path.write_bytes(content[:middle])
    assert ("damaged" if has_sums else "SHA256SUMS") in seen(damaged, capsys)[0]
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git-lfs pointer" in seen(damaged, capsys)[0]
    if has_sums:
        sum_up(damaged)
        assert "git-lfs pointer" in seen(damaged, capsys)[0]
    if has_sums and name != "bundle.json":  # without it, and without its sum, it is no bundle
        path.unlink()
        sum_up(damaged)
        assert f"does not list {name}" in seen(damaged, capsys)[0]


def test_the_doctor_names_every_damaged_file(damaged, capsys):
    (damaged / "joiner.onnx").unlink()
    (damaged / "tokens.txt").write_text("nothing")
    lines = _doctor(damaged, capsys)
    assert len(lines) == 2
    assert "has no joiner.onnx" in lines[0] and "tokens.txt is damaged" in lines[1]


def _places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every key, at any depth."""
    items = enumerate(value) if isinstance(value, list) else value.items()
    for key, item in items:
        if not isinstance(value, list):
            yield (*where, key)
        if isinstance(item, dict) or (
            isinstance(item, list) and item and isinstance(item[0], dict)
        ):
            yield from _places(item, (*where, key))


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


@pytest.mark.parametrize("model", [TINY, TINY_LSTM], ids=["zipformer", "lstm"])
def test_every_key_removed_or_of_another_type(model, tmp_path):
    exp_dir = bundled_experiment(tmp_path / "exp", model)
    folder = make_bundle(exp_dir, tmp_path / "bundle", weights="safetensors")
    facts = facts_of(folder)
    places = list(_places(facts))
    assert ("training", "results", 0, "wer") in places and ("model", "decoder_dim") in places
    assert len(places) > 40
    for place in places:
        *outer, key = place
        removed = copy.deepcopy(facts)
        del _at(removed, tuple(outer))[key]
        write_facts(folder, removed)
        assert "bundle.json" in _line(folder), place
        altered = copy.deepcopy(facts)
        _at(altered, tuple(outer))[key] = {"another": "type"}
        write_facts(folder, altered)
        assert "bundle.json" in _line(folder), place
        unknown = copy.deepcopy(facts)
        _at(unknown, tuple(outer))[f"{key}_too"] = 1
        write_facts(folder, unknown)
        assert f"{key}_too" in _line(folder), place
    write_facts(folder, facts)
    assert load_model(folder, device="cpu").weights


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("format_version",), 2, "install a newer snowmelt"),
        (("format_version",), 0, "reads 1"),
        (("weights",), [], "names no form"),
        (("model", "decode_chunk_len"), 64, "decode_chunk_len is 64, the ONNX files 32"),
        (("model", "context_size"), 1, "context_size is 1, the ONNX files 2"),
        (("model", "feature_dim"), 40, "takes 40 mel bins, features have 80"),
        (("model", "encoder"), "zipformer", "unknown setting"),
        (("features", "sample_rate"), 0, "sample_rate"),
        (("min_tail_s",), -1.0, "min_tail_s is -1"),
        (("min_tail_s",), float("nan"), "is no JSON"),
        (("letter_case",), "title", "letter_case must be one of"),
        (("vocabulary", "kind"), "phones", "has kind 'phones'"),
        (("vocabulary", "size"), 29, "other tokens"),
        (("vocabulary", "hash"), "0" * 64, "other tokens"),
        (("decoding", "decoding_method"), "fast_beam_search_LG", "must be one of greedy_search"),
    ],
)
def test_values_that_cannot_be(damaged, place, value, reason):
    facts = facts_of(damaged)
    _at(facts, place[:-1])[place[-1]] = value
    write_facts(damaged, facts)
    assert reason in _line(damaged)


def test_a_description_that_is_none(damaged):
    for text in ("", "[]", "{", "\xff"):
        (damaged / "bundle.json").write_text(text, encoding="latin-1")
        sum_up(damaged)
        assert "bundle.json" in _line(damaged)


def test_sizes_that_are_not_those_of_the_weights(damaged, capsys):
    facts = facts_of(damaged)
    facts["model"]["decoder_dim"] = 32
    write_facts(damaged, facts)
    (line,) = _doctor(damaged, capsys)
    assert "safetensors) does not fit the model" in line


def test_other_tokens_with_right_sums(damaged, capsys):
    path = damaged / "tokens.txt"
    tokens = [line.split()[0] for line in path.read_text().splitlines()]
    for others in ([*tokens[:3], *reversed(tokens[3:])], tokens[:-1]):
        path.write_text("".join(f"{token} {i}\n" for i, token in enumerate(others)))
        sum_up(damaged)
        assert "holds other tokens, or another order" in _line(damaged)
        assert len(_doctor(damaged, capsys)) == 1
    path.write_text("no table\n")
    sum_up(damaged)
    assert "tokens.txt of" in _line(damaged)


def test_weights_with_right_sums(damaged, capsys):
    path = damaged / "model.safetensors"
    weights = load_file(path)
    spoilt = {**weights, "joiner.output_linear.bias": torch.full((30,), torch.nan)}
    save_file(spoilt, path)
    sum_up(damaged)
    assert "not finite numbers (joiner.output_linear.bias)" in _doctor(damaged, capsys)[0]
    del weights["joiner.output_linear.bias"]
    save_file(weights, path)
    sum_up(damaged)
    assert "1 missing (joiner.output_linear.bias)" in _doctor(damaged, capsys)[0]
    path.write_bytes(b"\0" * 100)
    sum_up(damaged)
    assert "no safetensors file" in _doctor(damaged, capsys)[0]
    shutil.copy(damaged / "joiner.onnx", damaged / "encoder.onnx")
    sum_up(damaged)
    assert f"{damaged}: " in _line(damaged)
    (damaged / "encoder.onnx").write_bytes(b"nothing")
    sum_up(damaged)
    assert "no model that ONNX Runtime can load" in _line(damaged)


@pytest.mark.parametrize(
    ("place", "value", "right"),
    [(("features", "sample_rate"), 8000, 16000), (("min_tail_s",), 0.5, 0.4)],
)
def test_another_sample_rate_or_tail(damaged, place, value, right, capsys):
    facts = facts_of(damaged)
    _at(facts, place[:-1])[place[-1]] = value
    write_facts(damaged, facts)
    reason = f"bundle.json says {'.'.join(place)} is {value}, the ONNX files {right}"
    assert reason in _line(damaged)
    assert reason in _doctor(damaged, capsys)[0]


def test_damaged_archives(archive, tmp_path, capsys):
    content = archive.read_bytes()
    path = tmp_path / "model.snowmelt"
    for damage in (content[:-100], content[: len(content) // 2], b"", b"nothing"):
        path.write_bytes(damage)
        assert "truncated, damaged or no bundle" in _line(path)
        assert len(_doctor(path, capsys)) == 1
    with zipfile.ZipFile(archive) as file:
        begin = content.index(file.read("joiner.onnx"))
    path.write_bytes(content[:begin] + b"\0" + content[begin + 1 :])
    assert "damaged" in _line(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "git-lfs pointer" in _line(path)
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "is compressed" in _line(path)


def test_an_archive_of_any_name(archive, tmp_path):
    path = Path(shutil.copy(archive, tmp_path / "renamed.zip"))
    assert load_model(path).weights == f"{path} (ONNX)"


def test_malformed_sums(damaged):
    path = damaged / "SHA256SUMS"
    text = path.read_text()
    for wrong in (text + "no sum\n", text + text, text.replace("tokens.txt", "../tokens.txt")):
        path.write_text(wrong)
        assert "SHA256SUMS has a line" in _line(damaged)
