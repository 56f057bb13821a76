"""How does a run start? Settings, tokenizer, checkpoint and processes are settled here, once.

Invariant: what is wrong with settings, corpus or device is found before a process starts.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.config import dump_yaml, from_dict, override, to_dict
from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.core.files import make_folder, require_file
from snowmelt.data.corpora import get_corpus
from snowmelt.data.cuts import cut_text
from snowmelt.presets.models import model_preset
from snowmelt.presets.training import DataConfig, recipe
from snowmelt.runtime.backends.torch_eager import pick_device
from snowmelt.text.tokenizer import (
    Tokenizer,
    build_chars,
    build_words,
    train_bpe,
    vocabulary_hash,
)
from snowmelt.train.distributed import launch, num_cores
from snowmelt.train.resume import newest_checkpoint
from snowmelt.train.trainer import RunOptions, train

__all__ = ["RunPlan", "prepare_run", "start_run"]

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

    def config_text(self) -> str:
        """The settings as YAML, as they will stand in config.yaml."""
        return dump_yaml(to_dict(self.config))


def prepare_run(
    *,
    preset: str,
    model_preset_name: str | None,
    overrides: Mapping[str, Mapping[str, Any]],
    assignments: list[str],
    exp_dir: Path,
    data_dir: Path,
    device: str,
    world_size: str,
    tensorboard: bool,
    resume: str,
    start_epoch: int,
    start_batch: int,
) -> RunPlan:
    """Settle everything about a run.

    Args:
        preset: name of the recipe.
        model_preset_name: name of a model preset that replaces the recipe's model, or None.
        overrides: group -> field -> value; None keeps the recipe's value.
        assignments: `group.key=value` texts, applied last.
        exp_dir: output folder.
        data_dir: folder of prepared corpora.
        device: auto, cpu, cuda or mps.
        world_size: number of processes, or auto.
        tensorboard: whether TensorBoard events are written.
        resume: auto or no.
        start_epoch: above 1: go on from epoch-(start_epoch - 1).pt.
        start_batch: above 0: go on from checkpoint-start_batch.pt.

    Raises:
        UserError: settings, data or checkpoints do not fit.
    """
    config = _settings(preset, model_preset_name, overrides, assignments)
    resume_from = _checkpoint_to_resume(exp_dir, resume, start_epoch, start_batch)
    device = str(pick_device(device))
    num_processes = _choose_world_size(world_size, device)
    tokenizer = _make_tokenizer(config.data, data_dir)
    return RunPlan(
        config=replace(config, vocabulary_hash=vocabulary_hash(tokenizer)),
        tokenizer=tokenizer,
        options=RunOptions(
            exp_dir=exp_dir,
            data_dir=data_dir,
            device=device,
            tensorboard=tensorboard,
            resume_from=resume_from,
        ),
        world_size=num_processes,
    )


def start_run(plan: RunPlan) -> None:
    """Train as planned, in this process or in several of this machine."""
    make_folder(plan.options.exp_dir)
    if _STARTED_BY_TORCHRUN in os.environ:  # this process is one of many already
        train(plan.config, plan.tokenizer, plan.options)
    else:
        launch(plan.world_size, train, plan.config, plan.tokenizer, plan.options)


def _settings(
    preset: str,
    model_preset_name: str | None,
    overrides: Mapping[str, Mapping[str, Any]],
    assignments: list[str],
) -> ExperimentConfig:
    base = recipe(preset)
    config = ExperimentConfig(model=base.model, train=base.train, data=base.data)
    if model_preset_name is not None:
        config = replace(config, model=model_preset(model_preset_name))
    merged = to_dict(config)
    for group, values in overrides.items():
        merged[group].update({k: v for k, v in values.items() if v is not None})
    config = override(from_dict(ExperimentConfig, merged), assignments)
    # Right each for itself and wrong together.
    warps_time = config.data.enable_spec_aug and config.data.spec_aug_time_warp_factor >= 1
    if config.train.frame_loss_scale > 0.0 and warps_time:
        raise ConfigError(
            "frame_loss_scale needs word times, which spec_aug_time_warp_factor would move",
            hint="add --spec-aug-time-warp-factor 0 or --frame-loss-scale 0",
        )
    return config


def _checkpoint_to_resume(
    exp_dir: Path, resume: str, start_epoch: int, start_batch: int
) -> Path | None:
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
        return int(started)
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


def _make_tokenizer(data: DataConfig, data_dir: Path) -> Tokenizer:
    """The tokenizer of the training transcripts."""
    corpus = get_corpus(data.corpus, data_dir / data.corpus)
    texts = [cut_text(cut) for cut in corpus.cuts("train")]
    if data.tokenizer == "words":
        return build_words(texts)
    if data.tokenizer == "chars":
        return build_chars(texts)
    return train_bpe(texts, data.vocab_size)
