"""What an output frame depends on: its past, nine feature frames, and nothing behind."""

import torch

from tests.contract.tiny_lstm import tiny_lstm


def test_gradients_reach_back_to_the_start_and_never_beyond_the_frame() -> None:
    encoder = tiny_lstm()
    x = torch.randn(1, 5 + 4 * 12, 12, dtype=torch.float64, requires_grad=True)
    out, _ = encoder(x, torch.tensor([x.size(1)]))
    assert out.size(1) == 12
    for u in range(12):
        (grad,) = torch.autograd.grad(out[:, u].sum(), x, retain_graph=True)
        reach = grad.abs().sum(dim=2)[0].nonzero().flatten()
        assert int(reach.min()) == 0
        assert int(reach.max()) == 4 * u + 8


def test_no_cut_of_the_future_changes_the_past() -> None:
    encoder = tiny_lstm()
    num_frames = 5 + 4 * 10
    x = torch.randn(1, num_frames, 12, dtype=torch.float64)
    with torch.no_grad():
        whole, _ = encoder(x, torch.tensor([num_frames]))
        for cut in range(9, num_frames):
            num_done = (cut - 5) // 4
            other = x.clone()
            other[:, cut:] = 100.0 * torch.randn_like(other[:, cut:])
            changed, _ = encoder(other, torch.tensor([num_frames]))
            ended, lens = encoder(x[:, :cut], torch.tensor([cut]))
            assert lens.tolist() == [num_done]
            torch.testing.assert_close(changed[:, :num_done], whole[:, :num_done])
            torch.testing.assert_close(ended, whole[:, :num_done])
            assert not torch.allclose(changed[:, num_done:], whole[:, num_done:])
