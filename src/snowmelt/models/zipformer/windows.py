"""Which keys may a query of the attention see? Masks and windows, for whole and streamed input.

The attention is block-sparse: frames are cut into blocks, and a block of queries sees its own
frames and a fixed number of frames to its left. Dense attention is one block without left frames,
a streamed chunk is one block with the cached frames to its left, so one description serves all.

Invariant: pure functions of lengths, no state, no Python loop over frames; True always means
"padding" or "forbidden", except in `subsequent_chunk_mask`, which keeps the original's meaning.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Windows",
    "chunk_windows",
    "dense_windows",
    "full_windows",
    "make_pad_mask",
    "subsequent_chunk_mask",
]

# Short chunks are joined until a block has this many queries: matrix products of fewer rows cost
# more in calls than they save in arithmetic.
_MIN_BLOCK: Final = 16


class Windows(NamedTuple):
    """Blocks of queries and the keys each of them may see.

    Queries are padded at the end to `num_blocks * block` frames. With `left` key frames put before
    the first frame (zeros or a cache), block b sees the keys b * block ... b * block + width - 1,
    where width = left + block; `forbidden` takes single keys out again.

    Attributes:
        num_frames: T, query frames before padding.
        num_blocks: B.
        block: S, queries in a block.
        left: L, keys to the left of a block.
        forbidden: bool, broadcasts to (N, 1, B, S, L + S), True where a key must not be seen; None
            if every key may be seen.
        dead_queries: bool, broadcasts to (N, 1, B, S, 1), True where a query sees nothing: its
            weights are then zero. None: such queries are padding whose result nobody reads.
    """

    num_frames: int
    num_blocks: int
    block: int
    left: int
    forbidden: Tensor | None
    dead_queries: Tensor | None


def full_windows(num_frames: int, x_lens: Tensor | None, *, zero_dead: bool = False) -> Windows:
    """Every query sees all frames of its utterance.

    Args:
        num_frames: T.
        x_lens: (N,) int64 valid frames; None if all of them are valid.
        zero_dead: give all-zero weights to queries that see nothing.
    """
    forbidden = None
    if x_lens is not None:
        forbidden = make_pad_mask(x_lens, num_frames)[:, None, None, None, :]
    return _windows(num_frames, num_frames, 0, forbidden, zero_dead=zero_dead)


def dense_windows(
    num_frames: int, attn_mask: Tensor | None = None, padding_mask: Tensor | None = None
) -> Windows:
    """Windows for explicit masks; queries that see nothing get zero weights.

    Args:
        num_frames: T.
        attn_mask: (T, T) bool (query, key), True = forbidden.
        padding_mask: (N, T) bool, True = padding key.
    """
    forbidden = None if attn_mask is None else attn_mask[None, None, None]
    if padding_mask is not None:
        padding = padding_mask[:, None, None, None, :]
        forbidden = padding if forbidden is None else forbidden | padding
    return _windows(num_frames, num_frames, 0, forbidden, zero_dead=True)


def chunk_windows(
    num_frames: int,
    chunk_size: int,
    num_left_chunks: int,
    *,
    x_lens: Tensor,
    frames_seen: Tensor | None = None,
    zero_dead: bool = False,
) -> Windows:
    """A query sees its own chunk and `num_left_chunks` chunks before it.

    Args:
        num_frames: T.
        chunk_size: frames a chunk, at the rate of the frames.
        num_left_chunks: chunks of left context; negative: all of the past.
        x_lens: (N,) int64 valid frames.
        frames_seen: (N,) int64 frames before the first one, a multiple of `chunk_size`; the last
            of them are in a cache of num_left_chunks * chunk_size frames. None: no cache.
        zero_dead: give all-zero weights to queries that see nothing.
    """
    device = x_lens.device
    chunks = -(-num_frames // chunk_size)
    left_chunks = chunks if num_left_chunks < 0 else num_left_chunks
    chunks_per_block = min(chunks, max(1, -(-_MIN_BLOCK // chunk_size)))
    block, left = chunks_per_block * chunk_size, left_chunks * chunk_size
    if frames_seen is None and (left + block) * -(-num_frames // block) >= num_frames:
        # Bands as wide as the utterance save nothing.
        block, left = num_frames, 0
    num_blocks = -(-num_frames // block)

    query_chunk = torch.arange(block, device=device).div(chunk_size, rounding_mode="floor")[:, None]
    key = torch.arange(left + block, device=device) - left
    key_chunk = key.div(chunk_size, rounding_mode="floor")
    forbidden = (key_chunk > query_chunk) | (key_chunk < query_chunk - left_chunks)  # (S, L+S)
    position = key + block * torch.arange(num_blocks, device=device)[:, None]  # (B, L+S)
    first = torch.zeros_like(x_lens) if frames_seen is None else -frames_seen
    outside = (position >= x_lens[:, None, None]) | (position < first[:, None, None])
    forbidden = forbidden[None, None, None] | outside[:, None, :, None, :]
    return _windows(num_frames, block, left, forbidden, zero_dead=zero_dead)


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


def make_pad_mask(lengths: Tensor, max_len: int = 0) -> Tensor:
    """(N, T) bool, True where t >= lengths[n]; T is the larger of `max_len` and the longest."""
    num_frames = max(max_len, int(lengths.max())) if max_len <= 0 else max_len
    return torch.arange(num_frames, device=lengths.device) >= lengths[:, None]


def _windows(
    num_frames: int, block: int, left: int, forbidden: Tensor | None, *, zero_dead: bool
) -> Windows:
    dead = None
    if zero_dead and forbidden is not None:
        dead = forbidden.all(dim=-1, keepdim=True)
    return Windows(num_frames, -(-num_frames // block), block, left, forbidden, dead)
