"""How does a model learn from a corpus? The training loop, one process of it.

    corpus -> cuts -> batches -> losses -> gradient -> step -> running mean -> checkpoint

Invariant: batch b of a run is the same whoever computes it and whatever was killed before it:
its cuts are a function of (seed, epoch), its random draws of (seed, b, rank).

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/train.py.
"""

import json
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from snowmelt.checkpoint.experiment import ExperimentConfig, save_experiment
from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.core.config import to_dict
from snowmelt.core.files import held_folder, remove_leftovers
from snowmelt.core.interrupt import stop_requests
from snowmelt.core.log import setup_logging
from snowmelt.core.progress import progress_bar
from snowmelt.data.batch import Batch
from snowmelt.data.mix import MixItem, MixPlan
from snowmelt.models.build import fold_feature_normalisation
from snowmelt.presets.frames import FEATURE_FRAME_S
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.build import new_state
from snowmelt.train.checkpoints import (
    keep_newest,
    newest_checkpoint,
    save_copies,
    set_aside_later,
)
from snowmelt.train.corpus import TrainingCorpora
from snowmelt.train.diagnostics import Diagnostics
from snowmelt.train.distributed import (
    Ranks,
    broadcast_from_main,
    file_from_main,
    process_group,
)
from snowmelt.train.elastic import restart_count
from snowmelt.train.environment import env_info
from snowmelt.train.fit import check_memory
from snowmelt.train.guard import BadUtterances
from snowmelt.train.history import History
from snowmelt.train.inf_check import InfCheck
from snowmelt.train.metrics import LossTotals, format_totals
from snowmelt.train.objective import TransducerObjective
from snowmelt.train.prefetch import prefetched, reader_threads
from snowmelt.train.resume import seed_batch
from snowmelt.train.step import Learner
from snowmelt.train.validation import dev_losses

__all__ = ["RunOptions", "train"]

_logger = logging.getLogger(__name__)

# The processes of a run that was killed may still be saving.
_PATIENCE_S: Final = 30.0

# Batches whose statistics --print-diagnostics shows.
_NUM_DIAGNOSTIC_STEPS: Final = 6


@dataclass(frozen=True)
class RunOptions:
    """Where a run finds its data, where it leaves its files, and how it is computed.

    Attributes:
        exp_dir: output folder.
        data_dir: prepared corpora.
        manifest_dir: manifests of corpora that are no archives.
        musan_dir: noise to mix in.
        device: cpu, cuda or mps.
        tensorboard: whether TensorBoard events are written.
        resume_from: a checkpoint of the same run, or None to start anew; the main process's
            counts. Processes that were started again take the newest one.
        inf_check: warn of the first module whose output or gradient is not finite.
        print_diagnostics: print statistics of a few batches' tensors instead of training.
    """

    exp_dir: Path
    data_dir: Path
    manifest_dir: Path = Path("data/fbank")
    musan_dir: Path = Path("data/fbank")
    device: str = "cpu"
    tensorboard: bool = True
    resume_from: Path | None = None
    inf_check: bool = False
    print_diagnostics: bool = False


def train(config: ExperimentConfig, tokenizer: Tokenizer, options: RunOptions) -> None:
    """Train until the last epoch; this process's part where several share the work.

    Raises:
        UserError: data or checkpoint cannot be used.
        KeyboardInterrupt: SIGINT or SIGTERM came; the batch was finished and its state saved.
    """
    device = torch.device(options.device)
    with process_group(device) as ranks, ExitStack() as stack:
        options = replace(
            options, resume_from=broadcast_from_main(lambda: _start(options, stack), ranks)
        )
        setup_logging(
            options.exp_dir / "log" / time.strftime("log-train-%Y-%m-%d-%H-%M-%S"),
            rank=ranks.rank,
            world_size=ranks.world_size,
            level=logging.INFO if ranks.is_main else logging.WARNING,
        )
        _logger.info("Training started")
        _logger.info("Device: %s", device)
        if ranks.is_main:
            _logger.info("Environment: %s", json.dumps(env_info(), sort_keys=True))
        _logger.info("%s", json.dumps(to_dict(config), sort_keys=True))
        trainer = _Trainer(config, tokenizer, options, device, ranks)
        if options.print_diagnostics:
            trainer.diagnose()
            return
        if ranks.is_main:
            # Not before: a checkpoint that does not fit must not cost the settings it belongs to.
            save_experiment(options.exp_dir, config, tokenizer)
            if options.resume_from is not None:
                set_aside_later(options.exp_dir, options.resume_from)
            for folder in ("", "lang", "tensorboard"):
                remove_leftovers(options.exp_dir / folder, "*")
        with stop_requests() as stop_requested:
            trainer.run(stop_requested)
        _logger.info("Done!")


