"""How do TorchScript files serve as a backend? Adapted to the shape of an eager model.

    cpu_jit.pt                                        one scripted model
    encoder_jit_trace.pt, decoder_…, joiner_…         three traced ones

Both have icefall's signatures, so its own exports run too. Its Zipformer does not mask what a
stream has not heard yet; what it says is then what the original says.

Invariant: everything but the shape of states and calls is `TorchBackend`.
"""

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from snowmelt.checkpoint.files import require_intact
from snowmelt.checkpoint.icefall import model_config_of
from snowmelt.core.errors import CheckpointError
from snowmelt.core.files import require_file
from snowmelt.models.zipformer.flat_state import STATE_BATCH_AXES
from snowmelt.presets.frames import LSTM_FRONT_END, ZIPFORMER_FRONT_END, FrontEnd
from snowmelt.runtime.backends.torch_eager import TorchBackend
from snowmelt.runtime.dimensions import Dimensions, dimensions_of

__all__ = [
    "SCRIPT_FACTS",
    "ScriptBackend",
    "ScriptModels",
    "load_script",
    "script_facts",
    "scripted_backend",
    "traced_backend",
]

# Name of the extra file that our exports hold: vocabulary_hash, min_tail_s, sample_rate as JSON.
SCRIPT_FACTS: Final = "snowmelt.json"

# An LSTM takes windows of any length; this one is quick and waits for 320 ms of sound.
_LSTM_CHUNK_LEN: Final = 32

_EXPORT_HINT: Final = "pass a file that export --jit or --jit-trace has written"


# What tells the parts of a traced model from one another.
_TRACED_PARTS: Final = {
    "encoder": ("encoder_embed",),
    "decoder": ("embedding",),
    "joiner": ("encoder_proj", "decoder_proj", "output_linear"),
}


class ScriptModels(NamedTuple):
    """Three traced models, each a file or the bytes of one."""

    encoder: Path | bytes
    decoder: Path | bytes
    joiner: Path | bytes


class ScriptBackend(TorchBackend):
    """A `TorchBackend` over TorchScript programs.

    Attributes:
        dimensions: what names and shapes of the weights tell, by the recipes' option names; empty
            where the weights have other names.
        vocab_size: tokens of the prediction network.
    """

    def __init__(
        self,
        network: "_Network",
        windows: "_Windows",
        *,
        unk_id: int | None,
        device: torch.device | str,
    ) -> None:
        super().__init__(network, windows, unk_id=unk_id, device=device)
        embedding = _parameters(network.decoder).get("embedding.weight")
        if embedding is None:
            raise CheckpointError("the scripted model's decoder has no embedding", _EXPORT_HINT)
        self.vocab_size = len(embedding)
        self.dimensions = _dimensions(network)


class _Windows(NamedTuple):
    """What the encoder reads."""

    decode_chunk_len: int
    front_end: FrontEnd


def scripted_backend(
    model: Path | bytes,
    *,
    unk_id: int | None,
    decode_chunk_len: int | None = None,
    device: torch.device | str = "cpu",
) -> ScriptBackend:
    """A backend over a cpu_jit.pt.

    Args:
        model: the file, or its content.
        unk_id: id that is never emitted.
        decode_chunk_len: feature frames of 10 ms in a chunk; None: as exported.
        device: where the encoder runs.

    Raises:
        CheckpointError: it is no such file.
    """
    script = load_script(model, "scripted model")
    _require(
        script,
        ("encoder", "decoder", "joiner"),
        f"{_name(model, 'the scripted model')} is no whole model",
        "of a traced model all three files are needed: encoder, decoder and joiner",
    )
    encoder = script.encoder
    if hasattr(encoder, "decode_chunk_size"):
        if decode_chunk_len is not None:
            encoder.decode_chunk_size = decode_chunk_len // 2
        windows = _Windows(2 * encoder.decode_chunk_size, ZIPFORMER_FRONT_END)
    else:
        windows = _Windows(decode_chunk_len or _LSTM_CHUNK_LEN, LSTM_FRONT_END)
    network = _Network(_Encoder(encoder, windows, None), script.decoder, script.joiner)
    return ScriptBackend(network, windows, unk_id=unk_id, device=device)


