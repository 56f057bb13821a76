"""Do three ONNX files say of themselves what their graphs are? sherpa-onnx believes the metadata.

Every value follows from the shapes of the graph's inputs and outputs, so a wrong one is named with
the right one.

Invariant: only names, shapes and metadata are read; nothing is computed.

Source: sherpa-onnx's contract for streaming transducers.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from snowmelt.core.errors import UserError
from snowmelt.presets.frames import LSTM_FRONT_END, ZIPFORMER_FRONT_END
from snowmelt.runtime.backends.onnx import OnnxModels, OnnxSession, find_onnx_files
from snowmelt.runtime.stored import stored_features, stored_tail

__all__ = ["contract_problems", "metadata_problems"]

_ADVICE: Final = "export the model again: snowmelt export --onnx 1"

# sherpa-onnx computes these features itself and cannot be told others.
_NUM_MEL_BINS: Final = 80
_SAMPLE_RATE: Final = 16000

_ZIPFORMER_STATES: Final = ("len", "avg", "key", "val", "val2", "conv1", "conv2")


def metadata_problems(encoder: Path) -> Iterator[tuple[str, str]]:
    """What is wrong with a set of three files and the vocabulary beside it, each with advice.

    Raises:
        UserError: a file is missing or cannot be loaded.
    """
    files = find_onnx_files(encoder)
    found = False
    for problem in contract_problems(files):
        found = True
        yield problem
    if not found:
        yield from _vocabulary(encoder, OnnxSession(files.decoder, "decoder"))


def contract_problems(models: OnnxModels) -> Iterator[tuple[str, str]]:
    """What is wrong with what three files say of themselves, each with advice.

    Raises:
        UserError: one of them cannot be loaded.
    """
    yield from _contract(
        {
            part: OnnxSession(getattr(models, part), part)
            for part in ("encoder", "decoder", "joiner")
        }
    )


def _contract(parts: Mapping[str, OnnxSession]) -> Iterator[tuple[str, str]]:
    encoder, decoder, joiner = parts["encoder"], parts["decoder"], parts["joiner"]
    family = _family(encoder)
    if family is None:
        yield (
            f"{encoder.name} has no states of a streaming Zipformer or LSTM among its inputs: it "
            "is an offline model, or of another family",
            "export a streaming transducer",
        )
        return
    for session, inputs, outputs in (
        (encoder, _state_names(encoder, family, ""), _state_names(encoder, family, "new_")),
        (decoder, ["y"], ["decoder_out"]),
        (joiner, ["encoder_out", "decoder_out"], ["logit"]),
    ):
        is_encoder = session is encoder
        expected = (["x", *inputs], ["encoder_out", *outputs]) if is_encoder else (inputs, outputs)
        names = ([i.name for i in session.inputs], [o.name for o in session.outputs])
        for what, have, want in zip(("inputs", "outputs"), names, expected, strict=True):
            if have != want:
                yield f"{session.name} has {what} {','.join(have)}, not {','.join(want)}", _ADVICE
                return
    try:
        facts = _encoder_facts(encoder, family)
        context_size = _size(decoder.inputs[0].shape[1])
        joiner_dim = _size(joiner.inputs[0].shape[1])
        vocab_size = _size(joiner.outputs[0].shape[1])
        num_mel_bins = _size(encoder.inputs[0].shape[2])
    except (IndexError, TypeError):
        yield f"the graphs beside {encoder.name} have inputs without fixed sizes", _ADVICE
        return
    yield from _compare(encoder, facts)
    yield from _compare(decoder, {"context_size": context_size, "vocab_size": vocab_size})
    yield from _compare(joiner, {"joiner_dim": joiner_dim})
    if num_mel_bins != _NUM_MEL_BINS:
        yield (
            f"{encoder.name} takes {num_mel_bins} mel bins; sherpa-onnx computes {_NUM_MEL_BINS}",
            "use it with snowmelt only, or train with 80",
        )
    try:
        stored_tail(encoder.metadata, encoder.name)
        sample_rate = stored_features(encoder.metadata, encoder.name).sample_rate
    except UserError as error:
        yield error.message, error.hint
        return
    if sample_rate != _SAMPLE_RATE:
        yield (
            f"{encoder.name} wants sound of {sample_rate} Hz; sherpa-onnx computes features of "
            f"{_SAMPLE_RATE} Hz",
            "use it with snowmelt only, or train with 16000",
        )


def _compare(session: OnnxSession, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        right = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        stored = session.metadata.get(key)
        if stored is None:
            yield f"{session.name} has no '{key}' in its metadata, it must be {right}", _ADVICE
        elif stored != right:
            yield f"{session.name} says {key} is {stored!r}, its graph takes {right}", _ADVICE


def _family(encoder: OnnxSession) -> str | None:
    names = {i.name for i in encoder.inputs}
    if {"state0", "state1"} <= names:
        return "lstm"
    return "zipformer" if "cached_len_0" in names else None


def _state_names(encoder: OnnxSession, family: str, prefix: str) -> list[str]:
    if family == "lstm":
        return [f"{prefix}state0", f"{prefix}state1"]
    num_stacks = sum(i.name.startswith("cached_len_") for i in encoder.inputs)
    return [f"{prefix}cached_{s}_{i}" for s in _ZIPFORMER_STATES for i in range(num_stacks)]


def _encoder_facts(encoder: OnnxSession, family: str) -> dict[str, Any]:
    """The metadata that the graph's inputs ask for."""
    shapes = {i.name: i.shape for i in encoder.inputs}
    front_end = ZIPFORMER_FRONT_END if family == "zipformer" else LSTM_FRONT_END
    window = _size(shapes["x"][1])
    facts: dict[str, Any] = {
        "model_type": family,
        "decode_chunk_len": window - front_end.window_overlap,
        "T": window,
    }
    if family == "lstm":
        return facts | {
            "num_encoder_layers": _size(shapes["state0"][0]),
            "d_model": _size(shapes["state0"][2]),
            "rnn_hidden_size": _size(shapes["state1"][2]),
        }
    stacks = range(sum(name.startswith("cached_len_") for name in shapes))

    def sizes(state: str, axis: int) -> Sequence[int]:
        return [_size(shapes[f"cached_{state}_{i}"][axis]) for i in stacks]

    return facts | {
        "num_encoder_layers": sizes("len", 0),
        "encoder_dims": sizes("avg", 2),
        "attention_dims": sizes("key", 3),
        "cnn_module_kernels": [width + 1 for width in sizes("conv1", 3)],
        "left_context_len": sizes("key", 1),
    }


def _vocabulary(encoder: Path, decoder: OnnxSession) -> Iterator[tuple[str, str]]:
    from snowmelt.runtime.vocabulary import tokenizer_beside
    from snowmelt.text.tokenizer import vocabulary_hash

    advice = "take the tokens.txt that the model was exported with"
    try:
        tokenizer = tokenizer_beside(encoder)
    except UserError as error:
        yield error.message, error.hint or advice
        return
    size, stored = decoder.number("vocab_size"), decoder.metadata.get("vocabulary_hash")
    if tokenizer.vocab_size != size:
        yield (
            f"{decoder.name} has {size} tokens, the vocabulary beside it {tokenizer.vocab_size}",
            advice,
        )
    elif stored is not None and stored != vocabulary_hash(tokenizer):
        yield (
            f"the vocabulary beside {decoder.name} has the right size, but other tokens or another "
            "order than the one it was exported with",
            advice,
        )


def _size(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(value)
    return value
