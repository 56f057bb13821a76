"""How do three ONNX files serve as a backend? Through ONNX Runtime; torch is not needed.

The files are those that sherpa-onnx runs: an encoder that advances all streams of a batch by one
chunk, with its states as further inputs and outputs; a prediction network; a joiner. Names, order
and meaning of inputs are read from the files.

Invariant: torch is never imported. A state is a list of arrays whose stream axis is the one axis
without a fixed size; zeros are a fresh stream.

Source: sherpa-onnx's contract for streaming transducers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import CheckpointError, MissingExtraError
from snowmelt.core.files import require_file
from snowmelt.presets.frames import (
    LSTM_FRONT_END,
    ZIPFORMER_FRONT_END,
    FrontEnd,
    num_encoder_frames,
)
from snowmelt.search.scorer import FloatArray, IntArray

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OnnxBackend", "OnnxModels", "OnnxScorer", "OnnxSession", "find_onnx_files"]

_FRONT_ENDS: Final = {"zipformer": ZIPFORMER_FRONT_END, "lstm": LSTM_FRONT_END}

# Characters; it may go on about whole graphs.
_MOST_OF_A_REASON: Final = 200

_NUMPY_TYPES: Final[dict[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True)
class OnnxModels:
    """The three models, each a file or the bytes of one."""

    encoder: Path | bytes
    decoder: Path | bytes
    joiner: Path | bytes


def find_onnx_files(path: Path) -> OnnxModels:
    """The three files that belong together.

    Args:
        path: an encoder's file, whose name begins with "encoder"; or a folder with one. Of several
            in a folder, one in full precision goes before those that are quantised.

    Raises:
        CheckpointError: a file is missing, or nothing says which is meant.
    """
    if path.is_dir():
        found = sorted(path.glob("encoder*.onnx"))
        full = [f for f in found if not f.name.endswith((".int8.onnx", ".fp16.onnx"))]
        candidates = full or found
        if not candidates:
            raise CheckpointError(f"{path} has no encoder*.onnx", "snowmelt export --onnx 1")
        if len(candidates) > 1:
            names = ", ".join(f.name for f in candidates)
            raise CheckpointError(f"{path} has several encoders: {names}", "name the file")
        path = candidates[0]
    if not path.name.startswith("encoder"):
        raise CheckpointError(
            f"{path} is not an encoder's file: its name must begin with 'encoder'",
            "name the encoder; decoder and joiner of the same name are found beside it",
        )
    rest = path.name.removeprefix("encoder")
    decoder, joiner = path.with_name(f"decoder{rest}"), path.with_name(f"joiner{rest}")
    for what, file in (("encoder", path), ("decoder", decoder), ("joiner", joiner)):
        require_file(file, f"{what} model", error=CheckpointError)
    return OnnxModels(path, decoder, joiner)


class OnnxScorer:
    """Prediction network and joiner; see `search.scorer.Scorer`.

    Args:
        decoder, joiner: their sessions.
        unk_id: id that is never emitted; None if there is none.
    """

    def __init__(self, decoder: "OnnxSession", joiner: "OnnxSession", unk_id: int | None) -> None:
        self._decoder = decoder
        self._joiner = joiner
        self.context_size = decoder.number("context_size")
        self.vocab_size = decoder.number("vocab_size")
        self.vocabulary_hash = decoder.metadata.get("vocabulary_hash", "")
        self.blank_id = 0
        self.unk_id = unk_id

    def decode(self, contexts: IntArray) -> FloatArray:
        """(M, context_size) int64 -> (M, J) float32."""
        decoder_proj: FloatArray = self._decoder.run([contexts])[0]
        return decoder_proj

    def join(self, encoder_proj: FloatArray, decoder_proj: FloatArray) -> FloatArray:
        """(M, J) and (M, J) float32 -> (M, V) float32 logits."""
        logits: FloatArray = self._joiner.run([encoder_proj, decoder_proj])[0]
        return logits


class _Row(NamedTuple):
    """One stream's encoder state: a row of the states of the batch it was last decoded in."""

    batch: list[npt.NDArray[Any]]
    row: int


