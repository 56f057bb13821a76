"""How fast are ONNX files recognised here, and by sherpa-onnx? Prints tables; asserts nothing.

    python -m benchmarks.streaming --preset zipformer-small     random weights, no two layers equal
    python -m benchmarks.streaming --model FOLDER               files that `snowmelt export` wrote
    python -m benchmarks.streaming --start --model FOLDER       from the command to the first word

Both programs read the same files and the same samples, all of them at once, with greedy search and
one process each, and take turns (see `common.py`). "ratio CPU" above 1: faster than sherpa-onnx in
processor time. The wide program takes up to eight chunks of a stream where they are there already,
as `snowmelt transcribe` does with files; nobody waits for a second chunk.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import soundfile
import torch

from benchmarks import streaming_worker
from benchmarks.common import Peer, in_turn, print_table
from snowmelt.checkpoint.experiment import ExperimentConfig, save_experiment
from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.export.run import Forms, Source, export
from snowmelt.models.build import build_transducer
from snowmelt.presets.data import DataConfig
from snowmelt.presets.models import model_preset
from snowmelt.runtime.backends.onnx import find_onnx_files
from snowmelt.text.tokenizer import build_words, vocabulary_hash

_PROGRAMS = ("sherpa-onnx", "snowmelt", "snowmelt wide")

_VOCAB_SIZE = 500

# So much that about a fourth of the frames emits a token, as in speech.
_BLANK_BIAS = 2.0


def main() -> None:
    """Measure what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--preset", help="of a model with random weights")
    source.add_argument("--model", type=Path, metavar="FOLDER", help="three ONNX files and tokens")
    parser.add_argument(
        "--peer-model", type=Path, metavar="FOLDER", help="the same weights for sherpa-onnx"
    )
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep the preset's files here")
    parser.add_argument("--audio", type=Path, metavar="FOLDER", help="16 kHz (default: noise)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each stream (default: 6)")
    parser.add_argument("--precision", nargs="+", default=["float32", "int8"])
    parser.add_argument("--programs", nargs="+", choices=_PROGRAMS, default=list(_PROGRAMS))
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--num-threads", type=int, default=1, help="(default: 1)")
    parser.add_argument("--start", action="store_true", help="measure the time to the first word")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = args.model
        if folder is None:
            folder = args.save or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            random_model(args.preset, folder)
        if args.start:
            print_start(folder, args.rounds)
            return
        for precision in args.precision:
            encoder = encoder_of(folder, precision)
            for num_streams in args.streams:
                _compare(args, encoder, precision, num_streams)


def _compare(args: argparse.Namespace, encoder: Path, precision: str, num_streams: int) -> None:
    with ExitStack() as stack:
        peers = {}
        for program in args.programs:
            own = encoder
            if args.peer_model is not None and program == _PROGRAMS[0]:
                own = encoder_of(args.peer_model, precision)
            command = [sys.executable, streaming_worker.__file__, program, str(own)]
            command += [str(num_streams), str(args.seconds), str(args.num_threads)]
            command += [str(args.audio)] if args.audio else []
            peers[program] = stack.enter_context(Peer(command, args.num_threads))
        times = in_turn(peers, args.rounds, last_always=True)
        more = {}
        for name, peer in peers.items():
            facts = peer.ask("facts")
            rtf = statistics.median(times[name].processor) / 1000 / facts["audio_s"]
            more[name] = {"RTF (CPU)": f"{rtf:.4f}", "tokens": f"{facts['tokens']:.0f}"}
        title = f"{encoder.name}, {precision}, {num_streams} streams of {args.seconds:g} s"
        print_table(title, times, more)


def encoder_of(folder: Path, precision: str) -> Path:
    """The encoder's file in this precision."""
    if precision == "float32":
        files = find_onnx_files(folder)
        assert isinstance(files.encoder, Path), files
        return files.encoder
    return next(iter(sorted(folder.glob(f"encoder*.{precision}.onnx"))))


def random_model(preset: str, folder: Path) -> None:
    """Export a model with random weights. Noise everywhere: equal layers would be merged."""
    torch.manual_seed(0)
    words = [f"W{n}" for n in range(_VOCAB_SIZE - 3)]
    tokenizer = build_words(words)
    model = build_transducer(model_preset(preset), tokenizer.vocab_size)
    weights = model.state_dict()
    for value in weights.values():
        if value.is_floating_point():
            value += 0.02 * torch.randn(value.shape)
    weights["joiner.output_linear.bias"][0] += _BLANK_BIAS
    with tempfile.TemporaryDirectory() as exp_dir:
        config = ExperimentConfig(
            model=model_preset(preset),
            data=DataConfig(corpus="digits", tokenizer="words"),
            vocabulary_hash=vocabulary_hash(tokenizer),
        )
        save_experiment(Path(exp_dir), config, tokenizer)
        save_checkpoint(Path(exp_dir) / "pretrained.pt", {"model": weights})
        for written in export(Source(Path(exp_dir)), Forms(onnx=True, int8=True), folder):
            print(written.remark, flush=True)


_SAME_IMPORTS = """
import sys
sys.modules["torch"] = None
import snowmelt.runtime.load, snowmelt.cli.transcribe, snowmelt.audio.read, soundfile, soxr, numpy
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
for path in sys.argv[1:]:
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
print("ready", flush=True)
"""


def print_start(folder: Path, rounds: int) -> None:
    """Seconds from the command to the first partial word, and of a Python that only loads."""
    files = find_onnx_files(folder)
    three = [str(path) for path in (files.encoder, files.decoder, files.joiner)]
    with tempfile.TemporaryDirectory() as temporary:
        sound = Path(temporary) / "sound.wav"
        soundfile.write(sound, streaming_worker.noise(3.0, 0), 16000)
        live = [sys.executable, "-m", "snowmelt", "transcribe", "--live", "--model", str(folder)]
        first, load = [], []
        for _ in range(rounds):
            first.append(_until_output([*live, str(sound)]))
            load.append(_until_output([sys.executable, "-c", _SAME_IMPORTS, *three]))
    own, least = statistics.median(first), statistics.median(load)
    print(f"first word after {own:.2f} s, loading alone {least:.2f} s: {own / least:.2f} times")


def _until_output(command: list[str]) -> float:
    """Seconds until a process has printed something that is not white space, or has ended."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        while (byte := process.stdout.read(1)) and byte.isspace():
            pass
        seconds = time.perf_counter() - start
        process.stdout.read()
    return seconds


if __name__ == "__main__":
    main()