def traced_backend(
    models: ScriptModels, *, unk_id: int | None, device: torch.device | str = "cpu"
) -> ScriptBackend:
    """A backend over three traced files; arguments and errors as `scripted_backend`."""
    encoder, decoder, joiner = (
        _part(model, part, names)
        for model, (part, names) in zip(models, _TRACED_PARTS.items(), strict=True)
    )
    if hasattr(encoder, "decode_chunk_size"):
        windows = _Windows(2 * encoder.decode_chunk_size, ZIPFORMER_FRONT_END)
        window: int | None = windows.decode_chunk_len + windows.front_end.window_overlap
    else:
        windows, window = _Windows(_LSTM_CHUNK_LEN, LSTM_FRONT_END), None
    network = _Network(
        _Encoder(encoder, windows, window),
        _TracedDecoder(decoder),
        _TracedJoiner(joiner),
    )
    return ScriptBackend(network, windows, unk_id=unk_id, device=device)


def _part(model: Path | bytes, part: str, names: tuple[str, ...]) -> Any:
    script = load_script(model, f"traced {part}")
    what = f"{_name(model, f'the traced {part}')} is no traced {part}"
    _require(script, names, what, "take the three files of one export, each by its own option")
    return script


def _require(script: Any, names: tuple[str, ...], what_it_is_not: str, hint: str) -> None:
    missing = [name for name in names if not hasattr(script, name)]
    if missing:
        raise CheckpointError(f"{what_it_is_not}: it has no {missing[0]}", hint)


def _name(model: Path | bytes, otherwise: str) -> str:
    return str(model) if isinstance(model, Path) else otherwise


def _parameters(script: Any) -> dict[str, Tensor]:
    named: dict[str, Tensor] = dict(script.named_parameters())
    return {key.removeprefix("script."): value for key, value in named.items()}


def _dimensions(network: "_Network") -> Dimensions:
    weights = {
        f"{part}.{key}": value
        for part in ("encoder", "decoder", "joiner")
        for key, value in _parameters(getattr(network, part)).items()
    }
    try:
        found = dict(dimensions_of(model_config_of(weights)))
    except CheckpointError:
        return {}
    # What no weight tells is an attribute, or fixed by the recipe.
    script = network.encoder.script
    found["decode_chunk_len"] = network.encoder.windows.decode_chunk_len
    if hasattr(script, "num_left_chunks"):
        found["num_left_chunks"] = int(script.num_left_chunks)
    else:
        found.pop("num_left_chunks", None)
    return found


class _Network(nn.Module):
    """Three parts under the names that an eager transducer has."""

    encoder: "_Encoder"

    def __init__(self, encoder: "_Encoder", decoder: Any, joiner: Any) -> None:
        super().__init__()
        self.encoder, self.decoder, self.joiner = encoder, decoder, joiner


