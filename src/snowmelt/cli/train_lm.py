"""`snowmelt train-lm`: a language model of a transducer's tokens learns from text.

Every field of the model and training settings is an option of the same name with dashes; an option
that is not given keeps the preset's value.
"""

import argparse
from pathlib import Path
from typing import Any, Final

from snowmelt.cli.arguments import add_bool
from snowmelt.cli.config_fields import add_fields, field_defaults
from snowmelt.core.errors import ConfigError
from snowmelt.presets.language_models import (
    LM_PRESETS,
    LM_TYPES,
    LmTrainConfig,
    RnnLmConfig,
    TransformerLmConfig,
)

__all__ = ["add_parser", "run"]

_GROUPS: Final[dict[str, dict[str, Any]]] = {
    "model": field_defaults((RnnLmConfig, TransformerLmConfig), without=("lm_type",)),
    "train": field_defaults((LmTrainConfig,)),
}

_HELP: Final = {
    "embedding_dim": "width of the tokens' vectors (rnn)",
    "hidden_dim": "cells of each LSTM layer (rnn)",
    "num_layers": "layers",
    "encoder_dim": "width of the layers (transformer)",
    "nhead": "attention heads of a layer (transformer)",
    "dim_feedforward": "feed-forward width (transformer)",
    "context_len": "tokens that a layer sees, the present one included (transformer)",
    "tie_weights": "one table of tokens for input and output",
    "dropout": "dropout probability",
    "num_epochs": "last epoch, counted from 1",
    "base_lr": "base learning rate of Eden, of ScaledAdam",
    "lr_batches": "batch scale of Eden",
    "lr_epochs": "epoch scale of Eden",
    "lr_warmup_batches": "batches over which the learning rate rises to its full value",
    "clipping_scale": "gradients are clipped at this multiple of their median norm",
    "max_tokens": "tokens in a batch, padding included",
    "max_sent_len": "tokens; longer sentences are learnt in pieces",
    "seed": "seed of all random numbers",
    "save_every_n": "batches between checkpoint-N.pt files",
    "keep_last_k": "checkpoint-N.pt files kept",
    "log_interval": "batches between two log lines",
    "reset_interval": "batches after which a batch has lost most of its weight in tot_loss",
    "valid_interval": "batches between validations inside an epoch",
    "use_fp16": "compute the model in half precision on a GPU, with scaled gradients",
    "use_bf16": "compute the model in bfloat16 where that is safe",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "train-lm",
        help="train a language model of a transducer's tokens",
        description="Train an LSTM or transformer language model for the searches.",
    )
    group = parser.add_argument_group("run")
    group.add_argument("--lm-type", choices=LM_TYPES, default="rnn", help="(default: rnn)")
    group.add_argument(
        "--preset",
        choices=tuple(LM_PRESETS),
        default="lm-small",
        help="the sizes of the model (default: lm-small)",
    )
    group.add_argument(
        "--text",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="what to learn from: one sentence a line, plain or .gz",
    )
    group.add_argument(
        "--dev-text",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="what to validate on (default: one in fifty sentences of --text)",
    )
    vocabulary = group.add_mutually_exclusive_group()
    for flag, metavar, text in (
        ("--lang-dir", "DIR", "folder of the transducer's vocabulary, as <exp-dir>/lang"),
        ("--bpe-model", "FILE", "its SentencePiece model"),
        ("--tokens", "FILE", "its tokens.txt, with tokenizer.yaml or bpe.model beside it"),
    ):
        vocabulary.add_argument(
            flag, dest="vocabulary", type=Path, metavar=metavar, help=f"{text}; one of the three"
        )
    group.add_argument(
        "--exp-dir",
        type=Path,
        metavar="DIR",
        help="output folder (default: runs/<preset>-<lm-type>)",
    )
    group.add_argument(
        "--start-epoch", type=int, default=1, metavar="N", help="go on from epoch-(N-1).pt"
    )
    group.add_argument(
        "--start-batch", type=int, default=0, metavar="N", help="go on from checkpoint-N.pt"
    )
    group.add_argument(
        "--resume",
        choices=("auto", "no"),
        default="no",
        help="auto: go on from the newest checkpoint in exp-dir, if there is one (default: no)",
    )
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)"
    )
    add_bool(group, "--tensorboard", default=True, help="write TensorBoard events")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.KEY=VALUE",
        help="set a configuration value by its name in config.yaml",
    )
    group.add_argument(
        "--show-config", action="store_true", help="print the configuration and stop"
    )
    for name, defaults in _GROUPS.items():
        add_fields(parser.add_argument_group(name), defaults, _HELP)


def run(args: argparse.Namespace) -> int:
    """Train; the perplexities on the dev text go to standard output."""
    from snowmelt.core.config import dump_yaml, to_dict
    from snowmelt.train.lm_launch import lm_settings, start_lm_run

    config = lm_settings(
        preset=args.preset,
        lm_type=args.lm_type,
        overrides={
            group: {name: getattr(args, name) for name in defaults}
            for group, defaults in _GROUPS.items()
        },
        assignments=args.set,
    )
    if args.show_config:
        print(dump_yaml(to_dict(config)), end="")
        return 0
    if not args.text:
        raise ConfigError("there is no text to learn from", "name files with --text")
    if args.vocabulary is None:
        raise ConfigError(
            "a language model has the tokens of a transducer, but none is named",
            "name its folder with --lang-dir <exp-dir>/lang",
        )
    totals = start_lm_run(
        config,
        texts=args.text,
        dev_texts=args.dev_text,
        vocabulary=args.vocabulary,
        exp_dir=args.exp_dir or Path("runs") / f"{args.preset}-{args.lm_type}",
        device=args.device,
        tensorboard=args.tensorboard,
        resume=args.resume,
        start_epoch=args.start_epoch,
        start_batch=args.start_batch,
    )
    if totals.tokens:
        print(f"dev text: {totals}", flush=True)
    return 0
