"""How many hours of sound does a minute turn into filter banks? Ours, lhotse's, kaldi-native-fbank.

    python -m benchmarks.features [--seconds 12] [--rounds 9] [--num-threads 1]

The extractors take turns, each on one utterance after another; medians over the rounds. Where other
work runs on the machine, compare the seconds of the processor.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import kaldi_native_fbank as knf
import numpy as np
import torch
from lhotse import Fbank, FbankConfig

from snowmelt.audio.fbank import OnlineFbank, fbank

__all__ = ["benchmarks", "main"]

_SAMPLE_RATE = 16000
_CHUNK_FRAMES = 32


def benchmarks(seconds: int = 10) -> dict[str, Callable[[], object]]:
    """Name -> what is measured, on `seconds` of sound."""
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal(seconds * _SAMPLE_RATE).astype(np.float32)

    def online() -> None:
        stream = OnlineFbank()
        for piece in np.split(samples, 2 * seconds):
            stream.accept_waveform(piece)
            start, ready = stream.num_discarded, stream.num_frames_ready
            for chunk in range(start, ready - _CHUNK_FRAMES + 1, _CHUNK_FRAMES):
                stream.get_frames(chunk, chunk + _CHUNK_FRAMES)
                stream.discard(chunk + _CHUNK_FRAMES)

    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400

    def native() -> None:
        stream = knf.OnlineFbank(options)
        stream.accept_waveform(_SAMPLE_RATE, samples)
        stream.input_finished()
        np.stack([stream.get_frame(i) for i in range(stream.num_frames_ready)])

    lhotse = Fbank(FbankConfig(num_mel_bins=80))
    return {
        f"fbank, whole, {seconds} s": lambda: fbank(samples),
        f"fbank, pieces of 0.5 s, {seconds} s": online,
        f"fbank, lhotse, {seconds} s": lambda: lhotse.extract(samples, _SAMPLE_RATE),
        f"fbank, kaldi-native-fbank, {seconds} s": native,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=12, help="of an utterance (default: 12)")
    parser.add_argument("--rounds", type=int, default=9, help="(default: 9)")
    parser.add_argument("--num-threads", type=int, default=1, help="(default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    functions = benchmarks(args.seconds)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    num_utterances = 10
    for n in range(args.rounds + 1):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(num_utterances):
                function()
            spent = (time.perf_counter() - wall, time.process_time() - cpu)
            if n > 0:  # the first fills caches
                times[name].append(spent)
    hours = num_utterances * args.seconds / 3600
    print("| what | hours a minute | hours a minute of CPU | slowest, fastest (CPU) |")
    print("|---|---|---|---|")
    for name, spent_times in times.items():
        walls, cpus = zip(*spent_times, strict=True)
        rates = [60 * hours / cpu for cpu in cpus]
        print(
            f"| {name} | {60 * hours / statistics.median(walls):.1f} | "
            f"{statistics.median(rates):.1f} | {min(rates):.1f}, {max(rates):.1f} |"
        )


if __name__ == "__main__":
    main()
