"""Which model does `transcribe` use, by the names of the tutorials' inference scripts?

    --model                         whatever `snowmelt.load_model` takes
    --checkpoint                    pretrained.py: weights alone, or an epoch's file
    --nn-model-filename             jit_pretrained.py of the Zipformer: cpu_jit.pt
    --encoder-model-filename, …     the traced three, or the ONNX three; their content says which

Source: icefall, pretrained.py, jit_pretrained.py, jit_trace_pretrained.py and onnx_pretrained.py of
both recipes (names).
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from snowmelt.cli.arguments import positive_int
from snowmelt.core.errors import ConfigError

if TYPE_CHECKING:
    from snowmelt.runtime.backend import SpeechModel
    from snowmelt.runtime.model_files import Form, ModelFiles

__all__ = ["add_model_files", "check_sample_rate", "chosen_model"]

_PARTS: Final = ("encoder", "decoder", "joiner")

_RIGHT_OPTION: Final = {
    "checkpoint": "--checkpoint",
    "torchscript": "--nn-model-filename, or if it is traced the three --…-model-filename",
    "onnx": "--encoder-model-filename, --decoder-model-filename and --joiner-model-filename",
}


def add_model_files(parser: argparse.ArgumentParser) -> None:
    """The files of one model, each sort by its own option."""
    group = parser.add_argument_group("model files, one of")
    group.add_argument(
        "--model",
        type=Path,
        metavar="PATH",
        help="folder of an experiment or of exported files, one of these files, a bundle, or "
        "hf:owner/name",
    )
    group.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="pretrained.pt or epoch-N.pt"
    )
    group.add_argument(
        "--nn-model-filename", type=Path, metavar="FILE", help="a scripted model, cpu_jit.pt"
    )
    for part in _PARTS:
        group.add_argument(
            f"--{part}-model-filename",
            type=Path,
            metavar="FILE",
            help=f"the {part} of a model in three files, traced (.pt) or ONNX",
        )
    parser.add_argument(
        "--sample-rate",
        type=positive_int,
        metavar="HZ",
        help="compared with the model's; sound of any rate is resampled",
    )


def chosen_model(args: argparse.Namespace) -> "Path | ModelFiles":
    """The one model that the options name.

    Raises:
        ConfigError: they name none or several, or a file of another sort.
        CheckpointError: a file is missing.
    """
    from snowmelt.runtime.hub import local_path
    from snowmelt.runtime.model_files import ModelFiles

    parts = {part: getattr(args, f"{part}_model_filename") for part in _PARTS}
    given = [
        name
        for name, value in (
            ("--model", args.model),
            ("--checkpoint", args.checkpoint),
            ("--nn-model-filename", args.nn_model_filename),
            *((f"--{part}-model-filename", path) for part, path in parts.items()),
        )
        if value is not None
    ]
    if not given:
        raise ConfigError("no model is given", "--model PATH, or --checkpoint FILE")
    if any(parts.values()):
        missing = [f"--{part}-model-filename" for part, path in parts.items() if path is None]
        if missing:
            raise ConfigError(
                f"{given[-1]} needs {' and '.join(missing)} beside it",
                "a traced or ONNX model is three files",
            )
        given[-len(_PARTS) :] = ["the three files"]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} both name a model", "leave one of them out")
    if args.checkpoint is not None:
        return _of_form(args.checkpoint, "--checkpoint", "checkpoint")
    if args.nn_model_filename is not None:
        return _of_form(args.nn_model_filename, "--nn-model-filename", "torchscript")
    if args.model is not None:
        return local_path(args.model)
    return ModelFiles(**parts)


def check_sample_rate(args: argparse.Namespace, model: "SpeechModel") -> None:
    """Compare --sample-rate, which the original's scripts insist on, with the model's.

    Raises:
        ConfigError: they differ.
    """
    rate = model.features.sample_rate
    if args.sample_rate not in (None, rate):
        raise ConfigError(
            f"--sample-rate {args.sample_rate}: the model hears {rate} samples a second",
            "leave it out: sound of any rate is resampled",
        )


def _of_form(path: Path, option: str, wanted: "Form") -> Path:
    from snowmelt.runtime.hub import local_path
    from snowmelt.runtime.model_files import form_of

    path = local_path(path)
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder", f"--model {path}")
    form = form_of(path)
    if form != wanted:
        names = {"checkpoint": "a checkpoint", "torchscript": "a TorchScript program"}
        raise ConfigError(
            f"{option} {path} is {names.get(form, 'an ONNX model')}",
            f"pass it as {_RIGHT_OPTION[form]}",
        )
    return path
