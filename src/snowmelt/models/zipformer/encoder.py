"""How do features become encoder frames? The whole Zipformer, for utterances and for streams.

`forward` takes whole utterances, in evaluation with the chunk mask of streaming; `stream` takes the
next frames of streams and their state. Both give the same numbers, whatever shares the batch,
unless `icefall_compat` asks for the original's behaviour.

Invariant: (N, T, F) in, (N, T'', C) out; between the embedding and the output (T, N, C). No state
but the weights: every random draw is from Python's or torch's global generator.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/zipformer.py.
"""

import math
from typing import Final, cast

import torch
from torch import Tensor, nn

from snowmelt.models.features import (
    MIN_FEATURE_FRAMES,
    check_features,
    check_utterances,
    fill_padding,
    make_pad_mask,
)
from snowmelt.models.zipformer.caches import StackState, ZipformerState
from snowmelt.models.zipformer.checks import check_chunk_size, check_left_context, check_streams
from snowmelt.models.zipformer.flat_state import flat_to_state, state_to_flat
from snowmelt.models.zipformer.layer import ZipformerEncoderLayer
from snowmelt.models.zipformer.packing import (
    Packing,
    fill_slots,
    pack_features,
    packing_of,
    unpack,
)
from snowmelt.models.zipformer.randomness import (
    feature_masks,
    flip,
    random_chunk_size,
    skip_drop_prob,
)
from snowmelt.models.zipformer.resample import AttentionDownsample, SimpleCombiner
from snowmelt.models.zipformer.stack import (
    DownsampledZipformerEncoder,
    ZipformerEncoder,
    skip_connections,
)
from snowmelt.models.zipformer.subsampling import Conv2dSubsampling
from snowmelt.models.zipformer.windows import (
    Windows,
    chunk_windows,
    full_windows,
    lens_at,
    with_mask,
)

__all__ = ["Zipformer"]

# The embedding reads 7 feature frames more than twice what it emits.
_EMBEDDING_OVERLAP: Final = 7