class OnnxBackend:
    """A streaming transducer in ONNX Runtime; see `runtime.backend.Backend`.

    Args:
        models: the three models.
        unk_id: id that is never emitted.
        num_threads: CPU threads of one calculation.

    Raises:
        CheckpointError: a file is no model of this kind; the message says what it lacks.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, models: OnnxModels, *, unk_id: int | None, num_threads: int = 1) -> None:
        self._encoder = OnnxSession(models.encoder, "encoder", num_threads)
        model_type = self._encoder.metadata.get("model_type", "")
        if model_type not in _FRONT_ENDS:
            raise CheckpointError(
                f"{self._encoder.name} is a model of type {model_type!r}",
                f"known are {', '.join(_FRONT_ENDS)}",
            )
        self.front_end: FrontEnd = _FRONT_ENDS[model_type]
        self.decode_chunk_len = self._encoder.number("decode_chunk_len")
        self._window = self._encoder.number("T")
        if self._window != self.decode_chunk_len + self.front_end.window_overlap:
            raise CheckpointError(
                f"{self._encoder.name} reads windows of {self._window} frames for chunks of "
                f"{self.decode_chunk_len}, which does not fit a {model_type}",
                "export the model again",
            )
        _require_size(self._encoder, self._encoder.inputs, 1, "T", self._window)
        inputs = self._encoder.inputs[1:]
        self._axes = [_stream_axis(i, self._encoder.name) for i in inputs]
        self._fresh = [_zeros(i, axis) for i, axis in zip(inputs, self._axes, strict=True)]
        self.num_features = int(self._encoder.inputs[0].shape[2])
        decoder = OnnxSession(models.decoder, "decoder", num_threads)
        joiner = OnnxSession(models.joiner, "joiner", num_threads)
        self.joiner_dim = _common_width(self._encoder, decoder, joiner)
        self.scorer = scorer = OnnxScorer(decoder, joiner, unk_id)
        _require_size(decoder, decoder.inputs, 1, "context_size", scorer.context_size)
        _require_size(joiner, joiner.outputs, 1, "vocab_size", scorer.vocab_size)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the encoder's file says of itself."""
        return self._encoder.metadata

    def init_state(self) -> _Row:
        """State of a stream that has heard nothing."""
        return _Row(self._fresh, 0)

    def encode(
        self, features: FloatArray, feature_lens: IntArray, states: Sequence[_Row]
    ) -> tuple[FloatArray, IntArray, list[_Row]]:
        """Advance N streams by one window each; see `Backend.encode`.

        Raises:
            ValueError: a window is not whole.
        """
        num_chunks, rest = divmod(
            features.shape[1] - self.front_end.window_overlap, self.decode_chunk_len
        )
        if rest or num_chunks < 1 or (feature_lens != features.shape[1]).any():
            raise ValueError(
                f"an ONNX encoder takes whole windows of {self._window} frames, got "
                f"{features.shape[1]} with lengths {feature_lens.tolist()}"
            )
        batch = self._gathered(states)
        outputs = []
        for c in range(num_chunks):
            out, batch = self._step(features, c, batch)
            outputs.append(out)
        encoder_proj = outputs[0] if num_chunks == 1 else np.concatenate(outputs, axis=1)
        lens = np.full(len(states), encoder_proj.shape[1], dtype=np.int64)
        return encoder_proj, lens, [_Row(batch, n) for n in range(len(states))]

    def encode_whole(
        self, features: FloatArray, feature_lens: IntArray
    ) -> tuple[FloatArray, IntArray]:
        """Encode whole utterances, chunk by chunk; see `Backend.encode_whole`.

        Raises:
            ValueError: a length is no whole number of windows, which the tail rule makes it.
        """
        overlap, chunk_len = self.front_end.window_overlap, self.decode_chunk_len
        num_chunks, rest = np.divmod(feature_lens - overlap, chunk_len)
        if rest.any() or (num_chunks < 1).any():
            raise ValueError(
                f"utterances must have {overlap} + k * {chunk_len} frames, got "
                f"{feature_lens.tolist()}"
            )
        per_chunk = num_encoder_frames(self._window)
        rows = np.arange(len(feature_lens))
        batch = self._gathered([self.init_state()] * len(rows))
        outputs: list[list[FloatArray]] = [[] for _ in rows]
        for c in range(int(num_chunks.max())):
            going_on = np.flatnonzero(num_chunks[rows] > c)
            if len(going_on) < len(rows):
                batch, rows = self._selected(batch, going_on), rows[going_on]
            out, batch = self._step(features[rows], c, batch)
            for row, own in zip(rows, out, strict=True):
                outputs[row].append(own)
        lens = num_chunks * per_chunk
        joiner_dim = outputs[0][0].shape[-1]
        encoder_proj = np.zeros((len(lens), int(lens.max()), joiner_dim), dtype=np.float32)
        for target, chunks in zip(encoder_proj, outputs, strict=True):
            whole = np.concatenate(chunks)
            target[: len(whole)] = whole
        return encoder_proj, lens.astype(np.int64)

    def _step(
        self, features: FloatArray, chunk: int, batch: list[npt.NDArray[Any]]
    ) -> tuple[FloatArray, list[npt.NDArray[Any]]]:
        begin = chunk * self.decode_chunk_len
        out, *new_batch = self._encoder.run([features[:, begin : begin + self._window], *batch])
        return out, new_batch

    def _gathered(self, states: Sequence[_Row]) -> list[npt.NDArray[Any]]:
        """One batch with the rows of `states`, in their order; without a copy if it is one."""
        batch = states[0].batch
        rows = [state.row for state in states]
        if all(state.batch is batch for state in states):
            is_whole = rows == list(range(batch[0].shape[self._axes[0]]))
            return batch if is_whole else self._selected(batch, np.array(rows))
        parts = [self._selected(state.batch, np.array([state.row])) for state in states]
        return [
            np.concatenate(arrays, axis=axis)
            for axis, *arrays in zip(self._axes, *parts, strict=True)
        ]

    def _selected(
        self, batch: list[npt.NDArray[Any]], rows: npt.NDArray[np.intp]
    ) -> list[npt.NDArray[Any]]:
        return [x.take(rows, axis=axis) for x, axis in zip(batch, self._axes, strict=True)]


