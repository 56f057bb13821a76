"""A language model learns, and what interrupts it changes nothing."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.checkpoint.lm_experiment import LmExperimentConfig, load_lm_experiment
from snowmelt.core.errors import CheckpointError, TrainingError
from snowmelt.data.sentences import Sentences, encode_sentences
from snowmelt.presets.language_models import (
    LmConfig,
    LmTrainConfig,
    RnnLmConfig,
    TransformerLmConfig,
)
from snowmelt.text.tokenizer import Tokenizer, build_words, vocabulary_hash
from snowmelt.train import lm_trainer
from snowmelt.train.history import read_history
from snowmelt.train.lm_metrics import LmTotals
from snowmelt.train.lm_trainer import LmRunOptions, train_lm
from tests.train.checkpoints import differences

RNN = RnnLmConfig(embedding_dim=8, hidden_dim=12, num_layers=1, dropout=0.2)
TRANSFORMER = TransformerLmConfig(
    encoder_dim=8, nhead=2, dim_feedforward=16, num_layers=1, context_len=4, dropout=0.2
)
TRAIN = LmTrainConfig(
    num_epochs=2, max_tokens=40, lr_warmup_batches=5, save_every_n=3, keep_last_k=2, log_interval=1
)
WORDS = build_words(["ONE TWO THREE FOUR"])
# Every word has one follower.
SENTENCES = ["ONE TWO THREE", "TWO THREE FOUR ONE", "THREE FOUR", "FOUR ONE TWO THREE FOUR ONE"] * 8


@pytest.fixture(autouse=True)
def _closed_logs() -> Iterator[None]:
    yield
    root = logging.getLogger()
    for handler in [h for h in root.handlers if hasattr(h, "_snowmelt_handler")]:
        root.removeHandler(handler)
        handler.close()


def _text(sentences: list[str], tokenizer: Tokenizer = WORDS) -> Sentences:
    return encode_sentences(sentences, tokenizer, max_len=5, name="the text")


def _train(
    exp_dir: Path,
    *,
    model: LmConfig = RNN,
    settings: LmTrainConfig = TRAIN,
    resume: str = "",
    sentences: list[str] = SENTENCES,
) -> LmTotals:
    return train_lm(
        LmExperimentConfig(model, settings, vocabulary_hash(WORDS)),
        WORDS,
        _text(sentences),
        _text(sentences[:4]),
        LmRunOptions(exp_dir, tensorboard=False, resume_from=exp_dir / resume if resume else None),
    )


@pytest.mark.parametrize("model", [RNN, TRANSFORMER], ids=["rnn", "transformer"])
def test_what_follows_is_learnt(tmp_path: Path, model: LmConfig) -> None:
    model = replace(model, dropout=0.0)
    totals = _train(tmp_path, model=model, settings=replace(TRAIN, num_epochs=30, lr_epochs=20.0))
    # Only the first word of a sentence has to be guessed; who knows nothing has 7.
    assert totals.rates()["ppl"] < 2.0
    losses = [r["loss"] for r in read_history(tmp_path) if r["kind"] == "valid"]
    assert len(losses) == 30 and losses[-1] < 0.5 * losses[0]
    config, tokenizer = load_lm_experiment(tmp_path)
    assert config.model == model and tokenizer.id_to_token == WORDS.id_to_token


@contextmanager
def _stopped_after(steps: int) -> Iterator[threading.Event]:
    """Asks to stop while step number `steps` is computed."""
    event = threading.Event()
    original = lm_trainer.seed_batch

    def seed(run_seed: int, number: int, rank: int) -> None:
        original(run_seed, number, rank)
        if number >= steps:
            event.set()

    lm_trainer.seed_batch = seed  # type: ignore[assignment]
    try:
        yield event
    finally:
        lm_trainer.seed_batch = original


@pytest.mark.parametrize("model", [RNN, TRANSFORMER], ids=["rnn", "transformer"])
@pytest.mark.parametrize("steps", [1, 6])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    tmp_path: Path, model: LmConfig, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(tmp_path / "whole", model=model)
    with _stopped_after(steps) as event:
        monkeypatch.setattr(lm_trainer, "stop_requests", lambda: _given(event))
        with pytest.raises(KeyboardInterrupt):
            _train(tmp_path / "parts", model=model)
    monkeypatch.undo()
    _train(tmp_path / "parts", model=model, resume=f"checkpoint-{steps}.pt")
    whole, parts = (load_checkpoint(tmp_path / name / "epoch-2.pt") for name in ("whole", "parts"))
    assert not differences(whole, parts)
    records = [read_history(tmp_path / name) for name in ("whole", "parts")]
    assert records[0] == records[1]


@contextmanager
def _given(event: threading.Event) -> Iterator[threading.Event]:
    yield event


def test_validation_and_more_epochs_change_no_batch(tmp_path: Path) -> None:
    _train(tmp_path / "a", settings=replace(TRAIN, num_epochs=1))
    _train(tmp_path / "a", resume="epoch-1.pt")
    _train(tmp_path / "b", settings=replace(TRAIN, valid_interval=2))
    a, b = (load_checkpoint(tmp_path / name / "epoch-2.pt") for name in ("a", "b"))
    assert not differences(a["model"], b["model"])
    kinds = [r.get("mid_epoch", False) for r in read_history(tmp_path / "b")]
    assert any(kinds)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    _train(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert names == [
        "best-valid-loss.pt",
        "checkpoint-6.pt",
        "checkpoint-9.pt",
        "epoch-1.pt",
        "epoch-2.pt",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": replace(RNN, hidden_dim=16)}, r"model\.hidden_dim is 12, here it is 16"),
        ({"settings": replace(TRAIN, max_tokens=50)}, r"train\.max_tokens is 40, here it is 50"),
        ({"sentences": SENTENCES[1:]}, "the middle of an epoch whose text_hash"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    _train(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        _train(tmp_path, resume="checkpoint-9.pt", **change)
    # Nor has it cost the settings that belong to the checkpoints.
    assert load_lm_experiment(tmp_path)[0].model == RNN


def test_numbers_that_are_not_finite_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        lm_trainer.F, "cross_entropy", lambda *args, **kwargs: torch.tensor(float("nan"))
    )
    with pytest.raises(TrainingError, match="51 steps in a row had numbers that are not finite"):
        _train(tmp_path, settings=replace(TRAIN, num_epochs=30, save_every_n=1000))
