"""How does a model learn from a corpus? The training loop, one process of it.

    corpus -> cuts -> batches -> losses -> gradient -> step -> running mean -> checkpoint

Invariant: batch b of a run is the same whoever computes it and whatever was killed before it:
its cuts are a function of (seed, epoch), its random draws of (seed, b, rank).

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/train.py.
"""

import json
import logging
import shutil
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from snowmelt.checkpoint.experiment import (
    ExperimentConfig,
    numbered_checkpoints,
    save_experiment,
)
from snowmelt.core.config import to_dict
from snowmelt.core.files import atomic_path, remove_leftovers
from snowmelt.core.interrupt import stop_requests
from snowmelt.core.log import setup_logging
from snowmelt.core.progress import progress_bar
from snowmelt.data.batch import AsrDataset, Batch
from snowmelt.models.build import build_transducer, fold_feature_normalisation
from snowmelt.models.regularisers import set_schedule_scale
from snowmelt.optim.eden import Eden
from snowmelt.optim.scaled_adam import ScaledAdam
from snowmelt.presets.frames import FEATURE_FRAME_S, SUBSAMPLING_FACTOR
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.corpus import TrainingCorpus
from snowmelt.train.distributed import Ranks, any_rank, process_group, sum_over_ranks
from snowmelt.train.history import History
from snowmelt.train.metrics import LossTotals, format_totals
from snowmelt.train.objective import StepLosses, TransducerObjective
from snowmelt.train.prefetch import prefetched, reader_threads
from snowmelt.train.resume import TrainState, seed_batch

