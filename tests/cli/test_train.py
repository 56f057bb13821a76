"""`snowmelt train`: options become a run, and its end becomes an exit code."""

import json
import logging
import os
import signal
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.experiment import load_experiment
from snowmelt.cli.main import main
from snowmelt.data import corpora
from snowmelt.train import trainer
from tests.train.noise import NoiseCorpus

_TINY = {
    "num-encoder-layers": "1,1",
    "feedforward-dims": "16,16",
    "nhead": "2,2",
    "encoder-dims": "16,16",
    "attention-dims": "8,8",
    "encoder-unmasked-dims": "12,12",
    "zipformer-downsampling-factors": "1,2",
    "cnn-module-kernels": "5,5",
    "decoder-dim": "16",
    "joiner-dim": "16",
    "schedule-scale": "0.005",
    "max-duration": "3",
    "corpus": "noise",
    "world-size": "1",
    "device": "cpu",
    "tensorboard": "0",
}


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setitem(corpora._CORPORA, "noise", lambda folder, seed: NoiseCorpus(folder))
    NoiseCorpus(tmp_path / "data" / "noise").prepare()
    yield tmp_path / "data"
    root = logging.getLogger()
    for handler in [h for h in root.handlers if hasattr(h, "_snowmelt_handler")]:
        root.removeHandler(handler)
        handler.close()


def _train(data_dir: Path, *words: str) -> int:
    exp_dir = str(data_dir.parent / "exp")
    tiny = [word for name, value in _TINY.items() for word in (f"--{name}", value)]
    return main(["train", "--exp-dir", exp_dir, "--data-dir", str(data_dir), *tiny, *words])


def test_a_run_and_its_continuation(data_dir, capsys):
    exp_dir = data_dir.parent / "exp"
    assert _train(data_dir, "--num-epochs", "1", "--seed", "3", "--normalise-features") == 0
    out, err = capsys.readouterr()
    assert out == "" and "Done!" in err
    config, tokenizer = load_experiment(exp_dir)
    assert config.model.joiner_dim == 16 and config.train.seed == 3
    assert config.train.normalise_features and tokenizer.vocab_size == 6
    assert (exp_dir / "epoch-1.pt").exists()
    # The folder is not written over unless one asks to go on with it.
    assert _train(data_dir, "--num-epochs", "2") == 2
    assert "holds checkpoints of an earlier run" in capsys.readouterr().err
    assert _train(data_dir, "--num-epochs", "2", "--seed", "3", "--resume", "auto") == 0
    assert "Resuming from" in capsys.readouterr().err
    assert (exp_dir / "epoch-2.pt").exists()


def test_settings_can_be_shown(data_dir, capsys):
    assert _train(data_dir, "--show-config", "--set", "train.seed=5") == 0
    out, err = capsys.readouterr()
    assert "seed: 5" in out and "corpus: noise" in out and err == ""
    assert not (data_dir.parent / "exp").exists()


def test_ctrl_c_saves_and_exits_with_130(data_dir, capsys, monkeypatch):
    train_batch = trainer._Trainer._train_batch

    def interrupted(self, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return train_batch(self, batch)

    monkeypatch.setattr(trainer._Trainer, "_train_batch", interrupted)
    assert _train(data_dir) == 130
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == "snowmelt: interrupted"
    assert "go on with --resume auto" in err
    assert (data_dir.parent / "exp" / "checkpoint-1.pt").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--encoder-dims", "16,x"], "no list of whole numbers"),
        (["--encoder-dims", "16"], "encoder_dims has 1 values"),
        (["--set", "train.colour=1"], "unknown setting 'train.colour'"),
        (["--start-epoch", "7"], "epoch-6.pt does not exist"),
        (["--num-workers", "0"], "num_workers is 0"),
        (["--use-bf16", "perhaps"], "neither yes nor no"),
    ],
)
def test_mistakes_are_one_line(data_dir, capsys, words, reason):
    assert _train(data_dir, *words) == 2
    out, err = capsys.readouterr()
    assert out == "" and reason in err and len(err.splitlines()) == 1
    assert not (data_dir.parent / "exp").exists()


def test_parameters_are_logged_as_json(data_dir, capsys):
    assert _train(data_dir, "--num-epochs", "1") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if '{"data"' in line]
    assert json.loads(lines[0].split("] ", 1)[1])["train"]["num_epochs"] == 1
    assert torch.get_num_threads() >= 1
