"""Whole small runs: files, logs, interruptions, and runs that go on as if nothing had happened."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from snowmelt.checkpoint.experiment import ExperimentConfig, load_experiment, numbered_checkpoints
from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.core.errors import AudioError, CheckpointError, UserError
from snowmelt.core.files import held_folder
from snowmelt.data.batch import AsrDataset, Batch
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.elastic import launch
from snowmelt.train.history import read_history
from snowmelt.train.trainer import RunOptions, train
from tests.train.checkpoints import differences
from tests.train.noise import train_on_noise


def _options(exp_dir: Path, data_dir: Path, resume_from: Path | None = None) -> RunOptions:
    return RunOptions(
        exp_dir=exp_dir, data_dir=data_dir, tensorboard=False, resume_from=resume_from
    )


def _log(exp_dir: Path) -> str:
    return "".join(p.read_text() for p in sorted((exp_dir / "log").glob("log-train-*")))


def _assert_same_run(one: Path, other: Path) -> None:
    """The last checkpoints, all that is in them, and the records of every batch."""
    assert not differences(load_checkpoint(one), load_checkpoint(other))
    assert read_history(one.parent) == read_history(other.parent)


def test_files_and_log_of_a_run(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    exp_dir = tmp_path / "exp"
    train(config, tokenizer, _options(exp_dir, data_dir))
    names = {p.name for p in exp_dir.iterdir()}
    assert {"epoch-1.pt", "epoch-2.pt", "best-train-loss.pt", "config.yaml", "lang"} <= names
    assert any(n.startswith("checkpoint-") for n in names)
    records = read_history(exp_dir)
    batches = [r["batch"] for r in records if r["kind"] == "train"]
    assert batches == list(range(1, len(batches) + 1))
    assert [r["epoch"] for r in records if r["kind"] == "valid"] == [1, 2]
    read_config, read_tokenizer = load_experiment(exp_dir)
    assert read_config.model == config.model
    assert read_tokenizer.encode("TWO") == tokenizer.encode("TWO")


def test_one_training_at_a_time_in_a_folder(
    tmp_path: Path,
    data_dir: Path,
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snowmelt.train.trainer._PATIENCE_S", 0.0)
    options = _options(tmp_path, data_dir)
    with (
        held_folder(tmp_path),
        pytest.raises(UserError, match="another process is writing in"),
    ):
        train(config, tokenizer, options)
    assert not list(tmp_path.glob("*.pt"))


def test_log_lines_are_the_originals(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    exp_dir = tmp_path / "exp"
    train(config, tokenizer, _options(exp_dir, data_dir))
    number = r"[-+.e0-9]+"
    losses = rf"loss={number}, simple_loss={number}, pruned_loss={number}, ctc_loss={number}, "
    losses += rf"over \d+\.00 frames\. utt_duration={number} frames, "
    losses += rf"utt_pad_proportion={number}, over \d+\.00 utterances\. "
    decayed = losses.replace(r"\.00", r"\.\d\d")
    expected = [
        "Training started",
        "Device: cpu",
        r'\{"data": \{.*"corpus": "noise".*',
        "About to create model",
        r"Number of model parameters: \d+",
        rf"Epoch 1, batch 0, loss\[{losses}\], tot_loss\[{decayed}\], batch size: \d, "
        r"lr: \d\.\d\de-\d\d, ",
        f"Saving checkpoint to {exp_dir}/checkpoint-3.pt",
        r"Epoch 1, \d+\.\d% of the time was spent waiting for data",
        "Computing validation loss",
        f"Epoch 1, validation: {losses}",
        f"Saving checkpoint to {exp_dir}/epoch-1.pt",
        "Done!",
    ]
    texts = [line.split("] ", 1)[1] for line in _log(exp_dir).splitlines()]
    # One after another; other lines may stand between them.
    rest = iter(texts)
    for pattern in expected:
        assert any(re.fullmatch(pattern, text) for text in rest), pattern
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO \[\w+\.py:\d+\] "
    assert all(re.match(stamp, line) for line in _log(exp_dir).splitlines())


def test_best_epochs_have_names_of_their_own(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    exp_dir = tmp_path / "exp"
    train(config, tokenizer, _options(exp_dir, data_dir))
    progress = load_checkpoint(exp_dir / "epoch-2.pt")["snowmelt"]["progress"]
    losses = {r["epoch"]: r["loss"] for r in read_history(exp_dir) if r["kind"] == "valid"}
    best = min(losses, key=lambda epoch: losses[epoch])
    assert progress["best_valid_epoch"] == best
    assert progress["best_valid_loss"] == losses[best]
    for kind in ("train", "valid"):
        epoch = progress[f"best_{kind}_epoch"]
        same = (exp_dir / f"epoch-{epoch}.pt").read_bytes()
        assert (exp_dir / f"best-{kind}-loss.pt").read_bytes() == same


def test_only_the_newest_checkpoints_are_kept(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    exp_dir = tmp_path / "exp"
    exp_dir.mkdir()
    (exp_dir / "checkpoint-best.pt").write_text("not ours")
    (exp_dir / ".tmp-0123abcd-epoch-1.pt").write_text("left by a run that was killed")
    config = replace(
        config, train=replace(config.train, average_period=200, save_every_n=200, keep_last_k=2)
    )
    train(config, tokenizer, _options(exp_dir, data_dir))
    done = load_checkpoint(exp_dir / "epoch-2.pt")["batch_idx_train"]
    assert list(numbered_checkpoints(exp_dir, "checkpoint")) == [done - 1, done]
    assert (exp_dir / "checkpoint-best.pt").exists()
    assert not list(exp_dir.glob(".tmp-*"))


def test_a_resumed_run_is_the_same_run(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    whole = tmp_path / "whole"
    train(config, tokenizer, _options(whole, data_dir))
    mid_epoch = next(iter(numbered_checkpoints(whole, "checkpoint").values()))
    assert load_checkpoint(mid_epoch)["sampler"]["batch"] > 0
    for start in (mid_epoch, whole / "epoch-1.pt"):
        resumed = tmp_path / f"resumed-{start.stem}"
        (resumed / "tensorboard").mkdir(parents=True)
        (resumed / start.name).write_bytes(start.read_bytes())
        # As a killed run leaves it: with batches that are behind the checkpoint.
        (resumed / "tensorboard" / "history.jsonl").write_bytes(
            (whole / "tensorboard" / "history.jsonl").read_bytes()
        )
        train(config, tokenizer, _options(resumed, data_dir, resumed / start.name))
        _assert_same_run(whole / "epoch-2.pt", resumed / "epoch-2.pt")


@contextmanager
def _at_batch_read(number: int, action: Callable[[], None]) -> Iterator[None]:
    """Do something when a reader is asked for its n-th batch."""
    get, calls = AsrDataset.get, []

    def counted(self: AsrDataset, indices: Sequence[int], epoch: int) -> Batch:
        calls.append(1)
        if len(calls) == number:
            action()
        return get(self, indices, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsrDataset, "get", counted)
        yield


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_loses_nothing(
    tmp_path: Path,
    data_dir: Path,
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    number: signal.Signals,
) -> None:
    whole, exp_dir = tmp_path / "whole", tmp_path / "exp"
    train(config, tokenizer, _options(whole, data_dir))
    with (
        _at_batch_read(3, lambda: os.kill(os.getpid(), number)),
        pytest.raises(KeyboardInterrupt),
    ):
        train(config, tokenizer, _options(exp_dir, data_dir))
    saved = list(numbered_checkpoints(exp_dir, "checkpoint").values())[-1]
    assert not (exp_dir / "epoch-2.pt").exists()
    assert not list(exp_dir.glob(".tmp-*"))
    train(config, tokenizer, _options(exp_dir, data_dir, saved))
    _assert_same_run(whole / "epoch-2.pt", exp_dir / "epoch-2.pt")


def test_sound_that_cannot_be_read_ends_the_run(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    def fail() -> None:
        raise AudioError("utt03.wav is truncated")

    with _at_batch_read(2, fail), pytest.raises(AudioError, match="utt03"):
        train(config, tokenizer, _options(tmp_path / "exp", data_dir))
    assert not list((tmp_path / "exp").glob("*.pt"))


def test_checkpoint_of_another_model_is_refused_and_costs_nothing(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    exp_dir = tmp_path / "exp"
    config = replace(config, train=replace(config.train, num_epochs=1))
    train(config, tokenizer, _options(exp_dir, data_dir))
    settings = (exp_dir / "config.yaml").read_bytes()
    wider = replace(config, model=replace(config.model, joiner_dim=24))
    with pytest.raises(CheckpointError, match=r"model\.joiner_dim is 16, here it is 24") as error:
        train(wider, tokenizer, _options(exp_dir, data_dir, exp_dir / "epoch-1.pt"))
    assert "\n" not in str(error.value)
    assert (exp_dir / "config.yaml").read_bytes() == settings


def test_corpus_without_usable_utterance(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    config = replace(config, data=replace(config.data, min_utterance_s=5.0))
    with pytest.raises(UserError, match="no utterance of noise can be learnt from"):
        train(config, tokenizer, _options(tmp_path / "exp", data_dir))


@pytest.mark.slow
def test_two_processes_go_on_as_if_nothing_had_happened(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    config = replace(
        config, train=replace(config.train, average_period=200, save_every_n=200, num_epochs=2)
    )
    launch(2, train_on_noise, config, tokenizer, _options(whole, data_dir))
    start = whole / "checkpoint-1.pt"
    saved = load_checkpoint(start)
    assert saved["sampler"]["batch"] == 1 and len(saved["snowmelt"]["ranks"]) == 2
    assert differences(*saved["snowmelt"]["ranks"])  # each has its own losses
    launch(2, train_on_noise, config, tokenizer, _options(resumed, data_dir, start))
    assert not differences(
        load_checkpoint(whole / "epoch-2.pt"), load_checkpoint(resumed / "epoch-2.pt")
    )
    with pytest.raises(CheckpointError, match="world_size is 2, here it is 1"):
        train(config, tokenizer, _options(tmp_path / "alone", data_dir, start))
    train(config, tokenizer, _options(tmp_path / "alone", data_dir, whole / "epoch-1.pt"))
    assert "world_size was 2 so far, from here on it is 1" in _log(tmp_path / "alone")


@pytest.mark.slow
def test_two_processes_stop_at_the_same_batch(
    tmp_path: Path, data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer
) -> None:
    exp_dir = tmp_path / "exp"
    config = replace(config, train=replace(config.train, num_epochs=1000, save_every_n=10**6))
    stopper = threading.Thread(target=_stop_when_training, args=(exp_dir,))
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        launch(2, train_on_noise, config, tokenizer, _options(exp_dir, data_dir))
    stopper.join()
    (done,) = numbered_checkpoints(exp_dir, "checkpoint")
    assert load_checkpoint(exp_dir / f"checkpoint-{done}.pt")["batch_idx_train"] == done
    assert "Asked to stop" in _log(exp_dir)


def _stop_when_training(exp_dir: Path) -> None:
    deadline = time.monotonic() + 60
    while not (exp_dir / "epoch-1.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
