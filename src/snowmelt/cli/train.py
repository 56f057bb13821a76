"""`snowmelt train`: options on top of a preset become one run.

Every field of the model, training and data settings is an option of the same name with dashes;
an option that is not given keeps the preset's value.
"""

import argparse
from pathlib import Path
from typing import Final

from snowmelt.cli.arguments import add_bool, finite_float, natural_int
from snowmelt.cli.config_fields import add_field, field_defaults
from snowmelt.core.errors import ConfigError
from snowmelt.presets.data import DataConfig
from snowmelt.presets.models import LstmConfig, ZipformerConfig
from snowmelt.presets.recipes import preset_names
from snowmelt.presets.training import TrainConfig

__all__ = ["add_parser", "run"]

_GROUPS: Final = {
    "model": (ZipformerConfig, LstmConfig),
    "train": (TrainConfig,),
    "data": (DataConfig,),
}

# Settled by --preset, --corpus and --mix.
_NOT_FIELDS: Final = {"encoder", "corpus", "mix"}

_LISTS_OF_NAMES: Final = {"train_parts", "dev_parts", "test_parts"}

# The LSTM recipe's name of the same thing.
_ALIASES: Final = {"base_lr": "--initial-lr"}

_HELP: Final = {
    "num_encoder_layers": "layers, or layers of each stack (Zipformer)",
    "feedforward_dims": "feed-forward width of each stack",
    "nhead": "attention heads of each stack",
    "encoder_dims": "width of each stack",
    "attention_dims": "query and key width of each stack, all heads; values have half of it",
    "encoder_unmasked_dims": "channels of each stack that training never masks",
    "zipformer_downsampling_factors": "time downsampling of each stack",
    "cnn_module_kernels": "convolution kernel of each stack, odd",
    "encoder_dim": "width of the layers (LSTM)",
    "rnn_hidden_size": "cells of each layer (LSTM)",
    "dim_feedforward": "feed-forward width (LSTM)",
    "aux_layer_period": "every so many layers give an output to combine, 0: none (LSTM)",
    "layer_dropout": "probability that a layer is all but skipped (LSTM)",
    "grad_norm_threshold": "gradients of utterances above this multiple of the batch's median are "
    "damped (LSTM)",
    "decoder_dim": "width of the decoder (prediction network)",
    "joiner_dim": "width of the joiner",
    "context_size": "tokens of history the decoder sees",
    "short_chunk_size": "random chunks in training are multiples of 8 below this, 20 ms frames",
    "num_left_chunks": "chunks of left context in attention",
    "decode_chunk_len": "chunk in validation and decoding, feature frames of 10 ms",
    "feature_dim": "mel bins",
    "dropout": "dropout probability",
    "num_epochs": "last epoch, counted from 1",
    "optimizer": "scaled_adam or eve",
    "base_lr": "base learning rate of Eden",
    "lr_batches": "batch scale of Eden (times schedule-scale)",
    "lr_epochs": "epoch scale of Eden",
    "lr_warmup_batches": "batches over which the learning rate rises to its full value",
    "prune_range": "symbols per frame kept in the pruned loss",
    "lm_scale": "share of decoder-only scores in the simple loss",
    "am_scale": "share of encoder-only scores in the simple loss",
    "simple_loss_scale": "final weight of the simple loss",
    "loss_schedule": "linear: weights of the losses move over warm-step; stepped: the pruned loss "
    "waits for model-warm-step",
    "warm_step": "batches until the losses have their final weights in the linear schedule (times "
    "schedule-scale)",
    "model_warm_step": "batches of warm-up of the LSTM and of the stepped schedule (times "
    "schedule-scale)",
    "delay_penalty": "reward for every frame by which a token comes earlier",
    "delay_penalty_start": "batches before it begins (times schedule-scale)",
    "delay_penalty_ramp": "batches over which it rises to its full value (times schedule-scale)",
    "clipping_scale": "gradients are clipped at this multiple of their median norm (scaled_adam)",
    "ctc_loss_scale": "weight of an auxiliary CTC loss; 0 has none",
    "frame_loss_scale": "weight of an auxiliary loss on the word spoken at each frame; 0 has none",
    "context_dropout": "share of the tokens before that are hidden from the decoder in training",
    "frame_loss_batches": "batches over which it fades (times schedule-scale); 0: never",
    "normalise_features": "start from weights that see normalised features",
    "schedule_scale": "factor on every schedule that counts batches, below 1 for short runs",
    "seed": "seed of all random numbers",
    "average_period": "batches between updates of the averaged model (times schedule-scale)",
    "save_every_n": "batches between checkpoint-N.pt files (times schedule-scale)",
    "keep_last_k": "checkpoint-N.pt files kept",
    "log_interval": "batches between two log lines",
    "reset_interval": "batches after which a batch has lost most of its weight in tot_loss",
    "valid_interval": "batches between validations inside an epoch (times schedule-scale)",
    "target_duration": "seconds that one step learns from, in as many batches as it takes; 0: one "
    "batch of each process",
    "use_fp16": "compute the model in half precision on a GPU, with scaled gradients",
    "use_bf16": "compute the model in bfloat16 where that is safe",
    "tokenizer": "words, chars or bpe",
    "vocab_size": "tokens of a bpe vocabulary",
    "full_libri": "all 960 hours (and all of GigaSpeech in a mix), or train-clean-100 (and S)",
    "mini_libri": "train-clean-5 and dev-clean-2; with --full-libri 0",
    "train_parts": "parts to learn from, instead of the corpus's usual ones",
    "dev_parts": "parts to validate on",
    "test_parts": "test sets, for the commands that decode",
    "on_the_fly_feats": "compute features from the sound, or read stored ones (default: stored "
    "ones where the preparation has left them)",
    "max_duration": "seconds of audio in a batch, padding included",
    "bucketing_sampler": "draw a batch from utterances of similar length",
    "num_buckets": "length classes from which batches are drawn",
    "shuffle": "draw new batches in every epoch",
    "drop_last": "leave out an epoch's last batch where it is not full",
    "concatenate_cuts": "join utterances of a batch, so that less of it is padding",
    "duration_factor": "longest joined utterance, as a multiple of the longest of its batch",
    "gap": "seconds of silence between joined utterances",
    "min_utterance_s": "shorter utterances are left out",
    "max_utterance_s": "longer utterances are left out",
    "speed_perturb": "add copies at 0.9 and 1.1 times the speed",
    "enable_musan": "mix noise into half of the utterances",
    "musan_min_snr_db": "loudest noise, dB below the speech",
    "musan_max_snr_db": "faintest noise, dB below the speech",
    "enable_spec_aug": "mask features in time and frequency",
    "spec_aug_time_warp_factor": "frames by which time is warped; below 1 not at all",
    "spec_aug_num_frame_masks": "most masks over time in an utterance",
    "vtlp_warp": "stretch frequencies by a factor within 1 +- this: other voices",
    "filter_augment_db": "gains of a random filter lie within +- this: other microphones",
    "cut_edges": "share of the utterances that are cut right at their first and last sound",
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
        "--preset",
        default="digits",
        choices=sorted(preset_names()),
        help="a corpus with the model that suits it, or a model (default: digits)",
    )
    run_group.add_argument(
        "--corpus", metavar="NAME", help="learn from this corpus instead of the preset's"
    )
    mixed = run_group.add_mutually_exclusive_group()
    mixed.add_argument(
        "--mix",
        type=_shares,
        metavar="NAME=P,NAME=P,…",
        help="learn from several corpora at once, each batch from one of them; the first is the "
        "main one, whose batches make up an epoch",
    )
    mixed.add_argument(
        "--giga-prob",
        type=finite_float,
        metavar="P",
        help="the same as --mix librispeech=1-P,gigaspeech=P",
    )
    run_group.add_argument(
        "--bpe-model",
        type=Path,
        metavar="FILE",
        help="a SentencePiece model, or a folder with a vocabulary (default: that of prepare own "
        "--tokenizer, or made from the training transcripts)",
    )
    run_group.add_argument(
        "--exp-dir",
        type=Path,
        help="output folder (default: runs/<preset>, or runs/<corpus>-<preset>)",
        metavar="DIR",
    )
    run_group.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="prepared corpora (default: data)"
    )
    run_group.add_argument(
        "--manifest-dir",
        type=Path,
        default=Path("data/fbank"),
        help="manifests of LibriSpeech and GigaSpeech (default: data/fbank)",
    )
    run_group.add_argument(
        "--musan-dir",
        type=Path,
        help="noise for --enable-musan: a folder of sound files, or of their manifest "
        "(default: that of the manifests)",
    )
    run_group.add_argument(
        "--input-strategy",
        choices=("PrecomputedFeatures", "OnTheFlyFeatures", "AudioSamples"),
        help="PrecomputedFeatures: the same as --on-the-fly-feats 0; the others: as 1",
    )
    # The original's batches hold their cuts or not, and it reads GigaSpeech with workers of their
    # own: here they always know them, and --num-workers is for all.
    add_bool(run_group, "--return-cuts", default=True, help="accepted, without a meaning here")
    run_group.add_argument(
        "--on-the-fly-num-workers",
        type=natural_int,
        metavar="N",
        help="accepted, without a meaning here: see --num-workers",
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
        help="processes that train together; auto: one a GPU, or one a CPU core, which then share "
        "the --max-duration (default: auto)",
    )
    run_group.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)"
    )
    run_group.add_argument(
        "--max-restarts",
        type=natural_int,
        default=0,
        metavar="N",
        help="when a process dies, start all again from the newest checkpoint, at most N times "
        "(default: 0)",
    )
    run_group.add_argument(
        "--master-port",
        type=natural_int,
        default=0,
        metavar="N",
        help="port on which the processes meet; 0: a free one (default: 0)",
    )
    add_bool(
        run_group,
        "--audit",
        default=True,
        help="look at the corpora before training, listen to them when they are new, and refuse "
        "those on which it must not start",
    )
    add_bool(run_group, "--tensorboard", default=True, help="write TensorBoard events")
    add_bool(
        run_group,
        "--print-diagnostics",
        default=False,
        help="print statistics of the first batches' activations and gradients, and stop",
    )
    add_bool(
        run_group,
        "--inf-check",
        default=False,
        help="warn of the first module whose output or gradient is not finite",
    )
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
    for group_name, classes in _GROUPS.items():
        _add_fields(parser.add_argument_group(group_name), classes)


