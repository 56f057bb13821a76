"""Presets of models and corpora fit together, in every combination."""

from dataclasses import replace

import pytest

from snowmelt.core.errors import ConfigError
from snowmelt.presets.data import MixPart
from snowmelt.presets.models import MODEL_PRESETS
from snowmelt.presets.recipes import (
    CORPUS_PRESETS,
    data_preset,
    mix_of,
    preset_names,
    recipe,
)


def test_a_corpus_comes_with_the_model_that_suits_it() -> None:
    for name, preset in CORPUS_PRESETS.items():
        chosen = recipe(name)
        assert chosen.data == preset.data and chosen.data.corpus == name
        assert chosen.model == MODEL_PRESETS[preset.model]


@pytest.mark.parametrize("corpus", CORPUS_PRESETS)
@pytest.mark.parametrize("preset", MODEL_PRESETS)
def test_models_and_corpora_combine_freely(preset: str, corpus: str) -> None:
    chosen = recipe(preset, corpus=corpus)
    assert chosen.model == MODEL_PRESETS[preset]
    is_lstm = chosen.model.encoder == "lstm"
    assert chosen.data == replace(
        CORPUS_PRESETS[corpus].data, spec_aug_num_frame_masks=2 if is_lstm else 10
    )
    assert chosen.train.optimizer == ("eve" if is_lstm else "scaled_adam")
    for name, value in CORPUS_PRESETS[corpus].train.items():
        assert getattr(chosen.train, name) == value


def test_the_originals_defaults() -> None:
    zipformer, lstm = recipe("zipformer"), recipe("lstm")
    assert zipformer.data.corpus == lstm.data.corpus == "librispeech"
    train = zipformer.train
    assert (train.num_epochs, train.base_lr, train.lr_epochs) == (30, 0.05, 3.5)
    assert (train.average_period, train.save_every_n, train.keep_last_k) == (200, 2000, 30)
    train = lstm.train
    assert (train.num_epochs, train.base_lr, train.lr_epochs) == (35, 0.003, 10.0)
    assert (train.average_period, train.save_every_n, train.keep_last_k) == (100, 2000, 20)
    assert (train.lr_warmup_batches, train.loss_schedule) == (0.0, "stepped")


def test_a_corpus_without_a_preset_takes_the_settings_of_the_presets() -> None:
    chosen = recipe("digits", corpus="mine")
    assert chosen.data.corpus == "mine" and chosen.data.max_duration == 40.0
    assert recipe("digits", corpus="libri").data.corpus == "librispeech"
    # A model's preset has none to give: those of an own corpus, which ask for no noise.
    own = recipe("zipformer-small", corpus="mine")
    assert own.data.corpus == "mine" and not own.data.enable_musan
    assert own.data == replace(data_preset("mine"), corpus="mine")


def test_an_unknown_preset() -> None:
    with pytest.raises(ConfigError, match=f"no preset 'klingon'.*choose {preset_names()[0]}, "):
        recipe("klingon")


def test_parts_of_a_mix_keep_their_own_augmentation() -> None:
    assert mix_of({"an4": 0.5, "digits": 0.3, "mine": 0.2}) == (
        MixPart("an4", 0.5, speed_perturb=True, enable_spec_aug=True),
        MixPart("digits", 0.3, speed_perturb=False, enable_spec_aug=False),
        # As an own corpus that is learnt from alone.
        MixPart("mine", 0.2, speed_perturb=True, enable_spec_aug=True),
    )
    assert [part.corpus for part in mix_of({"libri": 0.5, "giga": 0.5})] == [
        "librispeech",
        "gigaspeech",
    ]
