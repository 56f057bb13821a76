"""How does the training of a language model start? Settings, vocabulary and texts are settled here.

Invariant: what is wrong with settings, texts or device is found before anything is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from snowmelt.checkpoint.lm_experiment import LmExperimentConfig
from snowmelt.core.config import from_dict, override, to_dict
from snowmelt.core.errors import ConfigError, DataError
from snowmelt.data.sentences import encode_sentences, read_sentences, split_off_dev
from snowmelt.models.device import pick_device
from snowmelt.presets.language_models import lm_preset
from snowmelt.text.tokenizer import load_tokenizer, vocabulary_hash
from snowmelt.train.launch import checkpoint_to_resume
from snowmelt.train.lm_metrics import LmTotals
from snowmelt.train.lm_trainer import LmRunOptions, train_lm

__all__ = ["lm_settings", "start_lm_run"]


def lm_settings(
    *,
    preset: str,
    lm_type: str,
    overrides: Mapping[str, Mapping[str, Any]],
    assignments: list[str],
) -> LmExperimentConfig:
    """The settings of a run; no text is looked at.

    Args:
        preset: name of a preset.
        lm_type: rnn or transformer.
        overrides: group -> field -> value; None keeps the preset's value.
        assignments: `group.key=value` texts, applied last.

    Raises:
        ConfigError: unknown names, or settings that contradict each other.
    """
    merged = to_dict(LmExperimentConfig(model=lm_preset(preset, lm_type)))
    for group, values in overrides.items():
        chosen = {k: v for k, v in values.items() if v is not None}
        foreign = sorted(chosen.keys() - merged[group].keys())
        if foreign:
            raise ConfigError(
                f"--{foreign[0].replace('_', '-')} is no setting of {lm_type} language models",
                hint="choose another --lm-type, or leave it out",
            )
        merged[group].update(chosen)
    return override(from_dict(LmExperimentConfig, merged), assignments)


def start_lm_run(
    config: LmExperimentConfig,
    *,
    texts: Sequence[Path],
    dev_texts: Sequence[Path],
    vocabulary: Path,
    exp_dir: Path,
    device: str,
    tensorboard: bool,
    resume: str,
    start_epoch: int,
    start_batch: int,
) -> LmTotals:
    """Read the texts and train.

    Args:
        config: its settings.
        texts: files of one sentence a line, plain or packed with gzip.
        dev_texts: the same, for validation; empty: one in fifty sentences of `texts`.
        vocabulary: that of the transducer, see `load_tokenizer`.
        exp_dir: output folder.
        device: auto, cpu, cuda or mps.
        tensorboard: whether TensorBoard events are written.
        resume: auto or no.
        start_epoch: above 1: go on from epoch-(start_epoch - 1).pt.
        start_batch: above 0: go on from checkpoint-start_batch.pt.

    Returns:
        loss and perplexities on the dev text; of no token where no epoch was left.

    Raises:
        UserError: texts, vocabulary or checkpoints do not fit.
    """
    resume_from = checkpoint_to_resume(exp_dir, resume, start_epoch, start_batch)
    chosen_device = str(pick_device(device))
    tokenizer = load_tokenizer(vocabulary)
    if dev_texts:
        training, dev = read_sentences(texts), read_sentences(dev_texts)
    else:
        rest, apart = split_off_dev(read_sentences(texts))
        if rest and not apart:
            raise DataError(
                "the text is too short to keep a part of it for validation",
                "name a text for that with --dev-text",
            )
        training, dev = iter(rest), iter(apart)
    max_len = config.train.max_sent_len
    sentences = encode_sentences(training, tokenizer, max_len=max_len, name="the text")
    dev_sentences = encode_sentences(dev, tokenizer, max_len=max_len, name="the dev text")
    return train_lm(
        replace(config, vocabulary_hash=vocabulary_hash(tokenizer)),
        tokenizer,
        sentences,
        dev_sentences,
        LmRunOptions(
            exp_dir=exp_dir, device=chosen_device, tensorboard=tensorboard, resume_from=resume_from
        ),
    )