def _add_fields(group: argparse._ArgumentGroup, classes: tuple[type, ...]) -> None:
    for name, default in field_defaults(classes, without=_NOT_FIELDS).items():
        flags = ["--" + name.replace("_", "-"), *([_ALIASES[name]] if name in _ALIASES else [])]
        if name in _LISTS_OF_NAMES:
            group.add_argument(*flags, type=_names, metavar="NAME,NAME,…", help=_HELP[name])
        elif isinstance(default, tuple):
            group.add_argument(*flags, type=_int_tuple, metavar="N,N,…", help=_HELP[name])
        else:
            add_field(group, flags, default, _HELP[name])


def _int_tuple(text: str) -> tuple[int, ...] | int:
    """One number, or one for each stack."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of whole numbers; write 2,4,3,2,4"
        ) from None
    return numbers if len(numbers) > 1 else numbers[0]


def _names(text: str) -> tuple[str, ...]:
    """Names between commas or blanks."""
    return tuple(text.replace(",", " ").split())


def _shares(text: str) -> dict[str, float]:
    """`libri=0.5,giga=0.5` as name -> probability."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = part.strip().partition("=")
        if name in shares:
            raise argparse.ArgumentTypeError(f"{name} is named twice in {text!r}")
        if not equals or not name:
            raise argparse.ArgumentTypeError(f"{text!r} is no mix; write an4=0.5,digits=0.5")
        shares[name] = finite_float(share)
    return shares


