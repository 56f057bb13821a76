"""`snowmelt train`: options on top of a preset become one run.

Every field of the model, training and data settings is an option of the same name with dashes;
an option that is not given keeps the preset's value.
"""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from snowmelt.cli.arguments import add_bool, parse_bool
from snowmelt.presets.models import MODEL_PRESETS, ZipformerConfig
from snowmelt.presets.training import RECIPES, DataConfig, TrainConfig

__all__ = ["add_parser", "run"]

_GROUPS: Final = {"model": ZipformerConfig, "train": TrainConfig, "data": DataConfig}

_HELP: Final = {
    "num_encoder_layers": "layers of each stack",
    "feedforward_dims": "feed-forward width of each stack",
    "nhead": "attention heads of each stack",
    "encoder_dims": "width of each stack",
    "attention_dims": "query and key width of each stack, all heads; values have half of it",
    "encoder_unmasked_dims": "channels of each stack that training never masks",
    "zipformer_downsampling_factors": "time downsampling of each stack",
    "cnn_module_kernels": "convolution kernel of each stack, odd",
    "decoder_dim": "width of the decoder (prediction network)",
    "joiner_dim": "width of the joiner",
    "context_size": "tokens of history the decoder sees",
    "short_chunk_size": "random chunks in training are multiples of 8 below this, 20 ms frames",
    "num_left_chunks": "chunks of left context in attention",
    "decode_chunk_len": "chunk in validation and decoding, feature frames of 10 ms",
    "feature_dim": "mel bins",
    "dropout": "dropout probability",
    "num_epochs": "last epoch, counted from 1",
    "base_lr": "base learning rate of Eden",
    "lr_batches": "batch scale of Eden (times schedule-scale)",
    "lr_epochs": "epoch scale of Eden",
    "lr_warmup_batches": "batches over which the learning rate rises to its full value",
    "prune_range": "symbols per frame kept in the pruned loss",
    "lm_scale": "share of decoder-only scores in the simple loss",
    "am_scale": "share of encoder-only scores in the simple loss",
    "simple_loss_scale": "final weight of the simple loss",
    "warm_step": "batches until the losses have their final weights (times schedule-scale)",
    "clipping_scale": "gradients are clipped at this multiple of their median norm",
    "ctc_loss_scale": "weight of an auxiliary CTC loss; 0 has none",
    "frame_loss_scale": "weight of an auxiliary loss on the word spoken at each frame; 0 has none",
    "frame_loss_batches": "batches over which it fades (times schedule-scale); 0: never",
    "normalise_features": "start from weights that see normalised features",
    "schedule_scale": "factor on every schedule that counts batches, below 1 for short runs",
    "seed": "seed of all random numbers",
    "average_period": "batches between updates of the averaged model (times schedule-scale)",
    "save_every_n": "batches between checkpoint-N.pt files (times schedule-scale)",
    "keep_last_k": "checkpoint-N.pt files kept",
    "log_interval": "batches between two log lines",
    "reset_interval": "batches after which a batch has lost most of its weight in tot_loss",
    "use_bf16": "compute the model in bfloat16 where that is safe",
    "corpus": "corpus to learn from",
    "tokenizer": "words, chars or bpe",
    "vocab_size": "tokens of a bpe vocabulary",
    "max_duration": "seconds of audio in a batch, padding included",
    "num_buckets": "length classes from which batches are drawn",
    "min_utterance_s": "shorter utterances are left out",
    "max_utterance_s": "longer utterances are left out",
    "speed_perturb": "add copies at 0.9 and 1.1 times the speed",
    "enable_spec_aug": "mask features in time and frequency",
    "spec_aug_time_warp_factor": "frames by which time is warped; below 1 not at all",
    "max_tail_s": "up to this many seconds of digital silence follow an utterance in training",
    "num_workers": "threads that read data",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "train", help="train a model", description="Train a model from a preset."
    )
    run_group = parser.add_argument_group("run")
    run_group.add_argument(
        "--preset", default="digits", choices=sorted(RECIPES), help="recipe (default: digits)"
    )
    run_group.add_argument(
        "--model-preset", choices=sorted(MODEL_PRESETS), help="take the model from this preset"
    )
    run_group.add_argument(
        "--exp-dir", type=Path, help="output folder (default: runs/<preset>)", metavar="DIR"
    )
    run_group.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="prepared corpora (default: data)"
    )
    run_group.add_argument(
        "--start-epoch", type=int, default=1, metavar="N", help="go on from epoch-(N-1).pt"
    )
    run_group.add_argument(
        "--start-batch", type=int, default=0, metavar="N", help="go on from checkpoint-N.pt"
    )
    run_group.add_argument(
        "--resume",
        choices=("auto", "no"),
        default="no",
        help="auto: go on from the newest checkpoint in exp-dir, if there is one (default: no)",
    )
    run_group.add_argument(
        "--world-size",
        default="auto",
        help="processes that train together; auto: one a GPU, or one a CPU core (default: auto)",
    )
    run_group.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)"
    )
    add_bool(run_group, "--tensorboard", default=True, help="write TensorBoard events")
    run_group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.KEY=VALUE",
        help="set a configuration value by its name in config.yaml",
    )
    run_group.add_argument(
        "--show-config", action="store_true", help="print the configuration and stop"
    )
    for group_name, cls in _GROUPS.items():
        _add_fields(parser.add_argument_group(group_name), cls)


def _add_fields(group: argparse._ArgumentGroup, cls: type) -> None:
    for field in fields(cls):
        flag = "--" + field.name.replace("_", "-")
        text = _HELP[field.name].replace("%", "%%")
        default: Any = field.default
        if isinstance(default, bool):
            group.add_argument(
                flag, nargs="?", const=True, type=parse_bool, metavar="BOOL", help=text
            )
        elif isinstance(default, tuple):
            group.add_argument(flag, type=_int_tuple, metavar="N,N,…", help=text)
        else:
            metavar = {int: "N", float: "X"}.get(type(default), "NAME")
            group.add_argument(flag, type=type(default), metavar=metavar, help=text)


def _int_tuple(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of whole numbers; write 2,4,3,2,4"
        ) from None


def run(args: argparse.Namespace) -> int:
    """Train; exit code 0 when the last epoch is saved."""
    from snowmelt.train.launch import prepare_run, start_run

    overrides = {
        group: {f.name: getattr(args, f.name) for f in fields(cls)}
        for group, cls in _GROUPS.items()
    }
    plan = prepare_run(
        preset=args.preset,
        model_preset_name=args.model_preset,
        overrides=overrides,
        assignments=args.set,
        exp_dir=args.exp_dir or Path("runs") / args.preset,
        data_dir=args.data_dir,
        device=args.device,
        world_size=args.world_size,
        tensorboard=args.tensorboard,
        resume=args.resume,
        start_epoch=args.start_epoch,
        start_batch=args.start_batch,
    )
    if args.show_config:
        print(plan.config_text(), end="")
        return 0
    start_run(plan)
    return 0
