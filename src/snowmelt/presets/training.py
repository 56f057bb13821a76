"""How is a model trained? The numbers of a run: optimiser, losses, schedules, checkpoints.

Invariant: numbers and names only; no torch, no files. Everything that counts batches goes through
`TrainConfig.scaled`, so one number (`schedule_scale`) shortens or stretches a whole recipe.

Source of the default values: icefall, egs/librispeech/ASR:
pruned_transducer_stateless7_streaming/train.py and lstm_transducer_stateless2/train.py (options and
get_params()).
"""

from dataclasses import dataclass
from typing import Final, Literal

from snowmelt.core.errors import ConfigError
from snowmelt.presets.ranges import require_numbers

__all__ = ["ENCODER_TRAINING", "TrainConfig"]

# Numbers of batches and ranks are added to multiples of it, and 64 bits must hold the sum.
_MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
class TrainConfig:
    """One training run; field names are the recipes' option names, values the Zipformer's.

    Fields that count batches (`warm_step`, `lr_batches`, `average_period`, `save_every_n`, and the
    model's own schedules) are given for a full-size run and multiplied by `schedule_scale`.

    Raises:
        ConfigError: a value is out of its range, or two contradict each other.
    """

    num_epochs: int = 30
    optimizer: Literal["scaled_adam", "eve"] = "scaled_adam"
    base_lr: float = 0.05
    lr_batches: float = 5000.0
    lr_epochs: float = 3.5
    lr_warmup_batches: float = 500.0
    prune_range: int = 5
    lm_scale: float = 0.25
    am_scale: float = 0.0
    simple_loss_scale: float = 0.5
    # linear: both weights move over warm_step batches. stepped: the pruned loss waits for
    # model_warm_step batches, has a tenth of its weight for as many, then all of it.
    loss_schedule: Literal["linear", "stepped"] = "linear"
    warm_step: int = 2000
    model_warm_step: int = 3000  # also the warm-up of the LSTM's layers
    delay_penalty: float = 0.0  # reward for every frame by which a token comes earlier
    delay_penalty_start: int = 2000
    delay_penalty_ramp: int = 2000  # batches from its start to its full value
    clipping_scale: float = 2.0
    # Auxiliary heads live beside the model, never in its state dict.
    ctc_loss_scale: float = 0.0
    frame_loss_scale: float = 0.0  # which word is spoken now
    frame_loss_batches: float = 0.0  # the frame loss fades over so many batches; 0: it stays
    context_dropout: float = 0.0  # share of the decoder's tokens that it does not see
    normalise_features: bool = False  # fold mean and deviation of the features into fresh weights
    schedule_scale: float = 1.0
    seed: int = 42
    average_period: int = 200
    save_every_n: int = 2000
    keep_last_k: int = 30
    log_interval: int = 50
    reset_interval: int = 200
    valid_interval: int = 3000
    target_duration: float = 0.0  # seconds that one step learns from; 0: one batch of each process
    use_fp16: bool = False
    use_bf16: bool = False

    def __post_init__(self) -> None:
        require_numbers(
            self,
            positive=(
                "num_epochs",
                "base_lr",
                "lr_batches",
                "lr_epochs",
                "prune_range",
                "warm_step",
                "model_warm_step",
                "clipping_scale",
                "schedule_scale",
                "average_period",
                "keep_last_k",
                "log_interval",
                "reset_interval",
                "valid_interval",
            ),
            not_negative=(
                "lr_warmup_batches",
                "lm_scale",
                "am_scale",
                "simple_loss_scale",
                "ctc_loss_scale",
                "frame_loss_scale",
                "frame_loss_batches",
                "context_dropout",
                "delay_penalty",
                "delay_penalty_start",
                "delay_penalty_ramp",
                "target_duration",
                "seed",
            ),
        )
        if self.seed > _MAX_SEED:
            raise ConfigError(f"seed is {self.seed}, it must be at most {_MAX_SEED}", "42 is usual")
        if self.context_dropout >= 1.0:
            raise ConfigError(
                f"context_dropout is {self.context_dropout:g}, it must be below 1",
                hint="0.2 is a fair start for a small corpus",
            )
        if self.use_fp16 and self.use_bf16:
            raise ConfigError(
                "use_fp16 and use_bf16 are both on", hint="choose one: bf16 where the device has it"
            )
        if self.save_every_n < self.average_period:
            raise ConfigError(
                f"save_every_n ({self.save_every_n}) is below average_period "
                f"({self.average_period})",
                hint="a checkpoint between two updates of the averaged model would repeat one",
            )

    def scaled(self, batches: float) -> float:
        """`batches` of a full-size run in batches of this run."""
        return batches * self.schedule_scale

    def scaled_period(self, batches: int) -> int:
        """A period of a full-size run in whole batches of this run, at least one."""
        return max(1, round(batches * self.schedule_scale))


# The two recipes' own values for their encoders.
ENCODER_TRAINING: Final[dict[str, TrainConfig]] = {
    "zipformer": TrainConfig(),
    "lstm": TrainConfig(
        num_epochs=35,
        optimizer="eve",
        base_lr=0.003,
        lr_epochs=10.0,
        lr_warmup_batches=0.0,
        loss_schedule="stepped",
        delay_penalty_start=6000,
        average_period=100,
        keep_last_k=20,
    ),
}
