"""What is in the folder of a language model, and what rebuilds it? config.yaml, lang/, epoch-N.pt.

Invariant: as `checkpoint.experiment`: knows no weights, imports no torch.
"""

from dataclasses import dataclass, field
from pathlib import Path

from snowmelt._version import __version__
from snowmelt.checkpoint.experiment import read_experiment
from snowmelt.core.config import load_yaml
from snowmelt.core.errors import CheckpointError
from snowmelt.presets.language_models import LmConfig, LmTrainConfig, RnnLmConfig
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["LmExperimentConfig", "load_lm_experiment"]


@dataclass(frozen=True)
class LmExperimentConfig:
    """Everything but the weights and the texts."""

    model: LmConfig = field(default_factory=RnnLmConfig)
    train: LmTrainConfig = field(default_factory=LmTrainConfig)
    vocabulary_hash: str = ""
    version: str = __version__


def load_lm_experiment(exp_dir: Path) -> tuple[LmExperimentConfig, Tokenizer]:
    """The settings and the vocabulary of a language model.

    Raises:
        UserError: the folder holds none of ours, or a file is damaged.
    """
    path = exp_dir / "config.yaml"
    if not path.exists():
        raise CheckpointError(
            f"{exp_dir} holds no language model of snowmelt: there is no {path.name}",
            "train one with snowmelt train-lm; those of other toolkits cannot be read",
        )
    model = load_yaml(path).get("model")
    if not isinstance(model, dict) or "lm_type" not in model:
        raise CheckpointError(
            f"{exp_dir} holds no language model, but another experiment",
            "name the --exp-dir of a snowmelt train-lm with --lm-exp-dir",
        )
    return read_experiment(exp_dir, LmExperimentConfig)
