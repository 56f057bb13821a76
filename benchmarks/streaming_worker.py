"""One program that recognises streams, one repetition whenever a line arrives; by `streaming.py`.

    streaming_worker.py PROGRAM ENCODER NUM_STREAMS SECONDS NUM_THREADS [AUDIO]

It answers every line with a line of JSON. `run`: wall_ms, processor_ms of one repetition, from new
streams to the last word; `facts`: seconds of sound, tokens found; anything else: nothing.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_RATE = 16000


def main() -> None:
    """Answer lines until there are no more."""
    program, encoder, num_streams, seconds, num_threads, *audio = sys.argv[1:]
    sounds = _sounds(int(num_streams), float(seconds), Path(audio[0]) if audio else None)
    make = _sherpa if program == "sherpa-onnx" else _snowmelt
    step = make(Path(encoder), sounds, int(num_threads), 8 if "wide" in program else 1)
    num_tokens = 0
    for line in sys.stdin:
        answer: dict[str, float] = {}
        if line.strip() == "run":
            wall, processor = time.perf_counter(), time.process_time()
            num_tokens = step()
            answer["wall_ms"] = 1000 * (time.perf_counter() - wall)
            answer["processor_ms"] = 1000 * (time.process_time() - processor)
        elif line.strip() == "facts":
            total = sum(len(sound) for sound in sounds) / _RATE
            answer = {"audio_s": total, "tokens": num_tokens}
        print(json.dumps(answer), flush=True)


def noise(seconds: float, seed: int) -> Any:
    """Noise that swells and fades."""
    rng = np.random.default_rng(seed)
    swell = np.sin(np.linspace(0, 7 * seconds, round(_RATE * seconds))) ** 2
    return (swell * rng.normal(0, 0.1, len(swell))).astype(np.float32)


def _sounds(num_streams: int, seconds: float, folder: Path | None) -> list[Any]:
    if folder is None:
        return [noise(seconds, seed) for seed in range(num_streams)]
    import soundfile

    files = sorted(folder.rglob("*.wav")) + sorted(folder.rglob("*.flac"))
    samples = np.concatenate([soundfile.read(f, dtype="float32")[0] for f in files[:200]])
    length = round(seconds * _RATE)
    return [np.roll(samples, -n * length)[:length] for n in range(num_streams)]


def _parts(encoder: Path) -> dict[str, str]:
    rest = encoder.name.removeprefix("encoder")
    return {part: str(encoder.with_name(part + rest)) for part in ("encoder", "decoder", "joiner")}


def _sherpa(encoder: Path, sounds: list[Any], num_threads: int, _: int) -> Callable[[], int]:
    import sherpa_onnx

    recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
        tokens=str(encoder.with_name("tokens.txt")),
        **_parts(encoder),
        num_threads=num_threads,
        decoding_method="greedy_search",
    )
    # What `audio.tail` appends, and the one frame more that it waits for.
    tail = np.zeros(round(0.8 * _RATE), np.float32)

    def step() -> int:
        streams = [recognizer.create_stream() for _ in sounds]
        for stream, sound in zip(streams, sounds, strict=True):
            stream.accept_waveform(_RATE, sound)
            stream.accept_waveform(_RATE, tail)
            stream.input_finished()
        while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
            recognizer.decode_streams(ready)
        return sum(len(recognizer.tokens(stream)) for stream in streams)

    return step


def _snowmelt(
    encoder: Path, sounds: list[Any], num_threads: int, max_chunks: int
) -> Callable[[], int]:
    from snowmelt.runtime.load import load_model
    from snowmelt.runtime.recognizer import OnlineRecognizer

    model = load_model(encoder, num_threads=num_threads)
    recognizer = OnlineRecognizer(model, max_chunks=max_chunks)
    tail = np.zeros(round(0.8 * _RATE), np.float32)

    def step() -> int:
        streams = [recognizer.create_stream() for _ in sounds]
        for stream, sound in zip(streams, sounds, strict=True):
            stream.accept_waveform(_RATE, sound)
            stream.accept_waveform(_RATE, tail)
        # No end: the same frames as sherpa-onnx, without a tail of our own.
        while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
            recognizer.decode_streams(ready)
        return sum(len(stream.search_state.tokens) for stream in streams)

    return step


if __name__ == "__main__":
    main()
