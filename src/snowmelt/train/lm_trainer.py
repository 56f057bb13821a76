"""How does a language model learn from text? The training loop.

    sentences -> batches -> -log P(next token) -> gradient -> step -> checkpoint

Invariant: batch b of a run is the same whatever was killed before it: its sentences are a function
of (seed, epoch), its random draws of (seed, b).
"""

import json
import logging
import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from snowmelt.checkpoint.experiment import save_experiment
from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.checkpoint.lm_experiment import LmExperimentConfig
from snowmelt.core.config import to_dict
from snowmelt.core.errors import TrainingError
from snowmelt.core.files import held_folder, remove_leftovers
from snowmelt.core.interrupt import stop_requests
from snowmelt.core.log import setup_logging
from snowmelt.core.progress import progress_bar
from snowmelt.data.sentences import PADDING, SentenceBatch, Sentences
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.checkpoints import keep_newest, save_copies, set_aside_later
from snowmelt.train.environment import env_info
from snowmelt.train.history import History
from snowmelt.train.lm_metrics import LmTotals
from snowmelt.train.lm_state import LmTrainState
from snowmelt.train.resume import seed_batch

__all__ = ["LmRunOptions", "train_lm"]

_logger = logging.getLogger(__name__)

# Steps in a row that may be skipped because a number is not finite.
_MAX_SKIPPED: Final = 50


@dataclass(frozen=True)
class LmRunOptions:
    """Where a run leaves its files, and how it is computed.

    Attributes:
        exp_dir: output folder.
        device: cpu, cuda or mps.
        tensorboard: whether TensorBoard events are written.
        resume_from: a checkpoint of the same run, or None to start anew.
    """

    exp_dir: Path
    device: str = "cpu"
    tensorboard: bool = True
    resume_from: Path | None = None


def train_lm(
    config: LmExperimentConfig,
    tokenizer: Tokenizer,
    sentences: Sentences,
    dev: Sentences,
    options: LmRunOptions,
) -> LmTotals:
    """Train until the last epoch.

    Returns:
        loss and perplexities on the dev text after the last epoch; of no token where no epoch was
        left.

    Raises:
        UserError: the checkpoint cannot be used, or the numbers are not finite any more.
        KeyboardInterrupt: SIGINT or SIGTERM came; the batch was finished and its state saved.
    """
    exp_dir = options.exp_dir
    with held_folder(exp_dir):
        setup_logging(exp_dir / "log" / time.strftime("log-train-%Y-%m-%d-%H-%M-%S"))
        _logger.info("Training started")
        _logger.info("Environment: %s", json.dumps(env_info(), sort_keys=True))
        _logger.info("%s", json.dumps(to_dict(config), sort_keys=True))
        for name, text in (("training", sentences), ("dev", dev)):
            _logger.info(
                "%s text: %d pieces of sentences, %d tokens, %d words; %d unknown tokens",
                *(name, len(text), text.splits[-1], text.num_words.sum(), text.num_unknown),
            )
        trainer = _LmTrainer(config, tokenizer, sentences, dev, options)
        # Not before: a checkpoint that does not fit must not cost the settings it belongs to.
        save_experiment(exp_dir, config, tokenizer)
        if options.resume_from is not None:
            set_aside_later(exp_dir, options.resume_from)
        for folder in ("", "lang", "tensorboard"):
            remove_leftovers(exp_dir / folder, "*")
        with stop_requests() as stop_requested:
            totals = trainer.run(stop_requested)
        _logger.info("Done!")
    return totals


