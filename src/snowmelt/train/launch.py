"""How does a run start? Settings, tokenizer, checkpoint and processes are settled here, once.

Invariant: what is wrong with settings, corpus or device is found before a process starts.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.config import from_dict, override, to_dict
from snowmelt.core.errors import CheckpointError, ConfigError, DataError
from snowmelt.core.files import make_folder, require_file
from snowmelt.data.audit import AuditLimits, MapTasks
from snowmelt.data.audit.start import audit_at_start, memory_path
from snowmelt.data.corpora import Corpus, open_corpus, selection_of
from snowmelt.data.cuts import cut_text
from snowmelt.data.noise import load_noise
from snowmelt.models.device import pick_device
from snowmelt.presets.data import DataConfig
from snowmelt.presets.recipes import mix_of, recipe
from snowmelt.text.tokenizer import (
    Tokenizer,
    build_chars,
    build_words,
    load_tokenizer,
    prepared_vocabulary,
    train_bpe,
    vocabulary_hash,
)
from snowmelt.train.checkpoints import newest_checkpoint
from snowmelt.train.corpus import takes_stored_features
from snowmelt.train.elastic import launch, num_cores, restart_count
from snowmelt.train.trainer import RunOptions, train

__all__ = [
    "RunPlan",
    "checkpoint_to_resume",
    "default_exp_dir",
    "prepare_run",
    "run_settings",
    "start_run",
]

_logger = logging.getLogger(__name__)

# The environment variable with the number of processes, where they have been started already.
_STARTED_BY_TORCHRUN: Final = "WORLD_SIZE"

# More only wait for one another: a mistyped number shall not bring the machine down.
_MAX_PROCESSES_A_CORE: Final = 8


@dataclass(frozen=True)
class RunPlan:
    """A run ready to start: settings, tokenizer, places and number of processes."""

    config: ExperimentConfig
    tokenizer: Tokenizer
    options: RunOptions
    world_size: int


def run_settings(
    *,
    preset: str,
    corpus: str | None,
    mix: Mapping[str, float] | None,
    overrides: Mapping[str, Mapping[str, Any]],
    assignments: list[str],
) -> ExperimentConfig:
    """The settings of a run; no data is looked at.

    Args:
        preset: name of a corpus preset or of a model preset.
        corpus: what to learn from instead of the preset's corpus, or None.
        mix: corpora to learn from at once -> probability of a batch, the main one first; or None.
        overrides: group -> field -> value; None keeps the recipe's value.
        assignments: `group.key=value` texts, applied last.

    Raises:
        ConfigError: unknown names, or settings that contradict each other.
    """
    # What is asked for holds for every corpus of a mix.
    asked = {
        name: value
        for name in ("speed_perturb", "enable_spec_aug")
        if (value := overrides.get("data", {}).get(name)) is not None
    }
    parts = tuple(replace(part, **asked) for part in mix_of(mix or {}))
    base = recipe(preset, corpus=parts[0].corpus if parts and corpus is None else corpus)
    config = ExperimentConfig(
        model=base.model, train=base.train, data=replace(base.data, mix=parts)
    )
    merged = to_dict(config)
    for group, values in overrides.items():
        chosen = {k: v for k, v in values.items() if v is not None}
        foreign = sorted(chosen.keys() - merged[group].keys())
        if foreign:
            raise ConfigError(
                f"--{foreign[0].replace('_', '-')} is no setting of {base.model.encoder} models",
                hint="choose another --preset, or leave it out",
            )
        merged[group].update(chosen)
    config = override(from_dict(ExperimentConfig, merged), assignments)
    # Right each for itself and wrong together.
    warps_time = any(part.enable_spec_aug for part in config.data.parts) and (
        config.data.spec_aug_time_warp_factor >= 1
    )
    if config.train.frame_loss_scale > 0.0 and warps_time:
        raise ConfigError(
            "frame_loss_scale needs word times, which spec_aug_time_warp_factor would move",
            hint="add --spec-aug-time-warp-factor 0 or --frame-loss-scale 0",
        )
    return config


def default_exp_dir(preset: str, config: ExperimentConfig) -> Path:
    """Where a run leaves its files when nothing else is said."""
    corpora = "+".join(part.label for part in config.data.parts)
    plain = recipe(preset).data.corpus == config.data.corpus and not config.data.mix
    return Path("runs") / (preset if plain else f"{corpora}-{preset}")


def prepare_run(
    config: ExperimentConfig,
    *,
    exp_dir: Path,
    data_dir: Path,
    manifest_dir: Path,
    musan_dir: Path | None,
    bpe_model: Path | None,
    device: str,
    world_size: str,
    tensorboard: bool,
    inf_check: bool,
    print_diagnostics: bool,
    resume: str,
    start_epoch: int,
    start_batch: int,
    takes_prepared_vocabulary: bool = False,
    listen: MapTasks | None = None,
) -> RunPlan:
    """Settle everything about a run.

    Args:
        config: its settings.
        exp_dir: output folder.
        data_dir: folder of prepared corpora.
        manifest_dir: folder of the manifests of corpora that are no archives.
        musan_dir: where noise is found; None: in manifest_dir.
        bpe_model: vocabulary to use; None: made from the training transcripts.
        takes_prepared_vocabulary: rather than making one, take that which was prepared with the
            main corpus, if there is one.
        device: auto, cpu, cuda or mps.
        world_size: number of processes, or auto; the processes that auto chooses on a CPU share
            the batch, so that a step learns from as much as with one.
        tensorboard: whether TensorBoard events are written.
        inf_check, print_diagnostics: see `RunOptions`.
        resume: auto or no.
        start_epoch: above 1: go on from epoch-(start_epoch - 1).pt.
        start_batch: above 0: go on from checkpoint-start_batch.pt.
        listen: audit the corpora first, and listen with this (see `audit_at_start`); None: do not.

    Raises:
        UserError: data or checkpoints do not fit, or the audit says that training must not start.
    """
    resume_from = None
    # The checkpoints need not be on the machines of the others; and processes that were started
    # again go on from the newest one, whatever was asked for: see `train`.
    is_first = os.environ.get("RANK", "0") == "0" and restart_count() == 0
    if is_first:
        resume_from = checkpoint_to_resume(exp_dir, resume, start_epoch, start_batch)
    device = str(pick_device(device))
    num_processes = _choose_world_size(world_size, device)
    if world_size == "auto" and device == "cpu" and _STARTED_BY_TORCHRUN not in os.environ:
        config = _with_shared_batch(config, num_processes)
    musan_dir = musan_dir or manifest_dir
    if config.data.enable_musan:
        load_noise(musan_dir)
    corpora = [
        open_corpus(
            part.corpus,
            data_dir,
            manifest_dir,
            seed=config.train.seed,
            selection=selection_of(config.data, part.corpus),
        )
        for part in config.data.parts
    ]
    for corpus in corpora:
        # Validation needs it, and shall not find it missing after hours.
        corpus.cuts("train")
        corpus.cuts("dev")
    if bpe_model is None and takes_prepared_vocabulary:
        bpe_model = _prepared_vocabulary(data_dir, config.data.corpus)
    if bpe_model is None:
        texts = [cut_text(cut) for corpus in corpora for cut in corpus.cuts("train")]
        tokenizer = _tokenizer(config.data, texts)
    else:
        tokenizer = load_tokenizer(bpe_model)
    if listen is not None and is_first:
        _audit(corpora, config, tokenizer, data_dir, listen)
    return RunPlan(
        config=replace(
            config,
            data=replace(config.data, tokenizer=cast(Any, tokenizer.kind)),
            vocabulary_hash=vocabulary_hash(tokenizer),
        ),
        tokenizer=tokenizer,
        options=RunOptions(
            exp_dir=exp_dir,
            data_dir=data_dir,
            manifest_dir=manifest_dir,
            musan_dir=musan_dir,
            device=device,
            tensorboard=tensorboard,
            resume_from=resume_from,
            inf_check=inf_check,
            print_diagnostics=print_diagnostics,
        ),
        world_size=num_processes,
    )


def start_run(plan: RunPlan, *, max_restarts: int = 0, master_port: int = 0) -> None:
    """Train as planned, in this process or in several of this machine.

    Args:
        plan: what `prepare_run` settled.
        max_restarts: times that all processes are started again when one has died.
        master_port: port on which they meet; 0: a free one.
    """
    make_folder(plan.options.exp_dir)
    if _STARTED_BY_TORCHRUN in os.environ:  # this process is one of many already
        if max_restarts or master_port:
            raise ConfigError(
                f"{'--max-restarts' if max_restarts else '--master-port'} has no meaning here: "
                "torchrun has started the processes",
                hint="torchrun has options of these names: write them before the program",
            )
        train(plan.config, plan.tokenizer, plan.options)
    else:
        launch(
            plan.world_size,
            train,
            plan.config,
            plan.tokenizer,
            plan.options,
            max_restarts=max_restarts,
            master_port=master_port,
            advice=lambda: _how_to_go_on(plan.options.exp_dir),
        )


def _how_to_go_on(exp_dir: Path) -> str:
    """The next step after a process was lost."""
    newest = newest_checkpoint(exp_dir)
    if newest is None:
        return "there is no checkpoint yet: start again"
    return f"go on from {newest.name} with --resume auto"


def checkpoint_to_resume(
    exp_dir: Path, resume: str, start_epoch: int, start_batch: int
) -> Path | None:
    """The checkpoint that a run goes on from; None: it starts anew.

    Args:
        exp_dir: the run's folder.
        resume: auto or no.
        start_epoch, start_batch: see `prepare_run`.

    Raises:
        UserError: there is no such checkpoint, or there are some of which nothing was said.
    """
    if start_epoch < 1 or start_batch < 0:
        raise ConfigError(
            f"--start-epoch {start_epoch} --start-batch {start_batch}: both count what is done",
            hint="epochs count from 1, --start-batch 0 starts anew",
        )
    if start_batch > 0:
        return require_file(exp_dir / f"checkpoint-{start_batch}.pt", "the checkpoint to resume")
    if start_epoch > 1:
        return require_file(exp_dir / f"epoch-{start_epoch - 1}.pt", "the checkpoint to resume")
    newest = newest_checkpoint(exp_dir)
    if resume == "no" and newest is not None:
        raise CheckpointError(
            f"{exp_dir} holds checkpoints of an earlier run ({newest.name})",
            hint="go on with --resume auto, or choose another --exp-dir",
        )
    return newest


def _choose_world_size(world_size: str, device: str) -> int:
    if _STARTED_BY_TORCHRUN in os.environ:
        started = os.environ[_STARTED_BY_TORCHRUN]
        if started != "1" and not (started.isdecimal() and "RANK" in os.environ):
            raise ConfigError(
                f"the environment says WORLD_SIZE={started}, but not which RANK this is",
                hint="unset WORLD_SIZE, or start the processes with torchrun",
            )
        if world_size not in ("auto", started):
            raise ConfigError(
                f"--world-size {world_size}, but torchrun has started {started} processes",
                hint="leave --world-size out: torchrun has options of its own",
            )
        return int(started)
    if device == "mps" and world_size not in ("auto", "1"):
        raise ConfigError(
            f"--world-size {world_size}: one process computes on mps",
            hint="leave --world-size out, or add --device cpu",
        )
    if world_size == "auto":
        return {"cuda": torch.cuda.device_count(), "cpu": num_cores()}.get(device, 1)
    if not world_size.isdecimal() or int(world_size) < 1:
        raise ConfigError(
            f"--world-size {world_size} is no number of processes", hint="write 1 or more, or auto"
        )
    if device == "cuda" and int(world_size) > torch.cuda.device_count():
        raise ConfigError(
            f"--world-size {world_size}: this machine has {torch.cuda.device_count()} GPUs",
            hint="use --world-size auto",
        )
    if int(world_size) > _MAX_PROCESSES_A_CORE * num_cores():
        raise ConfigError(
            f"--world-size {world_size}: this machine has {num_cores()} cores",
            hint="use --world-size auto",
        )
    return int(world_size)


def _with_shared_batch(config: ExperimentConfig, num_processes: int) -> ExperimentConfig:
    """A step of the whole machine learns from `max_duration`, however many cores it has."""
    share = config.data.max_duration / num_processes
    return replace(config, data=replace(config.data, max_duration=share))


def _audit(
    corpora: Iterable[Corpus],
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    data_dir: Path,
    listen: MapTasks,
) -> None:
    """Say in one line what is wrong with each corpus.

    Raises:
        DataError: training must not start.
    """
    limits = AuditLimits(
        min_utterance_s=config.data.min_utterance_s, max_utterance_s=config.data.max_utterance_s
    )
    for corpus, part in zip(corpora, config.data.parts, strict=True):
        splits = {"train": corpus.cuts("train"), "dev": corpus.cuts("dev")}
        # A test set is nothing that training needs.
        with suppress(DataError):
            if corpus.test_sets:
                splits["test"] = corpus.cuts("test")
        found = audit_at_start(
            part.corpus,
            splits,
            memory=memory_path(data_dir, part.corpus),
            limits=limits,
            tokenizer=tokenizer,
            has_sound=not takes_stored_features(corpus, config, part),
            ignored=corpus.known_defects,
            map_tasks=listen,
        )
        found.require_fit()
        _logger.info("%s", found)


def _prepared_vocabulary(data_dir: Path, corpus: str) -> Path | None:
    folder = prepared_vocabulary(data_dir, corpus)
    if not folder.exists():
        return None
    _logger.info("Vocabulary of %s: %s (--tokenizer makes another)", corpus, folder)
    return folder


def _tokenizer(data: DataConfig, texts: list[str]) -> Tokenizer:
    """A vocabulary made from transcripts."""
    if data.tokenizer == "words":
        return build_words(texts)
    if data.tokenizer == "chars":
        return build_chars(texts)
    return train_bpe(texts, data.vocab_size)
