"""Where does the training of a language model stand? All that must survive a kill.

Invariant: as `train.resume`: plain types, whole or not at all; going on computes the same numbers
as not having been interrupted.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.checkpoint.lm_experiment import LmExperimentConfig
from snowmelt.core.config import to_dict
from snowmelt.models.lm.build import build_lm
from snowmelt.optim.eden import Eden
from snowmelt.optim.scaled_adam import ScaledAdam
from snowmelt.train.checkpoints import (
    SettingRules,
    check_settings,
    fitting,
    flat_settings,
    own_part,
)
from snowmelt.train.lm_metrics import LmTotals
from snowmelt.train.precision import Precision
from snowmelt.train.resume import Progress

__all__ = ["LmTrainState"]

_RULES: Final = SettingRules(
    of_the_weights=("model.",),
    of_the_batches=("text_hash", "train.max_tokens", "train.max_sent_len", "train.seed"),
    of_no_influence=(
        "version",
        "train.keep_last_k",
        "train.log_interval",
        "train.num_epochs",
        "train.save_every_n",
        "train.valid_interval",
    ),
)


class LmTrainState:
    """Model, optimiser, schedule, loss scale and position of one run.

    Args:
        config: settings of the run.
        vocab_size: V.
        text_hash: of the sentences that are learnt from.
        device: where the model is trained.
    """

    def __init__(
        self, config: LmExperimentConfig, vocab_size: int, text_hash: str, device: torch.device
    ) -> None:
        train = config.train
        self.config = config
        self.text_hash = text_hash
        self.model = build_lm(config.model, vocab_size).to(device)
        names, parameters = zip(*self.model.named_parameters(), strict=True)
        self.optimizer = ScaledAdam(
            list(parameters),
            lr=train.base_lr,
            clipping_scale=train.clipping_scale,
            parameters_names=[list(names)],
        )
        self.scheduler = Eden(
            self.optimizer,
            lr_batches=train.lr_batches,
            lr_epochs=train.lr_epochs,
            warmup_batches=train.lr_warmup_batches,
        )
        self.precision = Precision(
            device,
            use_fp16=train.use_fp16,
            use_bf16=train.use_bf16,
            init_scale=1.0,
            has_manual_growth=True,
        )
        self.progress = Progress()
        self.totals = LmTotals()  # decayed

    def save(self, path: Path) -> None:
        """Write a checkpoint.

        Raises:
            UserError: the file cannot be written.
        """
        save_checkpoint(
            path,
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "grad_scaler": self.precision.state_dict(),
                "batch_idx_train": self.progress.batch_idx_train,
                "snowmelt": {
                    "config": to_dict(self.config),
                    "text_hash": self.text_hash,
                    "progress": asdict(self.progress),
                    "totals": list(self.totals.values()),
                },
            },
        )

    def load(self, saved: Mapping[str, Any], path: Path) -> None:
        """Go on from a checkpoint of the same run.

        Args:
            saved: what `load_checkpoint` gave.
            path: where it came from, for messages.

        Settings that decide the model must be those of the run; inside an epoch also those that
        decide its batches, and the text. Others may change, which is logged.

        Raises:
            CheckpointError: the file is damaged, or was written by another kind of run.
        """
        ours = own_part(saved, path)
        with fitting(path):
            progress = Progress(**ours["progress"])
            check_settings(
                path,
                {**flat_settings(ours["config"]), "text_hash": ours["text_hash"]},
                {**flat_settings(to_dict(self.config)), "text_hash": self.text_hash},
                _RULES,
                is_inside_epoch=progress.batch > 0,
            )
            self.model.load_state_dict(saved["model"], strict=True)
            self.optimizer.load_state_dict(saved["optimizer"])
            self.scheduler.load_state_dict(saved["scheduler"])
            self.precision.load_state_dict(saved["grad_scaler"])
            self.progress = progress
            self.totals = LmTotals(*ours["totals"])
        # The saved states bring their settings along; what the user asks for now goes before.
        self.scheduler.set_base_lr(self.config.train.base_lr)
        for group in self.optimizer.param_groups:
            group["clipping_scale"] = self.config.train.clipping_scale
