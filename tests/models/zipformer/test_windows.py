"""Windows of keys against the dense masks they stand for."""

import pytest
import torch
from torch import Tensor

from snowmelt.models.features import make_pad_mask
from snowmelt.models.zipformer.windows import (
    Windows,
    chunk_windows,
    dense_windows,
    forbidden_keys,
    full_windows,
    lens_at,
    subsequent_chunk_mask,
    with_mask,
)


def _seen(windows: Windows, num_keys_before: int = 0) -> Tensor:
    """(N, T, num_keys_before + T) bool, what each query sees, by absolute key."""
    forbidden = forbidden_keys(windows)  # (B, N, 1, S, W)
    num_blocks, batch_size, _, block, width = forbidden.shape
    total = windows.left + num_blocks * block
    seen = torch.zeros(batch_size, num_blocks * block, total, dtype=torch.bool)
    for b in range(num_blocks):
        rows, columns = slice(b * block, (b + 1) * block), slice(b * block, b * block + width)
        seen[:, rows, columns] = ~forbidden[b, :, 0]
    begin = windows.left - num_keys_before
    assert not seen[:, : windows.num_frames, :begin].any()
    assert not seen[:, : windows.num_frames, windows.left + windows.num_frames :].any()
    return seen[:, : windows.num_frames, begin : windows.left + windows.num_frames]


@pytest.mark.parametrize("num_left_chunks", [-1, 0, 1, 4])
@pytest.mark.parametrize("chunk_size", [1, 2, 5, 16, 40])
@pytest.mark.parametrize("num_frames", [1, 7, 64, 150])
def test_chunk_windows_are_the_chunk_mask(
    num_frames: int, chunk_size: int, num_left_chunks: int
) -> None:
    x_lens = torch.tensor([num_frames, max(1, num_frames // 2)])
    windows = chunk_windows(num_frames, chunk_size, num_left_chunks, x_lens)
    expected = subsequent_chunk_mask(num_frames, chunk_size, num_left_chunks)
    expected = expected & ~make_pad_mask(x_lens, num_frames)[:, None, :]
    assert torch.equal(_seen(windows), expected)


def test_long_input_is_cut_into_blocks_and_short_input_is_not() -> None:
    long = chunk_windows(600, 16, 4, torch.tensor([600]))
    assert (long.num_blocks, long.block, long.left) == (38, 16, 64)
    deep = chunk_windows(75, 2, 4, torch.tensor([75]))  # eight chunks a block
    assert (deep.num_blocks, deep.block, deep.left) == (5, 16, 8)
    short = chunk_windows(60, 16, 4, torch.tensor([60]))
    assert (short.num_blocks, short.block, short.left) == (1, 60, 0)


def test_a_streamed_chunk_sees_what_the_whole_utterance_would_let_it_see() -> None:
    chunk_size, num_left_chunks, num_frames = 4, 2, 24
    whole = subsequent_chunk_mask(num_frames, chunk_size, num_left_chunks)
    for seen in range(0, num_frames, chunk_size):
        frames_seen = torch.tensor([seen, 0])
        x_lens = torch.tensor([chunk_size, chunk_size - 1])
        windows = chunk_windows(chunk_size, chunk_size, num_left_chunks, x_lens, frames_seen)
        assert windows.left == 8
        now, fresh = _seen(windows, num_keys_before=8)
        expected = torch.zeros(chunk_size, 8 + num_frames, dtype=torch.bool)
        expected[:, 8:] = whole[seen : seen + chunk_size]
        assert torch.equal(now, expected[:, seen : seen + 8 + chunk_size])
        assert not fresh[:, :8].any() and not fresh[:, 11:].any() and fresh[:, 8:11].all()


def test_full_windows_see_the_utterance_and_the_cache() -> None:
    windows = full_windows(5, torch.tensor([5, 3]), left=2)
    seen = _seen(windows, num_keys_before=2)
    assert seen.sum(dim=2).tolist() == [[7] * 5, [5] * 5]
    assert not seen[1, :, 5:].any()


def test_with_mask_writes_the_intervals_out() -> None:
    windows = chunk_windows(50, 8, 1, torch.tensor([50, 20]))
    masked = with_mask(windows)
    assert windows.forbidden is None
    assert masked.forbidden is not None
    assert torch.equal(masked.forbidden, forbidden_keys(windows))


def test_dense_windows_join_both_masks() -> None:
    attn_mask = ~subsequent_chunk_mask(6, 2, 1)
    padding_mask = make_pad_mask(torch.tensor([6, 3]))
    both = dense_windows(6, attn_mask, padding_mask).forbidden
    assert both is not None
    assert torch.equal(both.expand(1, 2, 1, 6, 6)[0, :, 0], attn_mask | padding_mask[:, None, :])
    nothing = dense_windows(6).forbidden
    assert nothing is not None and not nothing.any()


def test_lengths_round_up() -> None:
    assert lens_at(torch.tensor([0, 1, 7, 8, 9]), 8).tolist() == [0, 1, 1, 1, 2]
