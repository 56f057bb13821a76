"""How is a model trained? The numbers of a run: losses, schedules, data, and the presets.

Invariant: numbers and names only; no torch, no files. Everything that counts batches goes through
`TrainConfig.scaled`, so one number (`schedule_scale`) shortens or stretches a whole recipe.

Source of the default values: icefall,
egs/librispeech/ASR/pruned_transducer_stateless7_streaming/train.py (options and get_params()).
"""

from dataclasses import dataclass
from typing import Final, Literal

from snowmelt.core.errors import ConfigError
from snowmelt.presets.models import ZipformerConfig, model_preset
from snowmelt.presets.ranges import require_numbers

__all__ = ["RECIPES", "DataConfig", "Recipe", "TrainConfig", "recipe"]

# Numbers of batches and ranks are added to multiples of it, and 64 bits must hold the sum.
_MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
class TrainConfig:
    """One training run; field names are the recipe's option names.

    Fields that count batches (`warm_step`, `lr_batches`, `average_period`, `save_every_n`, and the
    model's own schedules) are given for a full-size run and multiplied by `schedule_scale`.
    """

    num_epochs: int = 30
    base_lr: float = 0.05
    lr_batches: float = 5000.0
    lr_epochs: float = 3.5
    lr_warmup_batches: float = 500.0
    prune_range: int = 5
    lm_scale: float = 0.25
    am_scale: float = 0.0
    simple_loss_scale: float = 0.5
    warm_step: int = 2000
    clipping_scale: float = 2.0
    # Auxiliary heads live beside the model, never in its state dict.
    ctc_loss_scale: float = 0.0
    frame_loss_scale: float = 0.0  # which word is spoken now
    frame_loss_batches: float = 0.0  # the frame loss fades over so many batches; 0: it stays
    normalise_features: bool = False  # fold mean and deviation of the features into fresh weights
    schedule_scale: float = 1.0
    seed: int = 42
    average_period: int = 200
    save_every_n: int = 2000
    keep_last_k: int = 30
    log_interval: int = 50
    reset_interval: int = 200
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
                "clipping_scale",
                "schedule_scale",
                "average_period",
                "keep_last_k",
                "log_interval",
                "reset_interval",
            ),
            not_negative=(
                "lr_warmup_batches",
                "lm_scale",
                "am_scale",
                "simple_loss_scale",
                "ctc_loss_scale",
                "frame_loss_scale",
                "frame_loss_batches",
                "seed",
            ),
        )
        if self.seed > _MAX_SEED:
            raise ConfigError(f"seed is {self.seed}, it must be at most {_MAX_SEED}", "42 is usual")
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


@dataclass(frozen=True)
class DataConfig:
    """Which corpus a run learns from, and what is done to it on the way."""

    corpus: str = "digits"
    tokenizer: Literal["words", "chars", "bpe"] = "words"
    vocab_size: int = 500  # for bpe
    max_duration: float = 200.0
    num_buckets: int = 30
    min_utterance_s: float = 0.3
    max_utterance_s: float = 20.0
    speed_perturb: bool = False
    enable_spec_aug: bool = True
    spec_aug_time_warp_factor: int = 80
    max_tail_s: float = 0.0  # up to this much digital silence is appended in training
    num_workers: int = 1

    def __post_init__(self) -> None:
        require_numbers(
            self,
            positive=(
                "vocab_size",
                "max_duration",
                "num_buckets",
                "max_utterance_s",
                "num_workers",
            ),
            not_negative=("min_utterance_s", "max_tail_s"),
        )


@dataclass(frozen=True)
class Recipe:
    """A model, the way it is trained, and its data: what `--preset` names."""

    model: ZipformerConfig
    train: TrainConfig
    data: DataConfig


RECIPES: Final[dict[str, Recipe]] = {
    "digits": Recipe(
        model=model_preset("zipformer-tiny"),
        train=TrainConfig(
            num_epochs=20,
            schedule_scale=0.06,
            lr_epochs=10.0,
            frame_loss_scale=0.3,
            normalise_features=True,
        ),
        data=DataConfig(
            corpus="digits",
            tokenizer="words",
            max_duration=20.0,
            enable_spec_aug=False,
            max_tail_s=0.5,
        ),
    ),
    "an4": Recipe(
        model=model_preset("zipformer-tiny"),
        train=TrainConfig(
            num_epochs=25,
            schedule_scale=0.2,
            lr_epochs=10.0,
            ctc_loss_scale=0.3,
            # The corpus has no word times: guessed ones help until the model knows better.
            frame_loss_scale=0.3,
            frame_loss_batches=6000.0,
            normalise_features=True,
        ),
        data=DataConfig(
            corpus="an4",
            tokenizer="words",
            max_duration=20.0,
            speed_perturb=True,
            spec_aug_time_warp_factor=0,
            max_tail_s=0.5,
        ),
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        ConfigError: there is no such recipe; the message lists those there are.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no preset {name!r}", hint=f"choose {', '.join(RECIPES)}")
    return RECIPES[name]
