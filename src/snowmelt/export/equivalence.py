"""Do all forms of one model say the same of every frame? A table of their differences.

    eager       the trained model in torch
    scripted    cpu_jit.pt
    traced      the three traced files
    onnx        the three ONNX files, float32

each on whole utterances of any lengths in one padded batch, and in chunks, with streams that join
and leave. What the eager model gives for whole utterances is what all others are compared with.

Invariant: nothing is written; the padding holds other numbers than the utterances' own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from snowmelt.export.onnx import OnnxFiles, export_onnx
from snowmelt.export.torchscript import export_script, export_traced
from snowmelt.runtime.backend import Backend
from snowmelt.runtime.backends.onnx import OnnxBackend, OnnxModels
from snowmelt.runtime.backends.torch_eager import TorchBackend
from snowmelt.runtime.backends.torchscript import ScriptModels, scripted_backend, traced_backend
from snowmelt.runtime.load import LoadedTransducer
from snowmelt.search.scorer import FloatArray

__all__ = ["Difference", "differences", "forms_of", "onnx_backend"]

_NUM_STREAMS: Final = 8

# Loud sound, where silence would be usual: whoever looks behind an utterance's end shows it.
_PADDING: Final = 3.0


class Difference(NamedTuple):
    """One form against the eager model on whole utterances.

    Attributes:
        form: its name.
        how: "whole" or "chunks".
        largest: largest absolute difference of any frame and channel of the joiner's input.
        worst: index of the utterance that has it.
    """

    form: str
    how: str
    largest: float
    worst: int


def forms_of(loaded: LoadedTransducer) -> dict[str, Backend]:
    """All forms of a model, the eager one first; scales folded."""
    model, config, unk_id = loaded.model, loaded.config.model, loaded.tokenizer.unk_id
    chunk_len = config.decode_chunk_len
    files = export_onnx(model, config, min_tail_s=loaded.config.min_tail_s)
    traced = ScriptModels(*export_traced(model, config))
    return {
        "eager": TorchBackend(model, config, unk_id=unk_id),
        "scripted": scripted_backend(
            export_script(model), unk_id=unk_id, decode_chunk_len=chunk_len
        ),
        "traced": traced_backend(traced, unk_id=unk_id),
        "onnx": onnx_backend(files, unk_id),
    }


def onnx_backend(files: OnnxFiles, unk_id: int | None) -> OnnxBackend:
    """A backend over the contents of three files."""
    return OnnxBackend(OnnxModels(*files), unk_id=unk_id)


def differences(
    forms: Mapping[str, Backend], utterances: Sequence[FloatArray], decode_chunk_len: int
) -> list[Difference]:
    """The table.

    Args:
        forms: the first one gives what is right.
        utterances: features (T, F) float32 of whole windows: T is the window's overlap and a whole
            number of chunks, as the tail rule makes it.
        decode_chunk_len: feature frames in a chunk; an LSTM's backend may have another.
    """
    reference = next(iter(forms.values()))
    expected = _whole(reference, utterances)
    rows = []
    for name, backend in forms.items():
        for how, found in (
            ("whole", _whole(backend, utterances)),
            ("chunks", _in_chunks(backend, utterances, decode_chunk_len)),
        ):
            if backend is reference and how == "whole":
                continue
            by_utterance = [
                float(np.abs(ours - theirs).max())
                for ours, theirs in zip(expected, found, strict=True)
            ]
            worst = int(np.argmax(by_utterance))
            rows.append(Difference(name, how, by_utterance[worst], worst))
    return rows


def _whole(backend: Backend, utterances: Sequence[FloatArray]) -> list[FloatArray]:
    """(T', J) of each utterance; neighbours share a batch."""
    found: list[FloatArray] = []
    for begin in range(0, len(utterances), _NUM_STREAMS):
        batch = utterances[begin : begin + _NUM_STREAMS]
        lens = np.array([len(own) for own in batch], dtype=np.int64)
        shape = (len(batch), int(lens.max()), batch[0].shape[1])
        features = np.full(shape, _PADDING, dtype=np.float32)
        for row, own in zip(features, batch, strict=True):
            row[: len(own)] = own
        encoder_proj, out_lens = backend.encode_whole(features, lens)
        found += [row[:length] for row, length in zip(encoder_proj, out_lens, strict=True)]
    return found


def _in_chunks(
    backend: Backend, utterances: Sequence[FloatArray], decode_chunk_len: int
) -> list[FloatArray]:
    """The same; a stream joins when another has ended."""
    window = decode_chunk_len + backend.front_end.window_overlap
    found: list[list[FloatArray]] = [[] for _ in utterances]
    waiting = list(range(len(utterances)))
    live: dict[int, Any] = {}
    while waiting or live:
        while waiting and len(live) < _NUM_STREAMS:
            live[waiting.pop(0)] = backend.init_state()
        streams = list(live)
        begins = [sum(map(len, found[n])) * 4 for n in streams]  # a frame of 40 ms is 4 of 10 ms
        features = np.stack(
            [
                utterances[n][begin : begin + window]
                for n, begin in zip(streams, begins, strict=True)
            ]
        )
        lens = np.full(len(streams), window, dtype=np.int64)
        out, out_lens, states = backend.encode(features, lens, list(live.values()))
        for n, begin, row, length, state in zip(
            streams, begins, out, out_lens, states, strict=True
        ):
            found[n].append(row[:length])
            live[n] = state
            if begin + window + decode_chunk_len > len(utterances[n]):
                del live[n]
    return [np.concatenate(chunks) for chunks in found]