def run(args: argparse.Namespace) -> int:
    """Train; exit code 0 when the last epoch is saved."""
    from snowmelt.core.config import dump_yaml, to_dict
    from snowmelt.core.log import setup_logging
    from snowmelt.prepare.workers import Workers
    from snowmelt.train.elastic import num_cores
    from snowmelt.train.launch import default_exp_dir, prepare_run, run_settings, start_run

    if args.bpe_model is not None and args.tokenizer is not None:
        raise ConfigError(
            f"--tokenizer {args.tokenizer} and --bpe-model both say how text is cut into tokens",
            hint="leave one of them out",
        )
    mix = args.mix
    if args.giga_prob is not None:
        if not 0.0 <= args.giga_prob < 1.0:
            raise ConfigError(
                f"--giga-prob {args.giga_prob:g} is not a probability below 1",
                hint="an epoch ends with LibriSpeech's batches, so some must be its own",
            )
        mix = {"librispeech": 1.0 - args.giga_prob, "gigaspeech": args.giga_prob}
    overrides = {
        group: {name: getattr(args, name) for name in field_defaults(classes, without=_NOT_FIELDS)}
        for group, classes in _GROUPS.items()
    }
    if args.input_strategy is not None and args.on_the_fly_feats is None:
        overrides["data"]["on_the_fly_feats"] = args.input_strategy != "PrecomputedFeatures"
    config = run_settings(
        preset=args.preset,
        corpus=args.corpus,
        mix=mix,
        overrides=overrides,
        assignments=args.set,
    )
    if args.show_config:
        print(dump_yaml(to_dict(config)), end="")
        return 0
    setup_logging()
    with Workers(num_cores()) as workers:
        plan = prepare_run(
            config,
            exp_dir=args.exp_dir or default_exp_dir(args.preset, config),
            data_dir=args.data_dir,
            manifest_dir=args.manifest_dir,
            musan_dir=args.musan_dir,
            bpe_model=args.bpe_model,
            device=args.device,
            world_size=args.world_size,
            tensorboard=args.tensorboard,
            inf_check=args.inf_check,
            print_diagnostics=args.print_diagnostics,
            resume=args.resume,
            start_epoch=args.start_epoch,
            start_batch=args.start_batch,
            takes_prepared_vocabulary=args.tokenizer is None and args.vocab_size is None,
            listen=workers.map if args.audit else None,
        )
    start_run(plan, max_restarts=args.max_restarts, master_port=args.master_port)
    return 0