class Zipformer(nn.Module):
    """Encoder with stacks at several frame rates; per-stack arguments are tuples.

    Args:
        num_features: F, mel bins.
        output_downsampling_factor: 2.
        encoder_dims: channels, even and not decreasing.
        attention_dim: of all heads' queries.
        encoder_unmasked_dims: channels that the feature mask of training leaves alone.
        zipformer_downsampling_factors: ds.
        nhead: attention heads.
        feedforward_dim: channels between the layers of the feed-forwards.
        num_encoder_layers: layers.
        dropout: in embedding, feed-forwards and positional encoding.
        cnn_module_kernels: kernel sizes of the depthwise convolutions, odd.
        pos_dim: size of a head's positional query.
        num_left_chunks: chunks of past that the attention sees.
        short_chunk_threshold, short_chunk_size: of the random chunk size in training; see
            `random_chunk_size`.
        decode_chunk_size: chunk in 20 ms frames, a multiple of every ds; may be set later.
        warmup_batches: length of the warm-up of layer drop and skip connections.
        icefall_compat: compute what the original computes where that depends on the batch or on
            caches that are not filled yet. A plain attribute, may be set later.
    """

    def __init__(
        self,
        num_features: int,
        output_downsampling_factor: int = 2,
        encoder_dims: tuple[int, ...] = (384, 384),
        attention_dim: tuple[int, ...] = (256, 256),
        encoder_unmasked_dims: tuple[int, ...] = (256, 256),
        zipformer_downsampling_factors: tuple[int, ...] = (2, 4),
        nhead: tuple[int, ...] = (8, 8),
        feedforward_dim: tuple[int, ...] = (1536, 2048),
        num_encoder_layers: tuple[int, ...] = (12, 12),
        dropout: float = 0.1,
        cnn_module_kernels: tuple[int, ...] = (31, 31),
        pos_dim: int = 4,
        num_left_chunks: int = 4,
        short_chunk_threshold: float = 0.75,
        short_chunk_size: int = 50,
        decode_chunk_size: int = 16,
        warmup_batches: float = 4000.0,
        icefall_compat: bool = False,
    ) -> None:
        super().__init__()
        assert output_downsampling_factor == 2, output_downsampling_factor
        self.num_features = num_features
        self.encoder_dims = tuple(encoder_dims)
        self.encoder_unmasked_dims = tuple(encoder_unmasked_dims)
        self.zipformer_downsampling_factors = tuple(zipformer_downsampling_factors)
        self.num_left_chunks = num_left_chunks
        self.short_chunk_threshold = short_chunk_threshold
        self.short_chunk_size = short_chunk_size
        self.decode_chunk_size = decode_chunk_size
        self.warmup_batches = warmup_batches
        self.icefall_compat = icefall_compat
        self.batch_count = 0.0

        factors = self.zipformer_downsampling_factors
        num_stacks = len(factors)
        self.encoder_embed = Conv2dSubsampling(num_features, encoder_dims[0], dropout=dropout)
        stacks: list[nn.Module] = []
        for i in range(num_stacks):
            layer = ZipformerEncoderLayer(
                encoder_dims[i],
                attention_dim[i],
                nhead[i],
                feedforward_dim[i],
                dropout,
                cnn_module_kernels[i],
                pos_dim,
            )
            stack = ZipformerEncoder(
                layer,
                num_encoder_layers[i],
                dropout,
                warmup_begin=warmup_batches * (i + 1) / (num_stacks + 1),
                warmup_end=warmup_batches * (i + 2) / (num_stacks + 1),
            )
            if factors[i] == 1:
                stacks.append(stack)
                continue
            stacks.append(
                DownsampledZipformerEncoder(
                    stack, encoder_dims[max(0, i - 1)], encoder_dims[i], factors[i]
                )
            )
        self.encoders = nn.ModuleList(stacks)
        self.skip_layers = skip_connections(factors)
        self.skip_modules = nn.ModuleList(
            nn.Identity()
            if source is None
            else SimpleCombiner(encoder_dims[source], encoder_dims[i - 1], min_weight=(0.0, 0.25))
            for i, source in enumerate(self.skip_layers)
        )
        self.downsample_output = AttentionDownsample(
            encoder_dims[-1], encoder_dims[-1], output_downsampling_factor
        )

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Whole utterances.

        In evaluation the attention sees chunks of `decode_chunk_size`, as in streaming; in training
        chunks of a size drawn for the batch.

        Args:
            x: (N, T, F) features; what it holds at and after x_lens does not matter.
            x_lens: (N,) int64 valid feature frames, each >= 9 and <= T.

        Returns:
            (N, T'', C) and (N,) int64 lengths ((x_lens - 7) // 2 + 1) // 2.

        Raises:
            DataError: an utterance is too short to give a frame or longer than T, or x has another
                number of mel bins.
            ConfigError: `decode_chunk_size` is no multiple of every downsampling factor.
        """
        check_features(x, self.num_features)
        check_utterances(x, x_lens)
        x_lens = x_lens.to(torch.int64)
        x = x[:, : int(x_lens.max())]
        lens = (x_lens - _EMBEDDING_OVERLAP) >> 1
        if self.training and not self.icefall_compat and _packs_utterances(x):
            return self._packed_forward(x, x_lens, lens), lens_at(lens, 2)
        if not self.icefall_compat:
            x = fill_padding(x, x_lens)
        x = self._embedded(x)  # (T', N, C)
        own_lens = None if self.icefall_compat else lens
        windows = self._whole_windows(x.size(0), lens, None)
        masks: list[Tensor | None] = [None] * len(self.encoders)
        if self.training:
            masks = feature_masks(x, self.encoder_dims, self.encoder_unmasked_dims, self._factors())

        outputs: list[Tensor] = []
        for i, (stack, ds) in enumerate(zip(self.encoders, self._factors(), strict=True)):
            x = self._with_skip(i, x, outputs)
            padding = make_pad_mask(lens_at(lens, ds), -(-x.size(0) // ds))
            padding_mask = padding if self.icefall_compat else None
            if isinstance(stack, DownsampledZipformerEncoder):
                x = stack(x, windows[ds], masks[i], padding_mask, own_lens)
            else:
                x = stack(x, windows[ds], masks[i], padding_mask)
            outputs.append(x)
        return self.downsample_output(x, own_lens).transpose(0, 1), lens_at(lens, 2)

    @torch.jit.unused
    def _packed_forward(self, x: Tensor, x_lens: Tensor, lens: Tensor) -> Tensor:
        """Training on the CPU: one utterance behind the other, see `packing`."""
        packing = packing_of(lens, math.lcm(2, *self._factors()))
        x = self._embedded(pack_features(x, x_lens, packing))  # (M, 1, C)
        # The embedding saw two utterances where slots meet: what is infinite in one stays in it.
        x = fill_slots(x, packing)
        windows = self._whole_windows(int(lens.max()), lens, packing)
        masks = feature_masks(x, self.encoder_dims, self.encoder_unmasked_dims, self._factors())
        outputs: list[Tensor] = []
        for i, (stack, ds) in enumerate(zip(self.encoders, self._factors(), strict=True)):
            x = self._with_skip(i, x, outputs)
            if ds > 1:
                x = fill_slots(x, packing)
            x = stack(x, windows[ds], masks[i])
            outputs.append(x)
        x = self.downsample_output(fill_slots(x, packing))
        return unpack(x, packing.at(2))[: int(lens_at(lens, 2).max())].transpose(0, 1)

    def init_state(
        self,
        num_streams: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> ZipformerState:
        """State of `num_streams` fresh streams, for the present `decode_chunk_size`.

        Args:
            num_streams: N.
            dtype, device: those of the weights by default.
        """
        check_chunk_size(self.decode_chunk_size, self._factors())
        check_left_context(self.num_left_chunks)
        left = self.decode_chunk_size * self.num_left_chunks
        like = self.downsample_output.query.new_zeros(0, dtype=dtype, device=device)
        return ZipformerState(
            num_frames=like.new_zeros(num_streams, dtype=torch.int64),
            stacks=tuple(
                _layers(stack).init_state(num_streams, left // ds, like)
                for stack, ds in zip(self.encoders, self._factors(), strict=True)
            ),
        )

    def stream(
        self, x: Tensor, x_lens: Tensor, state: ZipformerState
    ) -> tuple[Tensor, Tensor, ZipformerState]:
        """The next frames of streams.

        A window holds k chunks of 2 * decode_chunk_size feature frames and 7 frames more, which
        the stream's next window begins with again. A shorter window ends its stream; one with
        fewer than 9 valid frames (0, say) gives nothing and leaves its stream as it was.

        Args:
            x: (N, 7 + 2 * decode_chunk_size * k, F) features; shorter if all windows are.
            x_lens: (N,) int64 valid frames of each window.
            state: of the same N streams.

        Returns:
            (N, T'', C), (N,) int64 valid frames of each stream, and the new state.

        Raises:
            DataError: x has another number of mel bins, or a stream has ended before.
            ConfigError: the state was made for another chunk length.
        """
        check_features(x, self.num_features)
        x_lens = x_lens.to(torch.int64)
        lens = ((x_lens - _EMBEDDING_OVERLAP) >> 1).clamp(min=0)
        if x.size(1) < MIN_FEATURE_FRAMES:
            return x.new_zeros(x.size(0), 0, self.encoder_dims[-1]), lens, state
        num_frames = (x.size(1) - _EMBEDDING_OVERLAP) // 2
        own_lens = None
        if not self.icefall_compat:
            left = self.decode_chunk_size * self.num_left_chunks // self._factors()[0]
            check_streams(state, lens, left, self.decode_chunk_size)
            # Without lengths all frames are valid, which is the common case.
            if bool((lens != num_frames).any()):
                x, own_lens = fill_padding(x, x_lens), lens
        x = self._embedded(x)  # (T', N, C)

        outputs: list[Tensor] = []
        stacks: list[StackState] = []
        for i, (stack, ds) in enumerate(zip(self.encoders, self._factors(), strict=True)):
            x = self._with_skip(i, x, outputs)
            old = state.stacks[i]
            windows = self._stream_windows(-(-num_frames // ds), ds, lens, old)
            valid = None if own_lens is None else lens_at(own_lens, ds)
            if isinstance(stack, DownsampledZipformerEncoder):
                x, new = stack.stream(x, windows, old, valid, own_lens)
            else:
                x, new = cast(ZipformerEncoder, stack).stream(x, windows, old, valid)
            outputs.append(x)
            stacks.append(new)
        out = self.downsample_output(x, own_lens).transpose(0, 1)
        seen = state.num_frames + (num_frames if own_lens is None else own_lens)
        return out, lens_at(lens, 2), ZipformerState(seen, tuple(stacks))

    def get_init_state(self, device: torch.device | str | None = None) -> list[Tensor]:
        """State of one fresh stream as icefall's flat list; see `flat_state`."""
        return state_to_flat(self.init_state(1, device=device))

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """`stream` with icefall's flat list of states."""
        state = flat_to_state(states, self._factors()[0])
        out, out_lens, state = self.stream(x, x_lens, state)
        return out, out_lens, state_to_flat(state)

    def _embedded(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder_embed(x).transpose(0, 1)
        # Under autocast too the layers add their results up in the type of the weights.
        return out.to(self.downsample_output.query.dtype)

    def _whole_windows(
        self, num_frames: int, lens: Tensor, packing: Packing | None
    ) -> dict[int, Windows]:
        chunk_size = self.decode_chunk_size
        if self.training:
            chunk_size = random_chunk_size(
                num_frames, max(self._factors()), self.short_chunk_size, self.short_chunk_threshold
            )
        else:
            check_chunk_size(chunk_size, self._factors())
        windows = {}
        for ds in set(self._factors()):
            frames, ds_lens = -(-num_frames // ds), lens_at(lens, ds)
            if packing is not None:
                frames = packing.at(ds).num_frames
            if chunk_size >= num_frames:
                windows[ds] = full_windows(frames, ds_lens)
            else:
                left = self.num_left_chunks
                windows[ds] = chunk_windows(frames, chunk_size // ds, left, ds_lens)
            if packing is not None:
                windows[ds] = windows[ds]._replace(packing=packing.at(ds))
            elif not self.training or lens.device.type != "cpu":
                windows[ds] = with_mask(windows[ds])
        return windows

    def _stream_windows(self, num_frames: int, ds: int, lens: Tensor, state: StackState) -> Windows:
        if self.icefall_compat:  # keys that are not filled yet are seen too
            left = state.key.size(2)
            return with_mask(full_windows(num_frames, torch.full_like(lens, num_frames), left))
        windows = chunk_windows(
            num_frames,
            self.decode_chunk_size // ds,
            self.num_left_chunks,
            lens_at(lens, ds),
            state.frames_seen,
        )
        return with_mask(windows)

    def _with_skip(self, index: int, x: Tensor, outputs: list[Tensor]) -> Tensor:
        source = self.skip_layers[index]
        if source is None:
            return x
        if self.training and flip(skip_drop_prob(self.batch_count, self.warmup_batches)):
            return x
        combined: Tensor = self.skip_modules[index](outputs[source], x)
        return combined

    def _factors(self) -> tuple[int, ...]:
        return self.zipformer_downsampling_factors


def _packs_utterances(x: Tensor) -> bool:
    """Training: on the CPU padding costs what frames cost, on others loops over utterances do."""
    return x.device.type == "cpu"


def _layers(stack: nn.Module) -> ZipformerEncoder:
    layers = stack.encoder if isinstance(stack, DownsampledZipformerEncoder) else stack
    return cast(ZipformerEncoder, layers)
