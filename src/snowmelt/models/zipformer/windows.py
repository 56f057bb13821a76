"""Which keys may a query of the attention see? Windows, for whole and for streamed input.

The attention is block-sparse: frames are cut into blocks, and a block of queries sees its own
frames and a fixed number of frames to its left. Dense attention is one block without left frames,
a streamed chunk is one block with the cached frames to its left, so one description serves all.
Inside its window a query sees an interval of keys.

Invariant: pure functions of lengths, no state, no Python loop over frames; True always means
"padding" or "forbidden", except in `subsequent_chunk_mask`, which keeps the original's meaning.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from snowmelt.models.zipformer.packing import Packing

__all__ = [
    "Windows",
    "chunk_windows",
    "dense_windows",
    "forbidden_keys",
    "full_windows",
    "lens_at",
    "subsequent_chunk_mask",
    "with_mask",
]

# Short chunks are joined until a block has this many queries: matrix products of fewer rows cost
# more in calls than they save in arithmetic.
_MIN_BLOCK: Final = 16


class Windows(NamedTuple):
    """Blocks of queries and the keys each of them may see.

    Queries are padded at the end to `num_blocks * block` frames. With `left` key frames put before
    the first frame (zeros or a cache), block b has the window of keys b * block ...
    b * block + left + block - 1.

    Attributes:
        num_frames: T, query frames before padding.
        num_blocks: B.
        block: S, queries in a block.
        left: L, keys to the left of a block; a window has W = L + S keys.
        first: (N, B, S) int32, the first key of the window that a query sees.
        last: (N, B, S) int32, the key behind the last one; not above `first` if it sees none.
        forbidden: bool, broadcasts to (B, N, H, S, W), True where a key must not be seen: a mask in
            place of `first` and `last`, or the same in another form (`forbidden_keys`); or None.
        packing: None: queries and keys come as (T, N, C). Otherwise as (M, 1, C), the utterances'
            slots one behind the other.
    """

    num_frames: int
    num_blocks: int
    block: int
    left: int
    first: Tensor
    last: Tensor
    forbidden: Tensor | None = None
    packing: Packing | None = None


def full_windows(num_frames: int, x_lens: Tensor, left: int = 0) -> Windows:
    """Every query sees all keys before the end of its utterance.

    Args:
        num_frames: T.
        x_lens: (N,) int64 valid frames.
        left: L, cached keys before the first frame, all of them seen.
    """
    last = (x_lens + left).to(torch.int32)[:, None, None].expand(-1, 1, num_frames)
    return Windows(num_frames, 1, num_frames, left, torch.zeros_like(last), last.contiguous())


def dense_windows(
    num_frames: int, attn_mask: Tensor | None = None, padding_mask: Tensor | None = None
) -> Windows:
    """Windows for explicit masks.

    Args:
        num_frames: T.
        attn_mask: (T, T) bool (query, key), True = forbidden.
        padding_mask: (N, T) bool, True = padding key.
    """
    forbidden = torch.zeros(1, 1, dtype=torch.bool) if attn_mask is None else attn_mask
    if padding_mask is not None:
        forbidden = forbidden.to(padding_mask.device) | padding_mask[:, None, None, :]
    unused = torch.zeros(0, dtype=torch.int32)
    return Windows(num_frames, 1, num_frames, 0, unused, unused, forbidden)


def chunk_windows(
    num_frames: int,
    chunk_size: int,
    num_left_chunks: int,
    x_lens: Tensor,
    frames_seen: Tensor | None = None,
) -> Windows:
    """A query sees its own chunk and `num_left_chunks` chunks before it.

    Args:
        num_frames: T.
        chunk_size: frames a chunk, at the rate of the frames.
        num_left_chunks: chunks of left context; negative: all of the past.
        x_lens: (N,) int64 valid frames.
        frames_seen: (N,) int64 frames before the first one, a multiple of `chunk_size`; the last
            of them are in a cache of num_left_chunks * chunk_size frames. None: no cache.
    """
    chunks = -(-num_frames // chunk_size)
    left_chunks = chunks if num_left_chunks < 0 else num_left_chunks
    chunks_per_block = min(chunks, max(1, -(-_MIN_BLOCK // chunk_size)))
    block, left = chunks_per_block * chunk_size, left_chunks * chunk_size
    if frames_seen is None and (left + block) * block * -(-num_frames // block) >= num_frames**2:
        # Windows as wide as the utterance save nothing.
        block, left = num_frames, 0
    num_blocks = -(-num_frames // block)

    begin = block * torch.arange(num_blocks, device=x_lens.device)[:, None]  # (B, 1)
    query = begin + torch.arange(block, device=x_lens.device)  # (B, S)
    chunk = query.div(chunk_size, rounding_mode="floor")
    earliest = torch.zeros_like(x_lens) if frames_seen is None else -frames_seen
    first = torch.maximum((chunk - left_chunks) * chunk_size, earliest[:, None, None])
    last = torch.minimum((chunk + 1) * chunk_size, x_lens[:, None, None])
    # From frames to places in the window.
    first = (first + (left - begin)).clamp(min=0).to(torch.int32)
    last = (last + (left - begin)).clamp(min=0).to(torch.int32)
    return Windows(num_frames, num_blocks, block, left, first, last)


def forbidden_keys(windows: Windows) -> Tensor:
    """(B, N, 1, S, W) bool, True where a key must not be seen."""
    key = torch.arange(windows.left + windows.block, device=windows.first.device)
    first, last = windows.first.transpose(0, 1), windows.last.transpose(0, 1)  # (B, N, S)
    return ((key < first[..., None]) | (key >= last[..., None])).unsqueeze(2)


def with_mask(windows: Windows) -> Windows:
    """The same windows with their intervals written out as a mask, once for many layers."""
    return windows._replace(forbidden=forbidden_keys(windows))


def lens_at(x_lens: Tensor, downsampling: int) -> Tensor:
    """Lengths after downsampling: x_lens / downsampling, rounded up."""
    return (x_lens + (downsampling - 1)).div(downsampling, rounding_mode="floor")


def subsequent_chunk_mask(
    size: int, chunk_size: int, num_left_chunks: int = -1, device: torch.device | None = None
) -> Tensor:
    """Dense chunk mask (size, size), bool (query, key), **True = may attend**.

    Query i sees keys from the chunk `num_left_chunks` before its own (negative: from the first) to
    the end of its own chunk. Source: icefall, icefall/utils.py.
    """
    chunk = torch.arange(size, device=device).div(chunk_size, rounding_mode="floor")
    allowed = chunk[None, :] <= chunk[:, None]
    if num_left_chunks >= 0:
        allowed &= chunk[None, :] >= chunk[:, None] - num_left_chunks
    return allowed