class OnnxSession:
    """One file in ONNX Runtime: arrays in and out by position, and its metadata.

    Args:
        model: the file, or its content.
        what: which part it is, for messages.
        num_threads: CPU threads of one calculation.

    Raises:
        CheckpointError: ONNX Runtime cannot load it.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, model: Path | bytes, what: str, num_threads: int = 1) -> None:
        self.name = f"the {what}" if isinstance(model, bytes) else str(model)
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what is wrong comes as an exception
        try:
            self._session = runtime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
                # Trying the same once more would only print.
                enable_fallback=0,
            )
            self.inputs = self._session.get_inputs()
            self.outputs = self._session.get_outputs()
            self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # its exceptions have no common base
            raise CheckpointError(
                f"{self.name} is no model that ONNX Runtime can load: {_reason(error)}",
                "export or download it again",
            ) from error
        self._input_names = [i.name for i in self.inputs]

    def number(self, key: str) -> int:
        """A number that the file's metadata must hold."""
        value = self.metadata.get(key, "")
        if not value.isascii() or not value.isdigit():
            raise CheckpointError(
                f"{self.name} says {key} is {value!r}" if value else f"{self.name} has no '{key}'",
                "it must be a number in the file's metadata; export the model again",
            )
        return int(value)

    def run(self, arrays: Sequence[npt.NDArray[Any]]) -> list[Any]:
        """All outputs, in their order.

        Raises:
            CheckpointError: the graph does not take these arrays, or is damaged.
        """
        try:
            outputs: list[Any] = self._session.run(
                None, dict(zip(self._input_names, arrays, strict=True))
            )
        except Exception as error:
            raise CheckpointError(
                f"{self.name} cannot compute: {_reason(error)}", "snowmelt doctor says more"
            ) from error
        return outputs


def _common_width(encoder: OnnxSession, decoder: OnnxSession, joiner: OnnxSession) -> int:
    """The joiner's width; encoder and prediction network must give vectors of it."""
    shapes = {
        encoder: [encoder.outputs[0].shape],
        decoder: [decoder.outputs[0].shape],
        joiner: [i.shape for i in joiner.inputs],
    }
    if len(decoder.inputs) != 1 or len(joiner.inputs) != 2:
        wrong, part = (decoder, "decoder") if len(decoder.inputs) != 1 else (joiner, "joiner")
        raise CheckpointError(
            f"{wrong.name} has {len(wrong.inputs)} inputs: it is no {part}",
            "take the three files of one export, each by its own option",
        )
    width = joiner.inputs[0].shape[-1]
    for session, own in shapes.items():
        for shape in own:
            if not isinstance(width, int) or not shape or shape[-1] != width:
                raise CheckpointError(
                    f"{session.name} has vectors of shape {shape}, {joiner.name} takes {width}",
                    "take the three files of one export",
                )
    if joiner.outputs[0].shape[-1] != decoder.number("vocab_size"):
        raise CheckpointError(
            f"{joiner.name} scores {joiner.outputs[0].shape[-1]} tokens, {decoder.name} knows "
            f"{decoder.number('vocab_size')}",
            "take the three files of one export",
        )
    return int(width)


def _require_size(
    session: OnnxSession, nodes: "Sequence[onnxruntime.NodeArg]", axis: int, key: str, value: int
) -> None:
    """Compare what the metadata say with the graph; a size that is not fixed is not compared."""
    shape = nodes[0].shape if nodes else []
    size = shape[axis] if len(shape) > axis else None
    if size is None or (isinstance(size, int) and size != value):
        raise CheckpointError(
            f"{session.name} has {size}, its set of files says {key} is {value}",
            "take all three files from one export",
        )


def _stream_axis(node: "onnxruntime.NodeArg", name: str) -> int:
    free = [axis for axis, size in enumerate(node.shape) if not isinstance(size, int)]
    if len(free) != 1 or node.type not in _NUMPY_TYPES:
        raise CheckpointError(
            f"{name} has a state '{node.name}' of type {node.type} and shape {node.shape}",
            "exactly one axis, that of the streams, must have no fixed size",
        )
    return free[0]


def _zeros(node: "onnxruntime.NodeArg", axis: int) -> npt.NDArray[Any]:
    shape = [1 if a == axis else size for a, size in enumerate(node.shape)]
    return np.zeros(shape, dtype=_NUMPY_TYPES[node.type])


def _reason(error: Exception) -> str:
    """What ONNX Runtime says, without its places in C++ and its repetitions."""
    text = str(error).rpartition(" failed:")[2]
    return re.sub(r"\S+\.(?:cc|h):\d+ [^()]*\(.*?\) ", "", text)[:_MOST_OF_A_REASON].strip()


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("ONNX models need onnxruntime", "pip install onnxruntime") from None
    return onnxruntime
