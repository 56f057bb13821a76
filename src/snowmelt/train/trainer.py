"""How does a model learn from a corpus? The training loop, one process of it.

    corpus -> cuts -> batches -> losses -> gradient -> step -> running mean -> checkpoint

Invariant: batch b of a run is the same whoever computes it and whatever was killed before it:
its cuts are a function of (seed, epoch), its random draws of (seed, b, rank).

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/train.py.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from snowmelt.checkpoint.experiment import ExperimentConfig, save_experiment
from snowmelt.core.files import atomic_path
from snowmelt.core.log import setup_logging
from snowmelt.core.progress import progress_bar
from snowmelt.data.batch import AsrDataset, Batch
from snowmelt.models.build import build_transducer, fold_feature_normalisation
from snowmelt.models.regularisers import set_schedule_scale
from snowmelt.optim.eden import Eden
from snowmelt.optim.scaled_adam import ScaledAdam
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.corpus import TrainingCorpus
from snowmelt.train.distributed import Ranks, process_group, sum_over_ranks
from snowmelt.train.history import History
from snowmelt.train.metrics import LossTotals, format_totals
from snowmelt.train.objective import StepLosses, TransducerObjective
from snowmelt.train.resume import TrainState, seed_batch

__all__ = ["RunOptions", "train"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is computed; nothing here changes what is learnt.

    `resume_from` is a checkpoint of the same run, or None to start anew.
    """

    exp_dir: Path
    data_dir: Path
    device: str = "cpu"
    num_threads: int = 1
    tensorboard: bool = True
    resume_from: Path | None = None


def train(config: ExperimentConfig, tokenizer: Tokenizer, options: RunOptions) -> None:
    """Train until the last epoch; this process's part where several share the work.

    Raises:
        UserError: data or checkpoint cannot be used.
    """
    device = torch.device(options.device)
    torch.set_num_threads(options.num_threads)
    with process_group(device) as ranks:
        log_name = time.strftime("log-train-%Y-%m-%d-%H-%M-%S")
        setup_logging(
            options.exp_dir / "log" / log_name,
            rank=ranks.rank,
            world_size=ranks.world_size,
            level=logging.INFO if ranks.is_main else logging.WARNING,
        )
        if ranks.is_main:
            save_experiment(options.exp_dir, config, tokenizer)
        Trainer(config, tokenizer, options, device, ranks).run()