__all__ = ["RunOptions", "train"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is computed; nothing here changes what is learnt.

    `device` is cpu, cuda or mps; `resume_from` is a checkpoint of the same run, or None to start
    anew.
    """

    exp_dir: Path
    data_dir: Path
    device: str = "cpu"
    tensorboard: bool = True
    resume_from: Path | None = None


def train(config: ExperimentConfig, tokenizer: Tokenizer, options: RunOptions) -> None:
    """Train until the last epoch; this process's part where several share the work.

    Raises:
        UserError: data or checkpoint cannot be used.
        KeyboardInterrupt: SIGINT or SIGTERM came; the batch was finished and its state saved.
    """
    device = torch.device(options.device)
    with process_group(device) as ranks:
        setup_logging(
            options.exp_dir / "log" / time.strftime("log-train-%Y-%m-%d-%H-%M-%S"),
            rank=ranks.rank,
            world_size=ranks.world_size,
            level=logging.INFO if ranks.is_main else logging.WARNING,
        )
        _logger.info("Training started")
        _logger.info("Device: %s", device)
        _logger.info("%s", json.dumps(to_dict(config), sort_keys=True))
        trainer = _Trainer(config, tokenizer, options, device, ranks)
        if ranks.is_main:
            # Not before: a checkpoint that does not fit must not cost the settings it belongs to.
            save_experiment(options.exp_dir, config, tokenizer)
            remove_leftovers(options.exp_dir, "*.pt")
        with stop_requests() as stop_requested:
            trainer.run(stop_requested)
        _logger.info("Done!")


class _Trainer:
    """One process of a run: state, data and loop."""

    def __init__(
        self,
        config: ExperimentConfig,
        tokenizer: Tokenizer,
        options: RunOptions,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self._config = config
        self._options = options
        self._device = device
        self._ranks = ranks
        # The first weights are the same on all ranks, before any batch is drawn.
        seed_batch(config.train.seed, 0, 0)
        self._corpus = TrainingCorpus(config, tokenizer, options.data_dir, ranks)
        _logger.info("About to create model")
        self._state = _new_state(config, tokenizer.vocab_size, device, ranks)
        model = self._state.objective.model
        _logger.info("Number of model parameters: %d", sum(p.numel() for p in model.parameters()))
        if config.train.normalise_features and options.resume_from is None:
            fold_feature_normalisation(model, *self._corpus.feature_statistics())
        self._objective: nn.Module = self._state.objective
        if ranks.world_size > 1:
            # A remark on the strides of axes of length 1, which mean nothing.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
            # Dropped layers have no gradient, hence the search for unused parameters.
            self._objective = DistributedDataParallel(
                self._state.objective,
                find_unused_parameters=True,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
            )
        if options.resume_from is not None:
            self._state.load(options.resume_from)
            _logger.info("Resuming from %s", options.resume_from)

    def run(self, stop_requested: threading.Event) -> None:
        """Train all epochs that are left, or until the event is set."""
        self._stop_requested = stop_requested
        progress = self._state.progress
        with (
            History(
                self._options.exp_dir,
                done=progress.batch_idx_train,
                epoch=progress.epoch,
                is_main=self._ranks.is_main,
                tensorboard=self._options.tensorboard,
            ) as history,
            reader_threads(self._config.data.num_workers) as readers,
        ):
            for epoch in range(progress.epoch, self._config.train.num_epochs + 1):
                self._train_epoch(epoch, readers, history)
                self._end_epoch(epoch, readers, history)

    def _train_epoch(self, epoch: int, readers: ThreadPoolExecutor, history: History) -> None:
        state, train = self._state, self._config.train
        state.progress.epoch = epoch
        state.scheduler.step_epoch(epoch - 1)
        dataset, batches = self._corpus.training_epoch(epoch)
        first = state.progress.batch
        started, audio_s = time.monotonic(), 0.0
        with ExitStack() as stack:
            bar = None
            if self._ranks.is_main:
                description = f"epoch {epoch}/{train.num_epochs}"
                bar = stack.enter_context(progress_bar(description, total=len(batches)))
                bar.advance(first)
            for batch in self._read(dataset, batches[first:], epoch, readers):
                current = self._train_batch(batch)
                self._report(epoch, len(batch.cut_ids), current, history)
                state.progress.batch += 1
                self._save_if_due(history)
                if bar is not None:
                    frames = float(batch.feature_lens.sum()) * self._ranks.world_size
                    audio_s += frames * FEATURE_FRAME_S
                    speed = audio_s / (time.monotonic() - started)
                    loss = state.totals.per_frame()["loss"]
                    bar.advance(1, note=f"loss {loss:.3f}  {speed:.0f} audio-s/s")

    def _read(
        self,
        dataset: AsrDataset,
        batches: list[list[int]],
        epoch: int,
        readers: ThreadPoolExecutor,
    ) -> Iterator[Batch]:
        # One more than there are threads: each finds its next task when it has done one.
        depth = self._config.data.num_workers + 1
        return prefetched(
            lambda indices: dataset.get(indices, epoch), batches, readers, depth=depth
        )

    def _train_batch(self, batch: Batch) -> LossTotals:
        """Learn from one batch; its losses."""
        state, train = self._state, self._config.train
        state.progress.batch_idx_train += 1
        batch_idx_train = state.progress.batch_idx_train
        seed_batch(train.seed, batch_idx_train, self._ranks.rank)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=train.use_bf16):
            losses: StepLosses = self._objective(*self._to_device(batch), batch_idx_train)
        losses.loss.backward()
        # The forward of batch b saw the schedules at b - 1, as in the original.
        state.set_batch_count()
        state.scheduler.step_batch(batch_idx_train)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.update_average()
        current = _batch_totals(losses, batch)
        state.totals = state.totals.decayed(train.reset_interval) + current
        return current

    def _report(self, epoch: int, batch_size: int, current: LossTotals, history: History) -> None:
        """Record the batch that was just learnt from; now and then a line in the log."""
        state = self._state
        batch_idx_train, batch_idx = state.progress.batch_idx_train, state.progress.batch
        lr = state.scheduler.get_lr()[0]
        history.batch(batch_idx_train, epoch, current, lr)
        if batch_idx % self._config.train.log_interval == 0:
            # Batches count from 0 within the epoch, as in the original.
            _logger.info(
                "Epoch %d, batch %d, loss[%s], tot_loss[%s], batch size: %d, lr: %.2e, ",
                epoch,
                batch_idx,
                format_totals(current),
                format_totals(state.totals),
                batch_size,
                lr,
            )
            history.point(batch_idx_train, epoch, current=current, totals=state.totals, lr=lr)

    def _save_if_due(self, history: History) -> None:
        """Save now and then, and when the run shall stop, which ends it.

        Raises:
            KeyboardInterrupt: one of the processes was asked to stop.
        """
        train, exp_dir = self._config.train, self._options.exp_dir
        done = self._state.progress.batch_idx_train
        is_stopping = any_rank(self._stop_requested.is_set(), self._ranks, self._device)
        if is_stopping or done % train.scaled_period(train.save_every_n) == 0:
            self._save(history, exp_dir / f"checkpoint-{done}.pt")
            if self._ranks.is_main:
                numbered = numbered_checkpoints(exp_dir, "checkpoint")
                for path in list(numbered.values())[: -train.keep_last_k]:
                    path.unlink()
        if is_stopping:
            _logger.info("Asked to stop: go on with --resume auto")
            raise KeyboardInterrupt

    def _end_epoch(self, epoch: int, readers: ThreadPoolExecutor, history: History) -> None:
        """Validate and save; the best epochs so far are saved under names of their own too."""
        state, progress, exp_dir = self._state, self._state.progress, self._options.exp_dir
        valid = self._validate(readers)
        history.validation(progress.batch_idx_train, epoch, valid)
        _logger.info("Epoch %d, validation: %s", epoch, format_totals(valid))
        if self._device.type == "cuda":
            megabytes = torch.cuda.max_memory_allocated() // 1_000_000
            _logger.info("Maximum memory allocated so far is %dMB", megabytes)
        names = []
        train_loss, valid_loss = state.totals.per_frame()["loss"], valid.per_frame()["loss"]
        if train_loss < progress.best_train_loss:
            progress.best_train_loss, progress.best_train_epoch = train_loss, epoch
            names.append("best-train-loss.pt")
        if valid_loss < progress.best_valid_loss:
            progress.best_valid_loss, progress.best_valid_epoch = valid_loss, epoch
            names.append("best-valid-loss.pt")
        # The file says where to go on: at the first batch of the next epoch.
        progress.epoch, progress.batch = epoch + 1, 0
        # The epoch's own name comes last: as long as it is missing, all of this is done again.
        self._save(history, *(exp_dir / name for name in (*names, f"epoch-{epoch}.pt")))

    def _validate(self, readers: ThreadPoolExecutor) -> LossTotals:
        """Losses on the dev set, each process its share, in evaluation mode."""
        _logger.info("Computing validation loss")
        # Not the data-parallel wrapper: processes may have different numbers of batches.
        objective = self._state.objective
        dataset, batches = self._corpus.dev()
        totals = LossTotals()
        objective.eval()
        with torch.inference_mode():
            for batch in self._read(dataset, batches, 0, readers):
                losses = objective(*self._to_device(batch), self._state.progress.batch_idx_train)
                totals = totals + _batch_totals(losses, batch)
        objective.train()
        return LossTotals(*sum_over_ranks(totals.values(), self._ranks, self._device))

    def _to_device(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        return tuple(
            t.to(self._device, non_blocking=True)
            for t in (
                batch.features,
                batch.feature_lens,
                batch.token_ids,
                batch.token_lens,
                batch.frame_tokens,
            )
        )

    def _save(self, history: History, *paths: Path) -> None:
        """Write one checkpoint under several names, in this order; all processes must call it."""
        mine = self._state.rank_state()
        rank_states: list[Any] = [mine]
        if self._ranks.world_size > 1:
            rank_states = [None] * self._ranks.world_size
            dist.all_gather_object(rank_states, mine)
        if not self._ranks.is_main:
            return
        history.sync()
        first, *copies = paths
        _logger.info("Saving checkpoint to %s", first)
        self._state.save(first, rank_states)
        for path in copies:
            _logger.info("Saving checkpoint to %s", path)
            with atomic_path(path) as temporary:
                shutil.copyfile(first, temporary)


def _new_state(
    config: ExperimentConfig, vocab_size: int, device: torch.device, ranks: Ranks
) -> TrainState:
    train = config.train
    model = build_transducer(config.model, vocab_size)
    set_schedule_scale(model, train.schedule_scale)
    objective = TransducerObjective(
        model, train, encoder_dim=config.model.encoder_dims[-1], vocab_size=vocab_size
    ).to(device)
    names, parameters = zip(*objective.named_parameters(), strict=True)
    optimizer = ScaledAdam(
        list(parameters),
        lr=train.base_lr,
        clipping_scale=train.clipping_scale,
        parameters_names=[list(names)],
    )
    scheduler = Eden(
        optimizer,
        lr_batches=train.scaled(train.lr_batches),
        lr_epochs=train.lr_epochs,
        warmup_batches=train.scaled(train.lr_warmup_batches),
    )
    return TrainState(objective, optimizer, scheduler, config, ranks)


def _batch_totals(losses: StepLosses, batch: Batch) -> LossTotals:
    is_finite = losses.is_finite.cpu()
    if not bool(is_finite.all()):
        bad = [c for c, ok in zip(batch.cut_ids, is_finite.tolist(), strict=True) if not ok]
        _logger.warning("The loss of %s is not finite: left out", ", ".join(bad))
    frames = (batch.feature_lens // SUBSAMPLING_FACTOR)[is_finite].sum()
    return LossTotals(
        loss=float(losses.loss.detach()),
        simple_loss=float(losses.simple_loss),
        pruned_loss=float(losses.pruned_loss),
        ctc_loss=float(losses.ctc_loss),
        frame_loss=float(losses.frame_loss),
        frames=float(frames),
        utterances=float(is_finite.sum()),
    )
