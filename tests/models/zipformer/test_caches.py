"""How a cache moves on."""

import torch

from snowmelt.models.zipformer.caches import kept_frames, kept_mean


def test_kept_frames_per_stream() -> None:
    frames = torch.arange(7.0)[:, None, None] + torch.tensor([0.0, 100.0, 200.0])[:, None]
    kept = kept_frames(frames, 4, torch.tensor([3, 1, 0]))  # a cache of 4, then 3 new frames
    assert kept[:, :, 0].tolist() == [[3, 4, 5, 6], [101, 102, 103, 104], [200, 201, 202, 203]]
    assert kept_frames(frames, 4, None)[1, :, 0].tolist() == [103, 104, 105, 106]
    assert kept_frames(frames, 0, None).shape == (3, 0, 1)
    assert kept_frames(frames, 0, torch.tensor([3, 1, 0])).shape == (3, 0, 1)


def test_kept_mean_per_stream() -> None:
    old = torch.tensor([[10.0], [20.0], [30.0]])
    means = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[..., None]
    assert kept_mean(old, means, torch.tensor([2, 1, 0])).tolist() == [[4.0], [2.0], [30.0]]
    assert kept_mean(old, means, None).tolist() == [[4.0], [5.0], [6.0]]
