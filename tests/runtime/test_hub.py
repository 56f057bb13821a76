"""hf:owner/name: found in the cache without a network, and one clear line where it is not."""

import builtins
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest

from snowmelt.cli.main import main
from snowmelt.core.errors import CheckpointError, MissingExtraError
from snowmelt.runtime.hub import _fetched, local_path
from snowmelt.runtime.load import load_model
from tests.runtime.bundles import bundled_experiment, make_bundle
from tests.runtime.tiny import TINY_LSTM, make_experiment, tiny_tokenizer

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    _fetched.cache_clear()
    return tmp_path / "hub"


def _snapshot(cache: Path, revision: str = "main", commit: str = _COMMIT) -> Path:
    """The folder of owner/name in the cache, as the client lays it out."""
    repository = cache / "models--owner--name"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A repository as icefall's models have them: exp/ and data/lang_..., no configuration."""
    folder = tmp_path_factory.mktemp("published")
    exp_dir = make_experiment(tmp_path_factory.mktemp("exp"), 1, model=TINY_LSTM)
    (folder / "exp").mkdir()
    shutil.copy(exp_dir / "epoch-1.pt", folder / "exp" / "pretrained-iter-468000-avg-16.pt")
    tiny_tokenizer().save(folder / "data" / "lang_bpe_500")
    return folder


def test_a_published_repository(cache, published, capsys):
    folder = _snapshot(cache)
    shutil.copytree(published, folder, dirs_exist_ok=True)
    path = folder / "exp" / "pretrained-iter-468000-avg-16.pt"
    for address in ("hf:owner/name", "hf:owner/name/exp/pretrained-iter-468000-avg-16.pt"):
        model = load_model(address, device="cpu")
        assert model.weights == str(path) and model.tokenizer.vocab_size == 30
    # Nothing of it says that it is a repository: a copy or a clone will do.
    assert load_model(published, device="cpu").tokenizer.vocab_size == 30
    assert main(["info", "hf:owner/name"]) == 0
    assert "kind: checkpoint" in capsys.readouterr().out
    assert main(["doctor", "hf:owner/name"]) == 0


def test_a_bundle_and_its_revision(cache, tmp_path):
    exp_dir = bundled_experiment(tmp_path / "exp", TINY_LSTM)
    for revision, commit in (("main", _COMMIT), ("v2", _COMMIT[::-1])):
        make_bundle(exp_dir, _snapshot(cache, revision, commit), weights="safetensors")
    for address, commit in (
        ("hf:owner/name", _COMMIT),
        ("hf:owner/name@v2", _COMMIT[::-1]),
        (f"hf:owner/name@{_COMMIT}", _COMMIT),
    ):
        assert local_path(address).name == commit
        assert commit in load_model(address, device="cpu").weights


def test_which_files_are_asked_for(cache, monkeypatch, tmp_path):
    calls: list[dict[str, Any]] = []

    def download(repo: str, **options: Any) -> str:
        calls.append({"repo": repo, **options})
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (tmp_path / "exp").mkdir()
    for name in ("encoder-e.int8.onnx", "exp/cpu_jit.pt"):
        (tmp_path / name).touch()
    local_path("hf:owner/name")
    assert calls[0]["repo"] == "owner/name" and calls[0]["revision"] is None
    assert "*.int8.onnx" in calls[0]["ignore_patterns"]
    assert "exp/pretrained*.pt" in calls[0]["allow_patterns"]
    assert not any("epoch" in pattern or pattern == "*" for pattern in calls[0]["allow_patterns"])
    local_path("hf:owner/name@v1/encoder-e.int8.onnx")
    assert calls[1]["revision"] == "v1" and calls[1]["ignore_patterns"] is None
    assert {"decoder-e.int8.onnx", "joiner-e.int8.onnx"} <= set(calls[1]["allow_patterns"])
    assert local_path("hf:owner/name/exp/cpu_jit.pt") == tmp_path / "exp" / "cpu_jit.pt"
    local_path("hf:owner/name")  # known already
    assert len(calls) == 3
    with pytest.raises(CheckpointError, match=r"the repository has no other\.pt"):
        local_path("hf:owner/name/other.pt")


def test_what_is_wrong_is_one_line(cache, capsys):
    for address, reason in (
        (
            "hf:owner/name",
            "is not in the cache of this machine, and Hugging Face cannot",
        ),
        ("hf:owner/name@v9", "is not in the cache"),
        ("hf:owner", "names no repository (hint: write hf:owner/name"),
        ("hf:", "names no repository"),
        ("hf:own er/name", "names no repository"),
        ("hf:owner/..", "names no repository"),
    ):
        assert main(["transcribe", "--model", address, "sound.wav"]) == 2
        err = capsys.readouterr().err
        assert reason in err and len(err.splitlines()) == 1, address
    _snapshot(cache)
    with pytest.raises(ValueError, match=r"config\.yaml"):
        load_model("hf:owner/name")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RepositoryNotFoundError", "has no repository owner/name, or it is private"),
        ("RevisionNotFoundError", "owner/name has no revision v1"),
        ("GatedRepoError", "open to those only who were let in"),
        ("OSError", "cannot be fetched: OSError: disk full"),
    ],
)
def test_what_the_other_side_refuses(cache, monkeypatch, name, reason):
    kind = getattr(huggingface_hub.errors, name, OSError)
    error = kind.__new__(kind)
    Exception.__init__(error, "disk full")

    def refuse(*args: Any, **options: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=reason):
        local_path("hf:owner/name@v1")


def test_without_the_extra(cache, monkeypatch):
    real = builtins.__import__

    def blocked(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(MissingExtraError, match=r"pip install 'snowmelt\[hf\]'"):
        local_path("hf:owner/name")
    assert local_path("runs/digits") == Path("runs/digits")
