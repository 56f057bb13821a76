"""How does the folder of a `snowmelt train-lm` become a language model that a search can ask?

Invariant: torch is imported inside functions only.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snowmelt.checkpoint.experiment import numbered_checkpoints
from snowmelt.checkpoint.lm_experiment import load_lm_experiment
from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.text.tokenizer import Tokenizer, vocabulary_hash

if TYPE_CHECKING:
    from snowmelt.runtime.backends.torch_lm import TorchLm

__all__ = ["load_neural_lm"]


def load_neural_lm(
    exp_dir: Path,
    lm_type: str,
    tokenizer: Tokenizer,
    *,
    epoch: int | None = None,
    avg: int = 1,
    sizes: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> "TorchLm":
    """Load a language model.

    Args:
        exp_dir: the --exp-dir of its training.
        lm_type: rnn or transformer.
        tokenizer: the transducer's.
        epoch: the last epoch that is averaged; None: that of the best loss on the dev text for
            avg 1, otherwise the newest.
        avg: how many epochs.
        sizes: fields of its configuration that are known already -> what they must be.
        device: auto, cpu, cuda or mps.

    Raises:
        UserError: a file is missing or damaged, or the model is of another kind or size.
    """
    config, own_tokenizer = load_lm_experiment(exp_dir)
    model_config = config.model
    if model_config.lm_type != lm_type:
        raise ConfigError(
            f"the language model in {exp_dir} is of type {model_config.lm_type}, not {lm_type}",
            f"--lm-type {model_config.lm_type}",
        )
    own_sizes = {**dataclasses.asdict(model_config), "vocab_size": own_tokenizer.vocab_size}
    for name, size in (sizes or {}).items():
        if own_sizes[name] != size:
            raise ConfigError(
                f"the language model in {exp_dir} has {name} {own_sizes[name]}, not {size}",
                "leave the option out: the sizes are in the model's config.yaml",
            )
    if vocabulary_hash(own_tokenizer) != vocabulary_hash(tokenizer):
        raise ConfigError(
            f"the language model in {exp_dir} has other tokens than the transducer",
            "train it with --lang-dir <exp-dir of the transducer>/lang",
        )

    import torch

    from snowmelt.checkpoint.average import CheckpointChoice, find_checkpoints, load_average
    from snowmelt.checkpoint.icefall import load_icefall
    from snowmelt.models.device import pick_device
    from snowmelt.models.lm.build import build_lm
    from snowmelt.runtime.backends.torch_lm import TorchLm

    torch_device: torch.device = pick_device(device)
    best = exp_dir / "best-valid-loss.pt"
    if epoch is None and avg == 1 and best.is_file():
        choice = CheckpointChoice((best,), use_averaged_model=False)
    else:
        epoch = epoch or max(numbered_checkpoints(exp_dir, "epoch"), default=None)
        if epoch is None:
            raise CheckpointError(f"{exp_dir} has no epoch-N.pt", "train at least one epoch")
        choice = find_checkpoints(exp_dir, epoch=epoch, avg=avg, use_averaged_model=False)
    model = build_lm(model_config, tokenizer.vocab_size)
    load_icefall(load_average(choice), model, name=f"{exp_dir}, {choice}")
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise CheckpointError(
                f"the weights of {exp_dir}, {choice} are not finite numbers ({name})",
                "the training has diverged; choose an earlier epoch with --lm-epoch",
            )
    return TorchLm(model, sos_eos_id=tokenizer.sos_eos_id, device=torch_device)
