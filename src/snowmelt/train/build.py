"""What does a run consist of at its first batch? Model, heads, optimiser and schedule, built new.

Invariant: the only place where training settings meet the classes they choose.
"""

import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.models.build import build_transducer
from snowmelt.models.regularisers import set_schedule_scale
from snowmelt.optim.eden import Eden
from snowmelt.optim.eve import Eve
from snowmelt.optim.scaled_adam import ScaledAdam
from snowmelt.presets.training import TrainConfig
from snowmelt.train.distributed import Ranks
from snowmelt.train.objective import TransducerObjective
from snowmelt.train.precision import Precision
from snowmelt.train.resume import Optimizer, TrainState

__all__ = ["new_precision", "new_state"]


def new_state(
    config: ExperimentConfig, vocab_size: int, device: torch.device, ranks: Ranks
) -> TrainState:
    """The state of a run before its first batch.

    Args:
        config: all settings.
        vocab_size: tokens including blank.
        device: where the model is trained.
        ranks: this process among all.
    """
    train = config.train
    model = build_transducer(config.model, vocab_size, extra_heads=config.data.extra_heads)
    set_schedule_scale(model, train.schedule_scale)
    objective = TransducerObjective(
        model, train, encoder_dim=config.model.output_dim, vocab_size=vocab_size
    ).to(device)
    optimizer = _new_optimizer(objective, train)
    scheduler = Eden(
        optimizer,
        lr_batches=train.scaled(train.lr_batches),
        lr_epochs=train.lr_epochs,
        warmup_batches=train.scaled(train.lr_warmup_batches),
        base_lr_key="initial_lr" if train.optimizer == "eve" else "base_lr",
    )
    return TrainState(objective, optimizer, scheduler, new_precision(train, device), config, ranks)


def new_precision(train: TrainConfig, device: torch.device) -> Precision:
    """The precision that is asked for, with the scale of the optimiser's recipe."""
    if train.optimizer == "eve":
        return Precision(device, use_fp16=train.use_fp16, use_bf16=train.use_bf16)
    return Precision(
        device,
        use_fp16=train.use_fp16,
        use_bf16=train.use_bf16,
        init_scale=1.0,
        has_manual_growth=True,
    )


def _new_optimizer(objective: TransducerObjective, train: TrainConfig) -> Optimizer:
    named = list(objective.named_parameters())
    if train.optimizer == "eve":
        return Eve(named, lr=train.base_lr)
    names, parameters = zip(*named, strict=True)
    return ScaledAdam(
        list(parameters),
        lr=train.base_lr,
        clipping_scale=train.clipping_scale,
        parameters_names=[list(names)],
    )
