"""How does a trained model become TorchScript? Scripted as one file, or traced as three.

    cpu_jit.pt              encoder.forward streams, encoder.non_streaming_forward takes whole
                            utterances; decoder(y, need_pad); joiner(e, d, project_input)
    encoder_jit_trace.pt    encoder(x, x_lens, states); get_init_state (LSTM: get_init_states)
    decoder_jit_trace.pt    decoder(y, need_pad)
    joiner_jit_trace.pt     joiner(e, d), projections included

Invariant: a traced Zipformer takes windows of one length, everything else any length and any number
of streams.

Source: icefall, export.py and jit_trace_export.py of both recipes (names, signatures, attributes).
"""

import io
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from snowmelt.export.inference import InferenceDecoder, InferenceJoiner, InferenceTransducer
from snowmelt.export.lstm import InferenceLstm
from snowmelt.export.zipformer.encoder import InferenceZipformer
from snowmelt.models.transducer import Transducer
from snowmelt.presets.models import ModelConfig
from snowmelt.runtime.backends.torchscript import SCRIPT_FACTS

__all__ = ["TracedFiles", "export_script", "export_traced"]


class TracedFiles(NamedTuple):
    """The contents of the three files."""

    encoder: bytes
    decoder: bytes
    joiner: bytes


def export_script(model: Transducer, facts: Mapping[str, Any] | None = None) -> bytes:
    """The content of cpu_jit.pt.

    Args:
        model: in evaluation mode on the CPU, one head, scales folded.
        facts: plain values, stored for our own runtime (`runtime.backends.torchscript.SCRIPT_FACTS`
            says which); others ignore them.
    """
    network = InferenceTransducer(model)
    return _saved(lambda: torch.jit.script(network), facts)


def export_traced(
    model: Transducer, config: ModelConfig, facts: Mapping[str, Any] | None = None
) -> TracedFiles:
    """The contents of the three traced files.

    Args:
        model, facts: as in `export_script`; every file holds the facts.
        config: gives the chunk length.
    """
    network = InferenceTransducer(model)
    encoder, joiner = network.encoder, network.joiner
    window = config.decode_chunk_len + config.front_end.window_overlap
    # Not one stream: sizes of one would be taken for constants.
    x, x_lens = torch.zeros(2, window, config.feature_dim), torch.full((2,), window)
    if isinstance(encoder, InferenceLstm):
        states: Any = encoder.get_init_states(2)
    else:
        assert isinstance(encoder, InferenceZipformer), type(encoder)
        states = encoder.get_init_states(2, torch.device("cpu"))
    y = torch.zeros(10, network.decoder.context_size, dtype=torch.int64)
    e = torch.zeros(2, joiner.encoder_proj.in_features)
    d = torch.zeros(2, joiner.decoder_proj.in_features)
    return TracedFiles(
        encoder=_saved(
            lambda: torch.jit.trace(encoder, (x, x_lens, states), check_trace=False), facts
        ),
        decoder=_saved(
            lambda: torch.jit.trace(_TracedDecoder(network.decoder), (y, _NO_PAD)), facts
        ),
        joiner=_saved(lambda: torch.jit.trace(_TracedJoiner(joiner), (e, d)), facts),
    )


_NO_PAD = torch.tensor([False])


class _TracedDecoder(nn.Module):
    """Takes `need_pad`, as its callers pass it, and never pads."""

    def __init__(self, decoder: InferenceDecoder) -> None:
        super().__init__()
        self.embedding, self.conv = decoder.embedding, decoder.conv
        self.context_size, self.blank_id = decoder.context_size, decoder.blank_id
        self.vocab_size = decoder.vocab_size

    def forward(self, y: Tensor, need_pad: Tensor) -> Tensor:
        return InferenceDecoder.forward(self, y, need_pad=False)  # type: ignore[arg-type]


class _TracedJoiner(nn.Module):
    def __init__(self, joiner: InferenceJoiner) -> None:
        super().__init__()
        self.encoder_proj, self.decoder_proj = joiner.encoder_proj, joiner.decoder_proj
        self.output_linear = joiner.output_linear

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        return InferenceJoiner.forward(self, encoder_out, decoder_out)  # type: ignore[arg-type]


def _saved(make: Callable[[], Any], facts: Mapping[str, Any] | None) -> bytes:
    content = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # torch recommends torch.export, which the runtimes that read these files do not know; a
        # tracer remarks on sizes that become constants, as they are meant to.
        warnings.simplefilter("ignore")
        extra = {} if facts is None else {SCRIPT_FACTS: json.dumps(facts)}
        torch.jit.save(make(), content, _extra_files=extra)
    return content.getvalue()
