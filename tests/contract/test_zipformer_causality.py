"""What an output frame depends on: its own chunk and its past, and nothing behind."""

import pytest
import torch

from tests.contract.tiny_zipformer import tiny_zipformer


@pytest.mark.parametrize("chunk_len", [16, 32])
def test_no_cut_of_the_future_changes_the_past(chunk_len: int) -> None:
    """Every chunk boundary: frames before it are the same whatever follows, or if nothing does."""
    encoder = tiny_zipformer(decode_chunk_size=chunk_len // 2)
    num_frames = 7 + 6 * chunk_len
    x = torch.randn(1, num_frames, 12, dtype=torch.float64)
    with torch.no_grad():
        whole, _ = encoder(x, torch.tensor([num_frames]))
        for cut in range(7 + chunk_len, num_frames, chunk_len):
            num_done = (cut - 7) // 4
            other = x.clone()
            other[:, cut:] = 100.0 * torch.randn_like(other[:, cut:])
            changed, _ = encoder(other, torch.tensor([num_frames]))
            ended, lens = encoder(x[:, :cut], torch.tensor([cut]))
            assert lens.tolist() == [num_done]
            torch.testing.assert_close(changed[:, :num_done], whole[:, :num_done])
            torch.testing.assert_close(ended, whole[:, :num_done])
            assert not torch.allclose(changed[:, num_done:], whole[:, num_done:])


def test_gradients_reach_back_but_never_beyond_the_chunk() -> None:
    encoder = tiny_zipformer()
    x = torch.randn(1, 7 + 5 * 16, 12, dtype=torch.float64, requires_grad=True)
    out, _ = encoder(x, torch.tensor([x.size(1)]))
    for chunk in range(5):
        (grad,) = torch.autograd.grad(
            out[:, 4 * chunk : 4 * (chunk + 1)].sum(), x, retain_graph=True
        )
        reach = grad.abs().sum(dim=2)[0].nonzero().flatten()
        assert int(reach.max()) < 7 + 16 * (chunk + 1)
        # The pooling's mean brings in the very beginning.
        assert int(reach.min()) == 0


def test_attention_sees_the_left_context_it_was_given() -> None:
    """With the running mean switched off, the reach to the left grows with num_left_chunks."""
    firsts = []
    for num_left_chunks in (0, 1, 2, -1):
        encoder = tiny_zipformer(factors=(1,), num_left_chunks=num_left_chunks)
        layers = encoder.encoders[0].layers
        for layer in layers:
            torch.nn.init.zeros_(layer.pooling.proj.weight)
            for conv in (layer.conv_module1, layer.conv_module2):
                torch.nn.init.zeros_(conv.pointwise_conv2.weight)
        x = torch.randn(1, 7 + 10 * 16, 12, dtype=torch.float64, requires_grad=True)
        out, _ = encoder(x, torch.tensor([x.size(1)]))
        (grad,) = torch.autograd.grad(out[:, -1].sum(), x)
        firsts.append(int(grad.abs().sum(dim=2)[0].nonzero()[0]))
    # From chunk 9, two layers with two passes each reach back, a chunk of 16 feature frames a pass.
    assert firsts == [9 * 16, 5 * 16, 16, 0]
