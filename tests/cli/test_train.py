"""`snowmelt train`: options become a run, and its end becomes an exit code."""

import json
import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from lhotse import CutSet

from snowmelt.checkpoint.experiment import load_experiment
from snowmelt.cli.main import build_parser, main
from snowmelt.data import corpora
from snowmelt.models.joiner import Joiner
from snowmelt.train.step import Learner
from tests.data.audit import planted
from tests.train.noise import NAMES, NoiseCorpus

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
    for name in NAMES:
        monkeypatch.setitem(
            corpora._ARCHIVE_CORPORA, name, lambda folder, seed: NoiseCorpus(folder)
        )
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
    step = Learner.step

    def interrupted(self, batches, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, batches, **options)

    monkeypatch.setattr(Learner, "step", interrupted)
    assert _train(data_dir) == 130
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == "snowmelt: interrupted"
    assert "go on with --resume auto" in err
    assert (data_dir.parent / "exp" / "checkpoint-1.pt").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--encoder-dims", "16,x"], "no list of whole numbers"),
        (["--mix", "noise"], "'noise' is no mix; write an4=0.5,digits=0.5"),
        (["--mix", "noise=0.5,noise=0.5"], "noise is named twice"),
        (["--giga-prob", "1"], "--giga-prob 1 is not a probability below 1"),
        (["--giga-prob", "0.5", "--mix", "noise=1"], "not allowed with argument"),
        (["--use-fp16", "--use-bf16"], "use_fp16 and use_bf16 are both on"),
        (["--encoder-dims", "16"], "encoder_dims has 1 values"),
        (["--set", "train.colour=1"], "unknown setting 'train.colour'"),
        (["--start-epoch", "7"], "epoch-6.pt does not exist"),
        (["--num-workers", "0"], "num_workers is 0"),
        (["--use-bf16", "perhaps"], "neither yes nor no"),
        (["--tokenizer", "words", "--bpe-model", "bpe.model"], "leave one of them out"),
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


# Sections A2.1 to A2.4 of the two recipes: every option of their train.py.
_OPTIONS_OF_THE_RECIPES = """
world-size master-port tensorboard num-epochs start-epoch start-batch exp-dir bpe-model base-lr
lr-batches lr-epochs context-size prune-range lm-scale am-scale simple-loss-scale seed
print-diagnostics inf-check save-every-n keep-last-k average-period use-fp16
num-encoder-layers feedforward-dims nhead encoder-dims attention-dims encoder-unmasked-dims
zipformer-downsampling-factors cnn-module-kernels decoder-dim joiner-dim short-chunk-size
num-left-chunks decode-chunk-len
full-libri mini-libri manifest-dir max-duration bucketing-sampler num-buckets concatenate-cuts
duration-factor gap on-the-fly-feats shuffle drop-last return-cuts num-workers enable-spec-aug
spec-aug-time-warp-factor enable-musan input-strategy
giga-prob initial-lr delay-penalty encoder-dim rnn-hidden-size aux-layer-period dim-feedforward
grad-norm-threshold on-the-fly-num-workers
"""


def test_every_option_of_the_recipes_is_known():
    parser = build_parser(["train"])
    known = parser._subparsers._group_actions[0].choices["train"].format_help()
    missing = [name for name in _OPTIONS_OF_THE_RECIPES.split() if f"--{name}" not in known]
    assert not missing


def test_the_tutorials_commands_are_settled(data_dir, capsys):
    words = "--start-epoch 1 --num-epochs 30 --use-fp16 1 --max-duration 550 --full-libri 1"
    words += " --input-strategy PrecomputedFeatures --return-cuts True"
    assert _train(data_dir, *words.split(), "--show-config") == 0
    out = capsys.readouterr().out
    assert "use_fp16: true" in out and "on_the_fly_feats: false" in out
    assert _train(data_dir, "--initial-lr", "0.002", "--show-config") == 0
    assert "base_lr: 0.002" in capsys.readouterr().out


def test_several_corpora_are_learnt_from_at_once(data_dir, capsys):
    NoiseCorpus(data_dir / "murmur").prepare()
    words = ["--mix", "noise=0.5,murmur=0.5", "--num-epochs", "1", "--log-interval", "1"]
    assert _train(data_dir, *words) == 0
    err = capsys.readouterr().err
    assert "murmur_loss[loss=" in err and "noise_loss[loss=" in err
    assert "murmur_tot_loss[" in err and "validation of murmur: " in err
    config, _ = load_experiment(data_dir.parent / "exp")
    assert config.data.extra_heads == ("murmur",)


def test_diagnostics_are_printed_instead_of_training(data_dir, capsys):
    assert _train(data_dir, "--print-diagnostics", "1") == 0
    out, _ = capsys.readouterr()
    assert "joiner" in out and "rms" in out
    assert not list((data_dir.parent / "exp").glob("*.pt"))


def test_inf_check_names_the_first_bad_module(data_dir, capsys, monkeypatch):
    forward = Joiner.forward

    def broken(self, encoder_out, decoder_out, project_input=True):
        return forward(self, encoder_out, decoder_out, project_input) * float("inf")

    monkeypatch.setattr(Joiner, "forward", broken)
    assert _train(data_dir, "--inf-check", "1", "--num-epochs", "9") == 2
    err = capsys.readouterr().err
    first = next(line for line in err.splitlines() if "is not finite" in line)
    assert "joiner" in first and "the first of this batch" in first
    assert "training is stopped" in err.splitlines()[-1]


def test_a_corpus_is_audited_before_training(data_dir, capsys):
    assert _train(data_dir, "--num-epochs", "1") == 0
    assert "Audit of noise: 16 utterances, all heard: nothing was" in capsys.readouterr().err


def test_training_does_not_start_on_what_an_audit_forbids(data_dir, capsys):
    folder = data_dir / "mine"
    cuts = planted.corpus(folder / "sound")
    for split, those in cuts.items():
        CutSet.from_cuts(those).to_file(folder / f"mine_cuts_{split}.jsonl")
    (folder / "sound" / "train-05.wav").unlink()
    words = ["--corpus", "mine", "--tokenizer", "words"]
    assert _train(data_dir, *words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("snowmelt: error: training must not start on mine: 1 missing; the first")
    assert "--audit 0 trains all the same" in last
    assert not (data_dir.parent / "exp").exists()
    # Without an audit it starts, and comes to the missing file.
    assert _train(data_dir, *words, "--audit", "0") == 2
    err = capsys.readouterr().err
    assert "Audit of" not in err and "train-05.wav does not exist" in err
