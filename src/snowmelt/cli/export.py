"""`snowmelt export`: a trained model becomes files for other runtimes.

Options keep the names of icefall's export.py, export-onnx.py and jit_trace_export.py.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from snowmelt.cli.arguments import add_bool, finite_float
from snowmelt.cli.recognition_options import add_weights_options, weights_choice
from snowmelt.core.errors import ConfigError

if TYPE_CHECKING:
    from snowmelt.export.bundle import BundleOptions
    from snowmelt.export.run import GateOptions

__all__ = ["add_parser", "run"]

_DONE: Final = 0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "export",
        help="files for other runtimes",
        description="Write a trained model for other runtimes; without a form its averaged weights "
        "as pretrained.pt. Every form is compared with the model before it gets its name.",
    )
    parser.add_argument(
        "--exp-dir", type=Path, required=True, metavar="DIR", help="folder of the experiment"
    )
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="where to write (default: --exp-dir)"
    )
    vocabulary = parser.add_mutually_exclusive_group()
    for flag in ("--tokens", "--bpe-model"):
        vocabulary.add_argument(
            flag,
            type=Path,
            dest="vocabulary",
            metavar="FILE",
            help="checked against the experiment's own vocabulary, which is used",
        )
    group = parser.add_argument_group("weights")
    add_weights_options(group)
    group = parser.add_argument_group("forms")
    add_bool(group, "--jit", default=False, help="cpu_jit.pt: one scripted model")
    add_bool(
        group, "--jit-trace", default=False, help="three traced files: {encoder,…}_jit_trace.pt"
    )
    add_bool(group, "--onnx", default=False, help="encoder, decoder and joiner for sherpa-onnx")
    add_bool(group, "--fp16", default=False, help="with --onnx: half-precision files too")
    add_bool(group, "--int8", default=False, help="with --onnx: quantised files too")
    _add_gate_options(parser)
    _add_bundle_options(parser)


def _add_gate_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "gate of --int8",
        "Layers whose rounding does most harm stay float32 until the word error rate is within the "
        "gate; if half of the weights are not enough, no quantised file is written.",
    )
    group.add_argument(
        "--gate-cuts",
        metavar="CUTS",
        help="what quantised files must recognise: dev, test or train of the corpus, or a manifest "
        "of cuts (.jsonl.gz); not given: they are not tested",
    )
    group.add_argument(
        "--max-wer-increase",
        type=finite_float,
        metavar="X",
        help="points of word error rate that they may lose against float32 (default: 0.5)",
    )
    group.add_argument("--corpus", metavar="NAME", help="(default: the one trained on)")
    group.add_argument(
        "--data-dir",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="prepared corpora (default: data)",
    )
    group.add_argument(
        "--manifest-dir",
        type=Path,
        default=Path("data/fbank"),
        metavar="DIR",
        help="manifests of corpora that are prepared elsewhere (default: data/fbank)",
    )


def _gate(args: argparse.Namespace) -> "GateOptions | None":
    """The gate that the options describe.

    Raises:
        ConfigError: how much may be lost is given, but not on what.
    """
    from snowmelt.export.gate_set import GateCuts
    from snowmelt.export.run import GateOptions

    if args.gate_cuts is None:
        if args.max_wer_increase is not None:
            raise ConfigError("--max-wer-increase needs words to count", "add --gate-cuts dev")
        return None
    source = GateCuts(args.gate_cuts, args.corpus, args.data_dir, args.manifest_dir)
    if args.max_wer_increase is None:
        return GateOptions(source)
    return GateOptions(source, args.max_wer_increase)


def _add_bundle_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("bundle")
    group.add_argument(
        "--bundle",
        type=Path,
        metavar="PATH",
        help="one model that describes itself: a new folder, or one file NAME.snowmelt",
    )
    group.add_argument(
        "--bundle-weights",
        choices=("both", "safetensors", "onnx"),
        default="both",
        help="safetensors for torch, ONNX files for everything else (default: both)",
    )
    group.add_argument(
        "--decoding-method",
        choices=("greedy_search", "beam_search", "modified_beam_search", "fast_beam_search"),
        default="greedy_search",
        help="how the bundle recognises where nothing else is asked for (default: greedy_search)",
    )
    group.add_argument(
        "--blank-penalty",
        type=finite_float,
        default=0.0,
        metavar="X",
        help="of the bundle where nothing else is asked for (default: 0)",
    )
    group.add_argument(
        "--license", metavar="NAME", help="of the weights, as in CC-BY-4.0 (default: not stated)"
    )


def _bundle_options(args: argparse.Namespace) -> "BundleOptions | None":
    """What the bundle's options ask for; None without --bundle.

    Raises:
        ConfigError: they are given without --bundle.
    """
    from snowmelt.export.bundle import BundleOptions
    from snowmelt.runtime.bundle import DecodingDefaults

    decoding = DecodingDefaults(args.decoding_method, args.blank_penalty)
    if args.bundle is not None:
        return BundleOptions(args.bundle, args.bundle_weights, decoding, args.license)
    if (args.bundle_weights, decoding, args.license) != ("both", DecodingDefaults(), None):
        raise ConfigError(
            "--bundle-weights, --decoding-method, --blank-penalty and --license are of bundles",
            "add --bundle PATH",
        )
    return None


def run(args: argparse.Namespace) -> int:
    """Write all forms that were asked for."""
    from snowmelt.export.run import Forms, Source, export
    from snowmelt.runtime.load import WeightsChoice
    from snowmelt.text.tokenizer import load_tokenizer

    bundle = _bundle_options(args)
    chosen = weights_choice(args)
    source = Source(
        exp_dir=args.exp_dir,
        weights=None if chosen == WeightsChoice() else chosen,
        head=args.head,
        decode_chunk_len=args.decode_chunk_len,
        tokenizer=None if args.vocabulary is None else load_tokenizer(args.vocabulary),
    )
    forms = Forms(
        args.jit, args.jit_trace, args.onnx, args.fp16, args.int8, gate=_gate(args), bundle=bundle
    )
    for written in export(source, forms, args.output_dir):
        for path in written.files:
            print(path)
        print(f"  {written.remark}")
    return _DONE
