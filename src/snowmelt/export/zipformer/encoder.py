"""What is left of the Zipformer when it only recognises? One forward, for windows of any length.

A window is read after any number of frames, from the state in the form of icefall's flat list. A
whole utterance is one long window after none. The attention forbids what a stream has not heard yet
by the count of frames that the state holds, so streaming gives the numbers of the whole in every
runtime that feeds the state back, sherpa-onnx too.

Invariant: the numbers of `models.zipformer.encoder.Zipformer` in evaluation (tests hold the two
together); weights are shared with the model, nothing is trained here. torch.jit.script compiles all
of it, and with whole windows the batch is the only size that varies.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py (names and
order of the states).
"""

import torch
from torch import Tensor, nn

from snowmelt.export.layers import inference_convolutions, valid_frames
from snowmelt.export.zipformer.resample import InferenceCombiner, InferenceDownsample, NoSkip
from snowmelt.export.zipformer.stack import InferenceDownsampledStack, InferenceStack
from snowmelt.models.zipformer.encoder import Zipformer
from snowmelt.models.zipformer.resample import SimpleCombiner
from snowmelt.models.zipformer.stack import DownsampledZipformerEncoder, ZipformerEncoder
from snowmelt.models.zipformer.subsampling import Conv2dSubsampling

__all__ = ["InferenceZipformer"]


class InferenceZipformer(nn.Module):
    """The encoder of a trained model, scriptable.

    Args:
        encoder: the trained encoder.

    Attributes:
        decode_chunk_size: chunk in 20 ms frames; may be set to another multiple of every
            downsampling factor, also after loading. Fresh states follow it.
    """

    num_layers: list[int]
    attention_dims: list[int]
    kernel_sizes: list[int]

    def __init__(self, encoder: Zipformer) -> None:
        super().__init__()
        self.decode_chunk_size: int = encoder.decode_chunk_size
        self.num_left_chunks: int = encoder.num_left_chunks
        self.num_stacks: int = len(encoder.encoders)
        self.num_features: int = encoder.num_features
        self.encoder_dims = list(encoder.encoder_dims)
        self.factors = list(encoder.zipformer_downsampling_factors)
        self.skip_sources = [-1 if i is None else i for i in encoder.skip_layers]
        stacks = [_layers_of(stack) for stack in encoder.encoders]
        self.num_layers = [stack.num_layers for stack in stacks]
        self.attention_dims = [stack.attention_dim for stack in stacks]
        self.kernel_sizes = [stack.cnn_module_kernel for stack in stacks]
        self.encoder_embed = _Embedding(encoder.encoder_embed)
        self.encoders = nn.ModuleList(_stack(stack) for stack in encoder.encoders)
        self.skip_modules = nn.ModuleList(
            InferenceCombiner(skip) if isinstance(skip, SimpleCombiner) else NoSkip()
            for skip in encoder.skip_modules
        )
        self.downsample_output = InferenceDownsample(encoder.downsample_output)

    def forward(
        self, x: Tensor, x_lens: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The next frames of streams.

        Args:
            x: (N, T, F), windows of 7 + 2 * decode_chunk_size * k feature frames.
            x_lens: (N,) valid frames; a window that is not whole ends its stream.
            states: the flat list of N streams.

        Returns:
            (N, T'', C), its lengths (N,) int64, and the new states.
        """
        return self._run(x, x_lens, states)

    @torch.jit.export
    def non_streaming_forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Whole utterances: (N, T, F), (N,) -> (N, T'', C), (N,) int64."""
        # Not `forward`: a tracer makes that one its own.
        out, lens, _ = self._run(x, x_lens, self.get_init_states(x.size(0), x.device))
        return out, lens

    @torch.jit.export
    def get_init_state(self, device: torch.device = torch.device("cpu")) -> list[Tensor]:  # noqa: B008
        """State of one stream that has heard nothing."""
        return self.get_init_states(1, device)

    @torch.jit.export
    def get_init_states(self, batch_size: int, device: torch.device) -> list[Tensor]:
        """State of streams that have heard nothing."""
        states: list[Tensor] = []
        for group in range(7):
            for i in range(self.num_stacks):
                layers, dim = self.num_layers[i], self.encoder_dims[i]
                width = self.attention_dims[i]
                left = self.left_context(i)
                if group == 0:
                    shape = [layers, batch_size]
                elif group == 1:
                    shape = [layers, batch_size, dim]
                elif group == 2:
                    shape = [layers, left, batch_size, width]
                elif group <= 4:
                    shape = [layers, left, batch_size, width // 2]
                else:
                    shape = [layers, batch_size, dim, self.kernel_sizes[i] - 1]
                dtype = torch.int64 if group == 0 else self.downsample_output.query.dtype
                states.append(torch.zeros(shape, dtype=dtype, device=device))
        return states

    @torch.jit.export
    def left_context(self, stack: int) -> int:
        """Frames, at its rate, that a stack's attention keeps."""
        return self.decode_chunk_size * self.num_left_chunks // self.factors[stack]

    def _run(
        self, x: Tensor, x_lens: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        lens = valid_frames(x_lens, 7, 2)
        out, new_states = self.advance(_filled(x, x_lens), lens, states)
        return out, valid_frames(lens, -1, 2), new_states

    @torch.jit.export
    def advance(
        self,
        x: Tensor,
        lens: Tensor | None,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Encoder frames (N, T'', C) and new states.

        Args:
            x: (N, T, F).
            lens: (N,) int64 valid frames after the front end; None: all of them, which gives a
                smaller graph.
            states: the flat list.
        """
        x = self.encoder_embed(x).transpose(0, 1)  # (T', N, C)
        n = self.num_stacks
        outputs: list[Tensor] = []
        groups: list[list[Tensor]] = [[], [], [], [], [], [], []]
        for i, (stack, skip) in enumerate(zip(self.encoders, self.skip_modules)):  # noqa: B905
            source = self.skip_sources[i]
            x = skip(outputs[source] if source >= 0 else x, x)
            chunk = self.decode_chunk_size // self.factors[i]
            old = [states[group * n + i] for group in range(7)]
            x, new = stack(x, lens, chunk, self.num_left_chunks, old)
            outputs.append(x)
            for group in range(7):
                groups[group].append(new[group])
        out = self.downsample_output(x, lens).transpose(0, 1)
        new_states: list[Tensor] = []
        for group in range(7):
            new_states += groups[group]
        return out, new_states


class _Embedding(nn.Module):
    def __init__(self, embedding: Conv2dSubsampling) -> None:
        super().__init__()
        self.conv = inference_convolutions(embedding.conv)
        self.out = embedding.out

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.unsqueeze(1))
        out: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return out


def _layers_of(stack: nn.Module) -> ZipformerEncoder:
    layers = stack.encoder if isinstance(stack, DownsampledZipformerEncoder) else stack
    assert isinstance(layers, ZipformerEncoder), type(layers)
    return layers


def _stack(stack: nn.Module) -> nn.Module:
    if isinstance(stack, DownsampledZipformerEncoder):
        return InferenceDownsampledStack(stack)
    assert isinstance(stack, ZipformerEncoder), type(stack)
    return InferenceStack(stack)


def _filled(x: Tensor, x_lens: Tensor) -> Tensor:
    """Behind the end of an utterance stands log(1e-10), whatever a caller left there."""
    is_past = torch.arange(x.size(1), device=x.device) >= x_lens.unsqueeze(1)
    return x.masked_fill(is_past.unsqueeze(2), -23.025850929940457)