class _LmTrainer:
    """State, data and loop of a run."""

    def __init__(
        self,
        config: LmExperimentConfig,
        tokenizer: Tokenizer,
        sentences: Sentences,
        dev: Sentences,
        options: LmRunOptions,
    ) -> None:
        train = config.train
        self._config = config
        self._options = options
        self._device = torch.device(options.device)
        self._sentences, self._dev = sentences, dev
        self._sampler = sentences.sampler(train.max_tokens, seed=train.seed)
        self._dev_batches = dev.sampler(train.max_tokens, seed=0, shuffle=False).batches(0)
        # The first weights, before any batch is drawn.
        seed_batch(train.seed, 0, 0)
        self._state = LmTrainState(
            config, tokenizer.vocab_size, sentences.content_hash(), self._device
        )
        _logger.info(
            "Number of model parameters: %d",
            sum(p.numel() for p in self._state.model.parameters()),
        )
        if options.resume_from is not None:
            self._state.load(load_checkpoint(options.resume_from), options.resume_from)
            _logger.info("Resuming from %s", options.resume_from)
        self._num_skipped = 0  # steps in a row

    def run(self, stop_requested: threading.Event) -> LmTotals:
        """Train all epochs that are left, or until the event is set."""
        progress, num_epochs = self._state.progress, self._config.train.num_epochs
        totals = LmTotals()
        with History(
            self._options.exp_dir,
            done=progress.batch_idx_train,
            epoch=progress.epoch,
            is_main=True,
            tensorboard=self._options.tensorboard,
        ) as history:
            if progress.epoch > num_epochs:
                _logger.info(
                    "All %d epochs are done: raise --num-epochs to go on", progress.epoch - 1
                )
            for epoch in range(progress.epoch, num_epochs + 1):
                self._train_epoch(epoch, history, stop_requested)
                totals = self._end_epoch(epoch, history)
        return totals

    def _train_epoch(self, epoch: int, history: History, stop_requested: threading.Event) -> None:
        state, progress, train = self._state, self._state.progress, self._config.train
        progress.epoch = epoch
        state.scheduler.step_epoch(epoch - 1)
        batches = self._sampler.batches(epoch)
        started, num_tokens = time.monotonic(), 0.0
        with progress_bar(f"epoch {epoch}/{train.num_epochs}", total=len(batches)) as bar:
            bar.advance(progress.batch)
            for indices in batches[progress.batch :]:
                current = self._step(self._sentences.batch(indices))
                state.totals = state.totals.decayed(train.reset_interval) + current
                self._report(epoch, current, history)
                progress.batch += 1
                if progress.batch_idx_train % train.valid_interval == 0 and progress.batch < len(
                    batches
                ):
                    self._validate(epoch, history, mid_epoch=True)
                self._save_if_due(history, is_stopping=stop_requested.is_set())
                num_tokens += current.tokens
                speed = num_tokens / (time.monotonic() - started)
                bar.advance(1, note=f"ppl {state.totals.rates()['ppl']:.1f}  {speed:.0f} tokens/s")

    def _step(self, batch: SentenceBatch) -> LmTotals:
        """Learn from one batch."""
        state, train = self._state, self._config.train
        state.progress.batch_idx_train += 1
        number = state.progress.batch_idx_train
        seed_batch(train.seed, number, 0)
        loss, totals = self._loss(batch)
        state.scheduler.step_batch(number)
        is_usable = math.isfinite(totals.loss)
        if is_usable:
            state.precision.backward(loss / totals.tokens)
            is_usable = state.precision.step(state.optimizer, number)
            state.optimizer.zero_grad()
        self._num_skipped = 0 if is_usable else self._num_skipped + 1
        if self._num_skipped > _MAX_SKIPPED:
            raise TrainingError(
                f"{self._num_skipped} steps in a row had numbers that are not finite",
                "lower --base-lr, and go on from an earlier checkpoint with --start-batch",
            )
        return totals if math.isfinite(totals.loss) else LmTotals()

    def _loss(self, batch: SentenceBatch) -> tuple[Tensor, LmTotals]:
        inputs = torch.from_numpy(batch.inputs).to(self._device)
        targets = torch.from_numpy(batch.targets).to(self._device)
        with self._state.precision.autocast():
            logits, _ = self._state.model(inputs)
        loss = F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=PADDING, reduction="sum"
        )
        num_tokens = int((batch.targets != PADDING).sum())
        return loss, LmTotals(
            loss=float(loss.detach()),
            tokens=float(num_tokens),
            words=float(batch.num_words),
            sentences=float(len(batch.targets)),
            padding=float(batch.targets.size - num_tokens),
        )

    def _report(self, epoch: int, current: LmTotals, history: History) -> None:
        """Record the step that was just taken; now and then a line in the log."""
        state, progress = self._state, self._state.progress
        number, lr = progress.batch_idx_train, state.scheduler.get_lr()[0]
        history.batch(number, epoch, current, lr)
        if progress.batch % self._config.train.log_interval == 0:
            _logger.info(
                *("Epoch %d, batch %d, loss[%s], tot_loss[%s], lr: %.2e", epoch, progress.batch),
                *(current, state.totals, lr),
            )
            history.point(
                *(number, epoch),
                current=current,
                totals={"": state.totals},
                lr=lr,
                grad_scale=state.precision.scale,
            )

    def _save_if_due(self, history: History, *, is_stopping: bool) -> None:
        """Save now and then, and when the run shall stop, which ends it.

        Raises:
            KeyboardInterrupt: this process was asked to stop.
        """
        train, exp_dir = self._config.train, self._options.exp_dir
        done = self._state.progress.batch_idx_train
        if is_stopping or done % train.save_every_n == 0:
            self._save(history, exp_dir / f"checkpoint-{done}.pt")
            keep_newest(exp_dir, train.keep_last_k)
        if is_stopping:
            _logger.info("Asked to stop: go on with --resume auto")
            raise KeyboardInterrupt

    def _end_epoch(self, epoch: int, history: History) -> LmTotals:
        """Validate and save; the best epoch so far is saved under a name of its own too."""
        progress, exp_dir = self._state.progress, self._options.exp_dir
        totals = self._validate(epoch, history)
        loss = totals.rates()["loss"]
        names = [f"epoch-{epoch}.pt"]
        if loss < progress.best_valid_loss:
            progress.best_valid_loss, progress.best_valid_epoch = loss, epoch
            names.insert(0, "best-valid-loss.pt")
        # The file says where to go on: at the first batch of the next epoch.
        progress.epoch, progress.batch = epoch + 1, 0
        # The epoch's own name comes last: as long as it is missing, all of this is done again.
        self._save(history, *(exp_dir / name for name in names))
        return totals

    @torch.no_grad()
    def _validate(self, epoch: int, history: History, *, mid_epoch: bool = False) -> LmTotals:
        """Loss on the dev text; nothing is learnt and no random number is drawn."""
        model = self._state.model.eval()
        totals = LmTotals()
        for indices in self._dev_batches:
            totals = totals + self._loss(self._dev.batch(indices))[1]
        model.train()
        number = self._state.progress.batch_idx_train
        history.validation(number, epoch, totals, mid_epoch=mid_epoch)
        _logger.info("Epoch %d, validation: %s", epoch, totals)
        return totals

    def _save(self, history: History, first: Path, *copies: Path) -> None:
        """Write one checkpoint under several names, in this order."""
        history.sync()
        _logger.info("Saving checkpoint to %s", first)
        self._state.save(first)
        save_copies(first, copies)