class Trainer:
    """One process of a run: state, data and loop."""

    def __init__(
        self,
        config: ExperimentConfig,
        tokenizer: Tokenizer,
        options: RunOptions,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.config = config
        self.options = options
        self.device = device
        self.ranks = ranks
        # The first weights are the same on all ranks, before any batch is drawn.
        seed_batch(config.train.seed, 0, 0)
        self.corpus = TrainingCorpus(config, tokenizer, options.data_dir, ranks)
        self.state = _new_state(config, tokenizer.vocab_size, device, ranks)
        if config.train.normalise_features and options.resume_from is None:
            mean, std = self.corpus.feature_statistics()
            fold_feature_normalisation(self.state.objective.model, mean, std)
        self.objective: nn.Module = self.state.objective
        if ranks.world_size > 1:
            # Dropped layers have no gradient, hence the search for unused parameters.
            self.objective = DistributedDataParallel(
                self.state.objective,
                find_unused_parameters=True,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
            )
        if options.resume_from is not None:
            self.state.load(options.resume_from, ranks.rank)
            _logger.info("Resuming from %s", options.resume_from)

    def run(self) -> None:
        """All epochs that are left."""
        progress = self.state.progress
        num_parameters = sum(p.numel() for p in self.state.objective.model.parameters())
        _logger.info("Training started")
        _logger.info("Device: %s", self.device)
        _logger.info("Number of model parameters: %d", num_parameters)
        with ExitStack() as stack:
            history = stack.enter_context(
                History(
                    self.options.exp_dir,
                    done=progress.batch_idx_train,
                    is_main=self.ranks.is_main,
                    tensorboard=self.options.tensorboard,
                )
            )
            loader = stack.enter_context(ThreadPoolExecutor(self.config.data.num_workers))
            for epoch in range(progress.epoch, self.config.train.num_epochs + 1):
                self._train_epoch(epoch, loader, history)
        _logger.info("Done!")

    def _train_epoch(self, epoch: int, loader: ThreadPoolExecutor, history: History) -> None:
        state, train = self.state, self.config.train
        state.progress.epoch = epoch
        state.scheduler.step_epoch(epoch - 1)
        dataset, batches = self.corpus.training_epoch(epoch)
        first = state.progress.batch
        started, audio_s = time.monotonic(), 0.0
        description = f"epoch {epoch}/{train.num_epochs}"
        with ExitStack() as stack:
            bar = None
            if self.ranks.is_main:
                bar = stack.enter_context(progress_bar(description, total=len(batches)))
                bar.advance(first)
            for batch in _prefetch(dataset, batches[first:], epoch, loader):
                losses = self._train_batch(batch)
                totals = self._batch_totals(losses, batch)
                state.totals = state.totals.decayed(train.reset_interval) + totals
                self._after_batch(epoch, batch, totals, history)
                audio_s += float(batch.feature_lens.sum()) * 0.01 * self.ranks.world_size
                if bar is not None:
                    speed = audio_s / (time.monotonic() - started)
                    loss = state.totals.per_frame()["loss"]
                    bar.advance(1, note=f"loss {loss:.3f}  {speed:.0f} audio-s/s")
        self._end_epoch(epoch, history)

    def _train_batch(self, batch: Batch) -> StepLosses:
        state = self.state
        state.progress.batch_idx_train += 1
        batch_idx_train = state.progress.batch_idx_train
        seed_batch(self.config.train.seed, batch_idx_train, self.ranks.rank)
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.config.train.use_bf16
        ):
            losses: StepLosses = self.objective(*self._to_device(batch), batch_idx_train)
        losses.loss.backward()
        # The forward of batch b saw the schedules at b - 1, as in the original.
        state.set_batch_count()
        state.scheduler.step_batch(batch_idx_train)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.update_average()
        return losses

    def _after_batch(self, epoch: int, batch: Batch, totals: LossTotals, history: History) -> None:
        state, train = self.state, self.config.train
        state.progress.batch += 1
        done = state.progress.batch_idx_train
        lr = state.scheduler.get_lr()[0]
        if self.ranks.is_main:
            history.batch(done, epoch, totals, lr)
        # From 0 within the epoch, as the original counts.
        batch_idx = state.progress.batch - 1
        if batch_idx % train.log_interval == 0:
            _logger.info(
                "Epoch %d, batch %d, loss[%s], tot_loss[%s], batch size: %d, lr: %.2e, ",
                epoch,
                batch_idx,
                format_totals(totals),
                format_totals(state.totals),
                len(batch.cut_ids),
                lr,
            )
            if self.ranks.is_main:
                history.scalars("train/current_", totals.per_frame(), done)
                history.scalars("train/tot_", state.totals.per_frame(), done)
                history.scalars("train/", {"learning_rate": lr, "epoch": epoch}, done)
        if done % train.scaled_period(train.save_every_n) == 0:
            history.flush()
            path = self.options.exp_dir / f"checkpoint-{done}.pt"
            self._save(path)
            if self.ranks.is_main:
                _remove_old_checkpoints(self.options.exp_dir, train.keep_last_k)

    def _end_epoch(self, epoch: int, history: History) -> None:
        state = self.state
        valid = self._validate()
        if self.ranks.is_main:
            history.validation(state.progress.batch_idx_train, epoch, valid)
        _logger.info("Epoch %d, validation: %s", epoch, format_totals(valid))
        train_loss = state.totals.per_frame()["loss"]
        valid_loss = valid.per_frame()["loss"]
        progress = state.progress
        is_best_train = train_loss < progress.best_train_loss
        is_best_valid = valid_loss < progress.best_valid_loss
        if is_best_train:
            progress.best_train_loss, progress.best_train_epoch = train_loss, epoch
        if is_best_valid:
            progress.best_valid_loss, progress.best_valid_epoch = valid_loss, epoch
        # The file says where to go on: at the first batch of the next epoch.
        progress.epoch, progress.batch = epoch + 1, 0
        exp_dir = self.options.exp_dir
        path = exp_dir / f"epoch-{epoch}.pt"
        history.flush()
        self._save(path)
        if self.ranks.is_main:
            if is_best_train:
                _copy(path, exp_dir / "best-train-loss.pt")
            if is_best_valid:
                _copy(path, exp_dir / "best-valid-loss.pt")

    def _validate(self) -> LossTotals:
        """Losses on the dev set, each process its share, in evaluation mode."""
        objective = self.state.objective
        dataset, batches = self.corpus.dev()
        totals = LossTotals()
        objective.eval()
        with torch.inference_mode():
            for indices in batches:
                batch = dataset.get(indices, epoch=0)
                losses = objective(*self._to_device(batch), self.state.progress.batch_idx_train)
                totals = totals + self._batch_totals(losses, batch)
        objective.train()
        return LossTotals(*sum_over_ranks(totals.values(), self.ranks, self.device))

    def _batch_totals(self, losses: StepLosses, batch: Batch) -> LossTotals:
        is_finite = losses.is_finite.cpu()
        if not bool(is_finite.all()):
            bad = [c for c, ok in zip(batch.cut_ids, is_finite.tolist(), strict=True) if not ok]
            _logger.warning("The loss of %s is not finite: left out", ", ".join(bad))
        frames = (batch.feature_lens // 4)[is_finite].sum()
        return LossTotals(
            loss=float(losses.loss.detach()),
            simple_loss=float(losses.simple_loss),
            pruned_loss=float(losses.pruned_loss),
            ctc_loss=float(losses.ctc_loss),
            frame_loss=float(losses.frame_loss),
            frames=float(frames),
            utterances=float(is_finite.sum()),
        )

    def _to_device(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        return tuple(
            t.to(self.device, non_blocking=True)
            for t in (
                batch.features,
                batch.feature_lens,
                batch.token_ids,
                batch.token_lens,
                batch.frame_tokens,
            )
        )

    def _save(self, path: Path) -> None:
        mine = self.state.regulariser_state()
        rank_states: list[Any] = [mine]
        if self.ranks.world_size > 1:
            rank_states = [None] * self.ranks.world_size
            dist.all_gather_object(rank_states, mine)
        if self.ranks.is_main:
            _logger.info("Saving checkpoint to %s", path)
            self.state.save(path, rank_states)


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
    return TrainState(objective, optimizer, scheduler, config, keeps_average=ranks.is_main)


def _prefetch(
    dataset: AsrDataset, batches: list[list[int]], epoch: int, loader: ThreadPoolExecutor
) -> Iterator[Batch]:
    """Batches in order, the next ones being read while one is used."""
    waiting: list[Future[Batch]] = []
    for indices in batches:
        waiting.append(loader.submit(dataset.get, indices, epoch))
        if len(waiting) > 2:
            yield waiting.pop(0).result()
    while waiting:
        yield waiting.pop(0).result()


def _remove_old_checkpoints(exp_dir: Path, keep_last_k: int) -> None:
    numbered = sorted(
        exp_dir.glob("checkpoint-*.pt"), key=lambda p: int(p.stem.removeprefix("checkpoint-"))
    )
    for path in numbered[:-keep_last_k]:
        path.unlink()


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