def _start(options: RunOptions, stack: ExitStack) -> Path | None:
    """The checkpoint to go on from, if any; the folder is this run's alone from here on."""
    if not options.print_diagnostics:
        stack.enter_context(held_folder(options.exp_dir, patience_s=_PATIENCE_S))
    return newest_checkpoint(options.exp_dir) if restart_count() else options.resume_from


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
        self._data = TrainingCorpora(
            config,
            tokenizer,
            ranks,
            data_dir=options.data_dir,
            manifest_dir=options.manifest_dir,
            musan_dir=options.musan_dir,
        )
        _logger.info("About to create model")
        self._state = new_state(config, tokenizer.vocab_size, device, ranks)
        model = self._state.objective.model
        _logger.info("Number of model parameters: %d", sum(p.numel() for p in model.parameters()))
        if config.train.normalise_features and options.resume_from is None:
            fold_feature_normalisation(model, *self._data.feature_statistics())
        objective: TransducerObjective | DistributedDataParallel = self._state.objective
        if ranks.world_size > 1:
            # A remark on the strides of axes of length 1, which mean nothing.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
            # Dropped layers and other corpora's heads have no gradient, hence the search for
            # unused parameters.
            objective = DistributedDataParallel(
                self._state.objective,
                find_unused_parameters=True,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
            )
        bad_utterances = BadUtterances(options.exp_dir)
        if options.resume_from is not None:
            path = options.resume_from
            # The file has to be on the main process's machine only.
            with file_from_main(path, ranks, device) as readable:
                self._state.load(load_checkpoint(readable), path)
            bad_utterances.load(self._state.bad_utterances)
            _logger.info("Resuming from %s", options.resume_from)
        self._learner = Learner(self._state, objective, device, bad_utterances)
        self._waited_s = 0.0  # for data, in the present epoch

    def run(self, stop_requested: threading.Event) -> None:
        """Train all epochs that are left, or until the event is set."""
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
            ExitStack() as stack,
        ):
            if progress.batch == 0 and progress.epoch <= self._config.train.num_epochs:
                check_memory(self._state, self._data, self._plan(), self._config, self._device)
            if self._options.inf_check:
                stack.enter_context(InfCheck(self._state.objective))
            if progress.epoch > self._config.train.num_epochs:
                _logger.info(
                    "All %d epochs are done: raise --num-epochs to go on", progress.epoch - 1
                )
            for epoch in range(progress.epoch, self._config.train.num_epochs + 1):
                positions = self._train_epoch(epoch, readers, history, stop_requested)
                self._end_epoch(epoch, readers, history, positions)

    def diagnose(self) -> None:
        """Print statistics of a few batches' activations and gradients; nothing is saved."""
        progress = self._state.progress
        plan = self._plan()
        with Diagnostics(self._state.objective) as diagnostics:
            for step in plan.steps[progress.batch :][:_NUM_DIAGNOSTIC_STEPS]:
                self._learner.step(self._data.read(step), head=self._data.head(step[0].stream))
        if self._ranks.is_main:
            print(diagnostics.report())

    def _train_epoch(
        self,
        epoch: int,
        readers: ThreadPoolExecutor,
        history: History,
        stop_requested: threading.Event,
    ) -> dict[str, tuple[int, int]]:
        """Take the steps that are left; where the other corpora stand afterwards."""
        state, progress = self._state, self._state.progress
        progress.epoch = epoch
        state.scheduler.step_epoch(epoch - 1)
        plan = self._plan()
        first = progress.batch
        started, audio_s = time.monotonic(), 0.0
        self._waited_s = 0.0
        with ExitStack() as stack:
            bar = None
            if self._ranks.is_main:
                description = f"epoch {epoch}/{self._config.train.num_epochs}"
                bar = stack.enter_context(progress_bar(description, total=len(plan.steps)))
                bar.advance(first)
            for step, batches in self._read(plan.steps[first:], readers):
                stream = step[0].stream
                label = self._data.label(stream)
                current, is_stopping = self._learner.step(
                    batches, head=self._data.head(stream), stop_requested=stop_requested
                )
                self._add_to_totals(label, current)
                self._report(epoch, sum(len(b.cut_ids) for b in batches), current, label, history)
                progress.batch += 1
                self._validate_if_due(epoch, len(plan.steps), readers, history)
                self._save_if_due(history, is_stopping=is_stopping)
                if bar is not None:
                    frames = sum(float(b.feature_lens.sum()) for b in batches)
                    audio_s += frames * self._ranks.world_size * FEATURE_FRAME_S
                    speed = audio_s / (time.monotonic() - started)
                    loss = state.totals[""].rates()["loss"]
                    bar.advance(1, note=f"loss {loss:.3f}  {speed:.0f} audio-s/s")
        share = self._waited_s / max(time.monotonic() - started, 1e-9)
        _logger.info("Epoch %d, %.1f%% of the time was spent waiting for data", epoch, 100 * share)
        return plan.positions

    def _plan(self) -> MixPlan:
        """All steps of the present epoch."""
        progress = self._state.progress
        return self._data.plan(
            progress.epoch, first_step=progress.first_step, positions=progress.positions
        )

    def _read(
        self, steps: list[tuple[MixItem, ...]], readers: ThreadPoolExecutor
    ) -> Iterator[tuple[tuple[MixItem, ...], list[Batch]]]:
        # One more than there are threads: each finds its next task when it has done one.
        depth = self._config.data.num_workers + 1
        read = prefetched(self._data.read, steps, readers, depth=depth)
        for step in steps:
            begun = time.monotonic()
            batches = next(read)
            self._waited_s += time.monotonic() - begun
            yield step, batches

    def _add_to_totals(self, label: str, current: LossTotals) -> None:
        totals, interval = self._state.totals, self._config.train.reset_interval
        for name in {"", label}:
            totals[name] = totals.get(name, LossTotals()).decayed(interval) + current

    def _report(
        self, epoch: int, batch_size: int, current: LossTotals, label: str, history: History
    ) -> None:
        """Record the step that was just taken; now and then a line in the log."""
        state = self._state
        batch_idx_train, batch_idx = state.progress.batch_idx_train, state.progress.batch
        lr, grad_scale = state.scheduler.get_lr()[0], state.precision.scale
        history.batch(batch_idx_train, epoch, current, lr, label=label)
        if batch_idx % self._config.train.log_interval == 0:
            corpora = "".join(
                f"{name}_tot_loss[{format_totals(totals)}], "
                for name, totals in sorted(state.totals.items())
                if name
            )
            # Batches count from 0 within the epoch, as in the original.
            _logger.info(
                "Epoch %d, batch %d, %sloss[%s], tot_loss[%s], %sbatch size: %d, lr: %.2e, %s",
                epoch,
                batch_idx,
                f"{label}_" if label else "",
                format_totals(current),
                format_totals(state.totals[""]),
                corpora,
                batch_size,
                lr,
                "" if grad_scale is None else f"grad_scale: {grad_scale}",
            )
            history.point(
                batch_idx_train,
                epoch,
                current=current,
                totals=state.totals,
                lr=lr,
                label=label,
                grad_scale=grad_scale,
            )

    def _validate_if_due(
        self, epoch: int, num_steps: int, readers: ThreadPoolExecutor, history: History
    ) -> None:
        """Validate now and then inside a long epoch; its end is validated anyway."""
        train, progress = self._config.train, self._state.progress
        is_due = progress.batch_idx_train % train.scaled_period(train.valid_interval) == 0
        if is_due and progress.batch < num_steps:
            self._validate(epoch, readers, history, mid_epoch=True)

    def _save_if_due(self, history: History, *, is_stopping: bool) -> None:
        """Save now and then, and when the run shall stop, which ends it.

        Raises:
            KeyboardInterrupt: one of the processes was asked to stop.
        """
        train, exp_dir = self._config.train, self._options.exp_dir
        done = self._state.progress.batch_idx_train
        if is_stopping or done % train.scaled_period(train.save_every_n) == 0:
            self._save(history, exp_dir / f"checkpoint-{done}.pt")
            if self._ranks.is_main:
                keep_newest(exp_dir, train.keep_last_k)
        if is_stopping:
            _logger.info("Asked to stop: go on with --resume auto")
            raise KeyboardInterrupt

    def _end_epoch(
        self,
        epoch: int,
        readers: ThreadPoolExecutor,
        history: History,
        positions: dict[str, tuple[int, int]],
    ) -> None:
        """Validate and save; the best epochs so far are saved under names of their own too."""
        state, progress, exp_dir = self._state, self._state.progress, self._options.exp_dir
        valid = self._validate(epoch, readers, history)
        if self._device.type == "cuda":
            megabytes = torch.cuda.max_memory_allocated() // 1_000_000
            _logger.info("Maximum memory allocated so far is %dMB", megabytes)
        names = []
        train_loss, valid_loss = state.totals[""].rates()["loss"], valid.rates()["loss"]
        if train_loss < progress.best_train_loss:
            progress.best_train_loss, progress.best_train_epoch = train_loss, epoch
            names.append("best-train-loss.pt")
        if valid_loss < progress.best_valid_loss:
            progress.best_valid_loss, progress.best_valid_epoch = valid_loss, epoch
            names.append("best-valid-loss.pt")
        # The file says where to go on: at the first batch of the next epoch.
        progress.epoch, progress.batch = epoch + 1, 0
        progress.positions = positions
        # The epoch's own name comes last: as long as it is missing, all of this is done again.
        self._save(history, *(exp_dir / name for name in (*names, f"epoch-{epoch}.pt")))

    def _validate(
        self,
        epoch: int,
        readers: ThreadPoolExecutor,
        history: History,
        *,
        mid_epoch: bool = False,
    ) -> LossTotals:
        """Losses on the dev sets of all corpora together; those of each are logged too."""
        _logger.info("Computing validation loss")
        number = self._state.progress.batch_idx_train
        losses = dev_losses(self._state, self._data, readers, self._device)
        for label, totals in losses.items():
            history.validation(number, epoch, totals, label=label, mid_epoch=mid_epoch)
            whose = f" of {label}" if label else ""
            _logger.info("Epoch %d, validation%s: %s", epoch, whose, format_totals(totals))
        return losses[""]

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
        save_copies(first, copies)
