"""Which model is trained how on which corpus? Presets of models and of corpora, freely combined.

Invariant: a recipe is a value: the model's numbers, the encoder's way of training, and what the
corpus changes in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from snowmelt.core.errors import ConfigError
from snowmelt.presets.data import DataConfig, MixPart
from snowmelt.presets.models import MODEL_PRESETS, ModelConfig, model_preset
from snowmelt.presets.training import ENCODER_TRAINING, TrainConfig

__all__ = [
    "CORPUS_PRESETS",
    "CorpusPreset",
    "Recipe",
    "data_preset",
    "mix_of",
    "preset_names",
    "recipe",
]

# What a model is trained on when nothing else is said: the original's corpus.
_DEFAULT_CORPUS: Final = "librispeech"

# Whose settings a corpus takes that has none of its own.
_OWN_CORPUS: Final = "own"

# The LSTM's recipe masks long utterances less.
_LSTM_FRAME_MASKS: Final = 2

# Short names that the original uses.
_ALIASES: Final = {"libri": "librispeech", "giga": "gigaspeech"}


@dataclass(frozen=True)
class CorpusPreset:
    """How a corpus is learnt from.

    Attributes:
        data: its settings.
        model: the model preset that suits it.
        train: what it changes in the training of any model.
    """

    data: DataConfig
    model: str
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A model, the way it is trained, and its data."""

    model: ModelConfig
    train: TrainConfig
    data: DataConfig


CORPUS_PRESETS: Final[dict[str, CorpusPreset]] = {
    "digits": CorpusPreset(
        data=DataConfig(
            corpus="digits",
            tokenizer="words",
            max_duration=40.0,  # a step of all cores of a CPU
            enable_spec_aug=False,
            spec_aug_time_warp_factor=0,
            max_tail_s=0.5,
            cut_edges=0.25,  # all strings begin and end with silence, speech elsewhere does not
        ),
        model="zipformer-tiny",
        train={
            "num_epochs": 20,
            "schedule_scale": 0.06,
            "lr_epochs": 10.0,
            "frame_loss_scale": 0.3,
            "normalise_features": True,
        },
    ),
    "an4": CorpusPreset(
        data=DataConfig(
            corpus="an4",
            tokenizer="words",
            max_duration=40.0,  # a step of all cores of a CPU
            speed_perturb=True,
            spec_aug_time_warp_factor=0,
            max_tail_s=0.5,
        ),
        model="zipformer-tiny",
        train={
            "num_epochs": 25,
            "schedule_scale": 0.2,
            "lr_epochs": 10.0,
            "ctc_loss_scale": 0.3,
            # The corpus has no word times: guessed ones help until the model knows better.
            "frame_loss_scale": 0.3,
            "frame_loss_batches": 6000.0,
            "normalise_features": True,
        },
    ),
    "librispeech": CorpusPreset(
        data=DataConfig(
            corpus="librispeech",
            tokenizer="bpe",
            min_utterance_s=1.0,
            speed_perturb=True,
            enable_musan=True,
            num_workers=2,
        ),
        model="zipformer",
    ),
    # Anybody's own speech: hours of it, of unknown kind.
    _OWN_CORPUS: CorpusPreset(
        data=DataConfig(corpus=_OWN_CORPUS, tokenizer="bpe", speed_perturb=True),
        model="zipformer-small",
        train={"normalise_features": True},
    ),
    "gigaspeech": CorpusPreset(
        data=DataConfig(
            corpus="gigaspeech",
            tokenizer="bpe",
            min_utterance_s=1.0,
            enable_musan=True,
            num_workers=2,
        ),
        model="zipformer",
    ),
}


def preset_names() -> tuple[str, ...]:
    """What `recipe` takes: corpora, each with the model that suits it, and models."""
    return (*CORPUS_PRESETS, *MODEL_PRESETS)


def recipe(preset: str, *, corpus: str | None = None) -> Recipe:
    """The recipe that a preset and a corpus describe.

    Args:
        preset: a corpus preset or a model preset.
        corpus: what to learn from; None: the preset's corpus. One that has no preset of its own
            takes the settings of the preset's, or those of an own corpus with a model preset.

    Raises:
        ConfigError: there is no such preset; the message lists those there are.

    Example:
        >>> recipe("lstm-small", corpus="an4").train.optimizer
        'eve'
    """
    if preset not in preset_names():
        raise ConfigError(
            f"there is no preset {preset!r}", hint=f"choose {', '.join(preset_names())}"
        )
    base = preset if preset in CORPUS_PRESETS else _DEFAULT_CORPUS
    corpus = base if corpus is None else _ALIASES.get(corpus, corpus)
    if preset not in CORPUS_PRESETS and corpus not in CORPUS_PRESETS:
        base = _OWN_CORPUS
    chosen = CORPUS_PRESETS.get(corpus, CORPUS_PRESETS[base])
    model = model_preset(CORPUS_PRESETS[preset].model if preset in CORPUS_PRESETS else preset)
    data = replace(chosen.data, corpus=corpus)
    if model.encoder == "lstm":
        data = replace(data, spec_aug_num_frame_masks=_LSTM_FRAME_MASKS)
    return Recipe(
        model=model,
        train=replace(ENCODER_TRAINING[model.encoder], **chosen.train),
        data=data,
    )


def data_preset(corpus: str) -> DataConfig:
    """How a corpus is learnt from; any other name is an own corpus."""
    return CORPUS_PRESETS.get(_ALIASES.get(corpus, corpus), CORPUS_PRESETS[_OWN_CORPUS]).data


def mix_of(shares: Mapping[str, float]) -> tuple[MixPart, ...]:
    """The parts of a mix, each with what its preset says about augmentation.

    Args:
        shares: corpus -> probability of a batch, the main corpus first.
    """
    parts = []
    for name, probability in shares.items():
        corpus = _ALIASES.get(name, name)
        data = data_preset(corpus)
        parts.append(MixPart(corpus, probability, data.speed_perturb, data.enable_spec_aug))
    return tuple(parts)
