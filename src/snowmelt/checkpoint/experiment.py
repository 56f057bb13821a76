"""What is in the folder of an experiment, and what rebuilds its model? config.yaml and lang/.

`exp_dir/config.yaml` holds model, training, data and feature settings; `exp_dir/lang/` holds the
tokenizer. No later command asks for any of it again. Weights are in `epoch-N.pt`, one an epoch, and
`checkpoint-B.pt`, B batches after the start.

Invariant: knows no weights; imports no torch.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

from snowmelt._version import __version__
from snowmelt.audio.fbank import FbankConfig
from snowmelt.core.config import dump_yaml, from_dict, load_yaml, to_dict
from snowmelt.core.errors import ConfigError
from snowmelt.core.files import require_file, write_text
from snowmelt.presets.data import DataConfig
from snowmelt.presets.models import ModelConfig, ZipformerConfig
from snowmelt.presets.training import TrainConfig
from snowmelt.text.tokenizer import Tokenizer, load_tokenizer, vocabulary_hash

__all__ = [
    "ExperimentConfig",
    "Settings",
    "load_experiment",
    "numbered_checkpoints",
    "read_experiment",
    "save_experiment",
]

_CONFIG_NAME: Final = "config.yaml"
_LANG_DIR: Final = "lang"

# More silence than this after every utterance would be a mistake in the unit.
_MAX_TAIL_S: Final = 10.0


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything but the weights: model, training, data, features and the tail rule.

    `min_tail_s` is the least number of seconds of zero samples that follow the last sample of an
    utterance before its features are computed (see `snowmelt.audio.tail`).
    """

    model: ModelConfig = field(default_factory=ZipformerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    features: FbankConfig = field(default_factory=FbankConfig)
    min_tail_s: float = 0.4
    vocabulary_hash: str = ""
    version: str = __version__

    def __post_init__(self) -> None:
        if self.model.feature_dim != self.features.num_mel_bins:
            raise ConfigError(
                f"the model takes {self.model.feature_dim} mel bins, features have "
                f"{self.features.num_mel_bins}",
                hint="set both: --set model.feature_dim=N --set features.num_mel_bins=N",
            )
        if not 0.0 <= self.min_tail_s <= _MAX_TAIL_S:
            raise ConfigError(
                f"min_tail_s is {self.min_tail_s}, it must be from 0 to {_MAX_TAIL_S:g}",
                hint="0.4 is usual",
            )


class Settings(Protocol):
    """What every experiment's dataclass of settings has."""

    @property
    def vocabulary_hash(self) -> str:
        """Of the tokenizer; empty if it is not known."""


SettingsT = TypeVar("SettingsT", bound=Settings)


def save_experiment(exp_dir: Path, config: Settings, tokenizer: Tokenizer) -> None:
    """Write config.yaml and lang/ of an experiment, each file whole or not at all."""
    tokenizer.save(exp_dir / _LANG_DIR)
    write_text(exp_dir / _CONFIG_NAME, dump_yaml(to_dict(config)))


def load_experiment(exp_dir: Path) -> tuple[ExperimentConfig, Tokenizer]:
    """Read back what `save_experiment` wrote of a transducer.

    Raises:
        UserError: a file is missing or damaged, or the tokenizer is not the one trained with.
    """
    return read_experiment(exp_dir, ExperimentConfig)


def read_experiment(exp_dir: Path, kind: type[SettingsT]) -> tuple[SettingsT, Tokenizer]:
    """Read back what `save_experiment` wrote.

    Args:
        exp_dir: the experiment.
        kind: the class of its settings.

    Raises:
        UserError: as `load_experiment`.
    """
    path = require_file(
        exp_dir / _CONFIG_NAME,
        "the experiment's configuration",
        error=ConfigError,
        hint="it lies beside the checkpoints of a training, with the folder lang",
    )
    try:
        settings = load_yaml(path)
        if not settings:  # not the defaults: a training writes all it knows
            raise ConfigError(f"{path} is empty", "copy it from where the model was trained")
        model = settings.get("model")
        if kind is ExperimentConfig and isinstance(model, dict) and "lm_type" in model:
            raise ConfigError(
                f"{path} is of a language model, not of a transducer",
                "name its folder with --lm-exp-dir",
            )
        config = from_dict(kind, settings)
    except ConfigError as error:
        # Settings are named by their place in the file only.
        where = "" if str(path) in error.message else f"{path}: "
        raise ConfigError(f"{where}{error.message}", error.hint) from None
    if not (exp_dir / _LANG_DIR).is_dir():
        raise ConfigError(
            f"the vocabulary's folder {exp_dir / _LANG_DIR} does not exist",
            hint="copy it from where the model was trained",
        )
    tokenizer = load_tokenizer(exp_dir / _LANG_DIR)
    if config.vocabulary_hash and vocabulary_hash(tokenizer) != config.vocabulary_hash:
        raise ConfigError(
            f"{exp_dir / _LANG_DIR} holds another vocabulary than {path.name} was written for",
            hint="restore the lang folder that was there when the model was trained",
        )
    return config, tokenizer


def numbered_checkpoints(exp_dir: Path, prefix: Literal["epoch", "checkpoint"]) -> dict[int, Path]:
    """Number -> file `<prefix>-<number>.pt` of an experiment, in the order of the numbers."""
    numbers = {}
    for path in exp_dir.glob(f"{prefix}-*.pt"):
        digits = path.stem.removeprefix(f"{prefix}-")
        if digits.isascii() and digits.isdigit():
            numbers[int(digits)] = path
    return dict(sorted(numbers.items()))
