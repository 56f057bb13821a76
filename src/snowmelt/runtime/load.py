"""How does a path become a model that can recognise?

    exp_dir                    an experiment: its pretrained.pt, or an average of its checkpoints
    exp_dir/<checkpoint>.pt    the weights of one file; config.yaml and lang/ lie beside it

Invariant: torch is imported inside functions only, when a model is really loaded.
"""

import dataclasses
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from snowmelt.checkpoint.experiment import load_experiment, numbered_checkpoints
from snowmelt.checkpoint.heads import MAIN_HEAD
from snowmelt.core.errors import CheckpointError
from snowmelt.runtime.backend import SpeechModel

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WeightsChoice", "load_model"]

# As many epochs as the original's decode.py averages; a shorter run averages what it has.
_DEFAULT_AVG: Final = 9

# What `export` makes of an average.
_EXPORTED_NAME: Final = "pretrained.pt"


@dataclass(frozen=True)
class WeightsChoice:
    """Which checkpoints of an experiment are averaged; names are the recipe's options.

    Attributes:
        epoch: last epoch, counted from 1; None for the newest one.
        iteration: above 0, take checkpoint-<iteration>.pt and those before it, not epochs.
        avg: how many epochs (or checkpoints); None for nine, or as many as there are.
        use_averaged_model: average with the running means that training keeps, over all batches
            of these epochs, and not only the models at their ends.
    """

    epoch: int | None = None
    iteration: int = 0
    avg: int | None = None
    use_averaged_model: bool = True

    def resolved(self, exp_dir: Path) -> "WeightsChoice":
        """The same choice with every number filled in.

        Raises:
            CheckpointError: the experiment has no checkpoint.
        """
        if not exp_dir.is_dir():
            raise CheckpointError(
                f"the experiment {exp_dir} is no folder", "give the --exp-dir of a training"
            )
        if self.iteration > 0:
            numbers = numbered_checkpoints(exp_dir, "checkpoint")
            # The running mean needs one checkpoint more: the one before the first.
            available = sum(n <= self.iteration for n in numbers) - self.use_averaged_model
            return dataclasses.replace(self, avg=self.avg or max(1, min(_DEFAULT_AVG, available)))
        epochs = numbered_checkpoints(exp_dir, "epoch")
        epoch = self.epoch
        if epoch is None:
            epoch = max(epochs, default=0)
        if epoch == 0:
            raise CheckpointError(
                f"{exp_dir} has no epoch-N.pt", "train at least one epoch, or choose --iter"
            )
        return dataclasses.replace(self, epoch=epoch, avg=self.avg or self._most(epoch, epochs))

    def _most(self, epoch: int, epochs: Container[int]) -> int:
        """How many epochs up to `epoch` can be averaged, at most the default."""
        wanted = min(_DEFAULT_AVG, epoch)
        for avg in range(wanted, 0, -1):
            # The running mean needs the file before the first only, if there is one at all.
            needed = (epoch - avg,) if self.use_averaged_model else range(epoch - avg + 1, epoch)
            if all(number == 0 or number in epochs for number in needed):
                return avg
        return wanted  # whose files are then said to be missing


def load_model(
    path: str | Path,
    *,
    weights: WeightsChoice | None = None,
    head: str = MAIN_HEAD,
    decode_chunk_len: int | None = None,
    device: str = "auto",
) -> SpeechModel:
    """Load a trained model.

    Args:
        path: an experiment's folder, or one of its checkpoint files.
        weights: which checkpoints of a folder to average; None for its pretrained.pt, or the
            newest average if there is none. A file is taken as it is.
        head: of a training on several corpora, whose decoder and joiner to use: "main", or the
            short name of another corpus, as in `decoder_<name>`.
        decode_chunk_len: feature frames of 10 ms the encoder advances by; None for the value in
            config.yaml.
        device: auto, cpu, cuda or mps.

    Raises:
        UserError: a file is missing or damaged, or does not fit the model; no such head or device.

    Example:
        recognizer = OnlineRecognizer(load_model("runs/digits"))
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"model {path} does not exist", "give an experiment's folder or a checkpoint file"
        )
    exp_dir = path if path.is_dir() else path.parent
    config, tokenizer = load_experiment(exp_dir)
    part = config.data.part_of_head(head)
    if head in (part.label, part.corpus):
        head = MAIN_HEAD if part == config.data.parts[0] else part.label
    model_config = config.model
    if decode_chunk_len is not None:
        model_config = dataclasses.replace(model_config, decode_chunk_len=decode_chunk_len)

    from snowmelt.checkpoint.icefall import load_icefall
    from snowmelt.models.build import build_transducer
    from snowmelt.models.device import pick_device
    from snowmelt.models.scaled_layers import fold_scales
    from snowmelt.runtime.backends.torch_eager import TorchBackend

    torch_device = pick_device(device)
    model = build_transducer(model_config, tokenizer.vocab_size)
    source, description = _chosen_weights(path, weights)
    load_icefall(source, model, head=head, name=description)
    fold_scales(model)
    for name, parameter in model.named_parameters():
        # Such a model would not fail: it would find silence in everything.
        if not bool(parameter.isfinite().all()):
            raise CheckpointError(
                f"the weights of {description} are not finite numbers ({name})",
                "the training has diverged; choose an earlier checkpoint",
            )
    return SpeechModel(
        backend=TorchBackend(model, model_config, unk_id=tokenizer.unk_id, device=torch_device),
        tokenizer=tokenizer,
        features=config.features,
        min_tail_s=config.min_tail_s,
        weights=description,
        head=head,
    )


def _chosen_weights(
    path: Path, weights: WeightsChoice | None
) -> "tuple[Path | dict[str, Tensor], str]":
    """A checkpoint file or averaged weights, and what to call them."""
    from snowmelt.checkpoint.average import find_checkpoints, load_average

    if path.is_file():
        return path, str(path)
    exported = path / _EXPORTED_NAME
    if weights is None and exported.is_file():
        return exported, str(exported)
    choice = (weights or WeightsChoice()).resolved(path)
    assert choice.avg is not None, choice
    files = find_checkpoints(
        path,
        epoch=choice.epoch,
        iteration=choice.iteration,
        avg=choice.avg,
        use_averaged_model=choice.use_averaged_model,
    )
    return load_average(files), f"{path}, {files}"
