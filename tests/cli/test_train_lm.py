"""`snowmelt train-lm`: a model, its continuation, and one line for mistakes."""

import gzip
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from snowmelt.cli.main import main
from snowmelt.text.tokenizer import build_words


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    build_words(["ONE TWO THREE"]).save(tmp_path / "lang")
    text = "".join(f"ONE TWO {'THREE ' * (n % 7)}\n" for n in range(60))
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "dev.txt").write_text("ONE TWO THREE\n")
    yield tmp_path
    root = logging.getLogger()
    for handler in [h for h in root.handlers if hasattr(h, "_snowmelt_handler")]:
        root.removeHandler(handler)
        handler.close()


def _train(folder: Path, *words: str) -> int:
    options = ["--exp-dir", folder / "exp", "--lang-dir", folder / "lang", "--device", "cpu"]
    options += ["--text", folder / "text.txt.gz", "--dev-text", folder / "dev.txt"]
    options += ["--embedding-dim", 8, "--hidden-dim", 8, "--max-tokens", 100]
    return main(["train-lm", *map(str, options), "--tensorboard", "0", *words])


def test_a_run_and_its_continuation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(folder, "--num-epochs", "1") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("dev text: loss=") and line.endswith("over 4 tokens")
    assert _train(folder, "--num-epochs", "2") == 2
    assert "holds checkpoints of an earlier run" in capsys.readouterr().err
    assert _train(folder, "--num-epochs", "2", "--resume", "auto") == 0
    names = {path.name for path in (folder / "exp").glob("*.pt")}
    assert {"epoch-1.pt", "epoch-2.pt", "best-valid-loss.pt"} <= names
    assert _train(folder, "--num-epochs", "2", "--resume", "auto") == 0
    assert "All 2 epochs are done" in capsys.readouterr().err


def test_the_configuration_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--lm-type", "transformer", "--preset", "lm-tiny", "--nhead", "2"]
    assert main(["train-lm", "--show-config", *words, "--set", "train.seed=7"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["nhead"] == 2 and config["model"]["encoder_dim"] == 96
    assert config["train"]["seed"] == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no text to learn from"),
        (["--text", "a.txt"], "has the tokens of a transducer, but none is named"),
        (["--nhead", "2"], "--nhead is no setting of rnn language models"),
        (["--set", "train.epochs=3"], "unknown setting 'train.epochs'"),
        (["--text", "no.txt", "--bpe-model", "no.model"], "no.model does not exist"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-lm", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_text_without_a_part_for_validation(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--exp-dir", folder / "exp", "--lang-dir", folder / "lang"]
    assert main(["train-lm", *map(str, options), "--text", str(folder / "dev.txt")]) == 2
    assert "name a text for that with --dev-text" in capsys.readouterr().err
    assert not (folder / "exp").exists()