class _Encoder(nn.Module):
    """A scripted or traced encoder as `models`' encoders are called: states with the streams first.

    Args:
        script: the encoder.
        windows: what it reads.
        fixed: the only window length that it takes; None: any.
    """

    def __init__(self, script: Any, windows: _Windows, fixed: int | None) -> None:
        super().__init__()
        self.script = script
        self.windows = windows
        self.fixed = fixed
        self.is_zipformer = windows.front_end == ZIPFORMER_FRONT_END

    def init_state(self, num_streams: int) -> tuple[Tensor, ...]:
        """State of streams that have heard nothing."""
        if self.is_zipformer:
            flat = self.script.get_init_state(torch.device("cpu"))
        else:
            flat = self.script.get_init_states(1, torch.device("cpu"))
        state = self._streams_first(flat)
        device = next(self.script.parameters()).device
        return tuple(x.repeat_interleave(num_streams, 0).to(device) for x in state)

    def stream(
        self, x: Tensor, x_lens: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The next frames of streams, whole windows."""
        flat = self._layers_first(state)
        outputs, all_lens = [], []
        overlap = self.windows.front_end.window_overlap
        window = x.size(1) if self.fixed is None else self.fixed
        for begin in range(0, x.size(1) - overlap, window - overlap):
            lens = (x_lens - begin).clamp(min=0, max=window)
            piece = x[:, begin : begin + window]
            if piece.size(1) < window:
                piece = nn.functional.pad(piece, (0, 0, 0, window - piece.size(1)))
            out, out_lens, flat = self.script(piece, lens, flat)
            outputs.append(out)
            all_lens.append(out_lens.to(torch.int64))
        return torch.cat(outputs, dim=1), sum(all_lens[1:], all_lens[0]), self._streams_first(flat)

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Whole utterances."""
        if self.is_zipformer and self.fixed is None:
            out, lens = self.script.non_streaming_forward(x, x_lens)
            return out, lens.to(torch.int64)
        out, lens, _ = self.stream(x, x_lens, self.init_state(x.size(0)))
        return out, lens

    def _streams_first(self, flat: Any) -> tuple[Tensor, ...]:
        return tuple(
            x.movedim(axis, 0) for x, axis in zip(flat, self._axes(len(flat)), strict=True)
        )

    def _layers_first(self, state: tuple[Tensor, ...]) -> Any:
        moved = [x.movedim(0, a) for x, a in zip(state, self._axes(len(state)), strict=True)]
        return moved if self.is_zipformer else tuple(moved)

    def _axes(self, num_states: int) -> list[int]:
        if not self.is_zipformer:
            return [1] * num_states
        num_stacks = num_states // len(STATE_BATCH_AXES)
        return [axis for axis in STATE_BATCH_AXES for _ in range(num_stacks)]


class _TracedDecoder(nn.Module):
    def __init__(self, script: Any) -> None:
        super().__init__()
        self.script = script
        self.blank_id = 0
        self.context_size = _context_size(script)

    def forward(self, y: Tensor, need_pad: bool = False) -> Tensor:
        out: Tensor = self.script(y, torch.tensor([need_pad]))
        return out


class _TracedJoiner(nn.Module):
    """The parts of a traced joiner: it projects its inputs itself, searches do so once a chunk."""

    def __init__(self, script: Any) -> None:
        super().__init__()
        self.encoder_proj, self.decoder_proj = script.encoder_proj, script.decoder_proj
        self.output_linear = script.output_linear

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool) -> Tensor:
        assert not project_input
        logits: Tensor = self.output_linear((encoder_out + decoder_out).tanh())
        return logits


def _context_size(decoder: Any) -> int:
    """Of a traced decoder: the kernel size of its convolution, or 1 without one."""
    weights = dict(decoder.named_parameters())
    return int(weights["conv.weight"].size(2)) if "conv.weight" in weights else 1


def load_script(model: Path | bytes, what: str) -> Any:
    """A TorchScript program, in evaluation mode on the CPU.

    Args:
        model: the file, or its content.
        what: which part it is, for messages.

    Raises:
        CheckpointError: it is none, or it is damaged.
    """
    if isinstance(model, bytes):
        source: Any = io.BytesIO(model)
    else:
        source = str(require_file(model, what, error=CheckpointError))
        require_intact(model, what, _EXPORT_HINT)
    try:
        with warnings.catch_warnings():
            # torch recommends torch.export; these files exist.
            warnings.simplefilter("ignore")
            return torch.jit.load(source, map_location="cpu").eval()
    except Exception as error:  # damaged bytes can fail in its parser in any way
        raise CheckpointError(
            f"the {what} {model if isinstance(model, Path) else ''} is no TorchScript program",
            _EXPORT_HINT,
        ) from error


def script_facts(path: Path) -> dict[str, Any]:
    """What an export of ours says of itself beside its program; {} if it is another's.

    Raises:
        CheckpointError: it is no archive, or what it says is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            ending = f"/extra/{SCRIPT_FACTS}"
            names = [name for name in archive.namelist() if name.endswith(ending)]
            facts = json.loads(archive.read(names[0])) if names else {}
    except Exception as error:  # damaged bytes can fail in the parser in any way
        raise CheckpointError(f"{path} is no TorchScript program", "export it again") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} holds a {SCRIPT_FACTS} that is no object", "export it again")
    return facts
