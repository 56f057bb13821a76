"""What does sherpa-onnx make of our ONNX files and the same sound?

Invariant: it hears the samples and the tail that our recognizers hear, and computes its own
features; a window is decoded when one frame more than the window is there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from snowmelt.audio.tail import tail_samples
from snowmelt.runtime.backend import SpeechModel

__all__ = ["Foreign", "sherpa_results"]

_FRAME: Final = 160

_NUM_STREAMS: Final = 8


class Foreign(NamedTuple):
    """What it found.

    Attributes:
        text: words.
        timestamps: seconds of each token.
    """

    text: str
    timestamps: list[float]


def sherpa_results(
    files: Mapping[str, Path],
    tokens: Path,
    model: SpeechModel,
    sounds: Sequence[np.ndarray],
    decoding_method: str,
) -> list[Foreign]:
    """Results of sherpa-onnx in the order of the sounds.

    Args:
        files: "encoder", "decoder", "joiner" -> the file.
        tokens: tokens.txt.
        model: the same files in our hands, for the window and the tail.
        sounds: (num_samples,) float32 at 16 kHz.
        decoding_method: greedy_search or modified_beam_search (4 paths).
    """
    import sherpa_onnx

    recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
        tokens=str(tokens),
        **{part: str(path) for part, path in files.items()},
        num_threads=1,
        decoding_method=decoding_method,
        max_active_paths=4,
    )
    found = []
    for begin in range(0, len(sounds), _NUM_STREAMS):
        streams = [
            _stream(recognizer, model, sound) for sound in sounds[begin : begin + _NUM_STREAMS]
        ]
        while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
            recognizer.decode_streams(ready)
        found += [
            Foreign(recognizer.get_result(s).strip(), list(recognizer.timestamps(s)))
            for s in streams
        ]
    return found


def _stream(recognizer: Any, model: SpeechModel, sound: np.ndarray) -> Any:
    tail = tail_samples(
        len(sound),
        model.backend.decode_chunk_len,
        model.backend.front_end.window_overlap,
        min_tail_s=model.min_tail_s,
    )
    stream = recognizer.create_stream()
    silence = np.zeros(tail + _FRAME, np.float32)
    stream.accept_waveform(16000, np.concatenate([sound, silence]))
    stream.input_finished()
    return stream
