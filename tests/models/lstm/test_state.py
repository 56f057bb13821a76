"""States: the original's pair, and the frame after which they are taken."""

import torch

from snowmelt.models.lstm.state import LstmState, flat_to_state, state_after, state_to_flat
from snowmelt.models.state import stack_states, unstack_states


def test_flat_pair_there_and_back() -> None:
    state = LstmState(torch.randn(5, 3, 4), torch.randn(5, 3, 7))
    h, c = state_to_flat(state)
    assert (h.shape, c.shape) == ((3, 5, 4), (3, 5, 7))
    assert all(torch.equal(a, b) for a, b in zip(flat_to_state((h, c)), state, strict=True))


def test_flat_pairs_stack_along_their_second_axis() -> None:
    states = [LstmState(torch.randn(1, 3, 4), torch.randn(1, 3, 7)) for _ in range(2)]
    pairs = [state_to_flat(state) for state in states]
    stacked = tuple(torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))
    batch = flat_to_state(stacked)
    for a, b in zip(batch, stack_states(states), strict=True):
        assert torch.equal(a, b)
    for one, expected in zip(unstack_states(batch), states, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, expected, strict=True))


def test_a_stream_remembers_its_last_valid_frame() -> None:
    frames = torch.arange(12.0).reshape(4, 3, 1)
    frames[2:, 1] = torch.nan
    before = torch.tensor([[-1.0], [-2.0], [-3.0]])
    after = state_after(frames, before, torch.tensor([4, 2, 0]))
    assert after.flatten().tolist() == [9.0, 4.0, -3.0]
    assert state_after(frames[:2], before, None).flatten().tolist() == [3.0, 4.0, 5.0]
    assert state_after(frames.bfloat16(), before, None).dtype == torch.float32
