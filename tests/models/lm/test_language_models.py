"""Language models: token by token, in pieces, in any company, the scores are the same."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from snowmelt.models.lm.build import build_lm
from snowmelt.models.lm.model import TokenLm
from snowmelt.models.lm.transformer import TransformerCore
from snowmelt.presets.language_models import (
    LM_TYPES,
    LmConfig,
    RnnLmConfig,
    TransformerLmConfig,
    lm_preset,
)

VOCAB = 11
RNN = RnnLmConfig(embedding_dim=6, hidden_dim=10, num_layers=2)
TRANSFORMER = TransformerLmConfig(
    encoder_dim=12, nhead=3, dim_feedforward=16, num_layers=2, context_len=4
)
BOTH = pytest.mark.parametrize("config", [RNN, TRANSFORMER], ids=["rnn", "transformer"])


def _model(config: LmConfig) -> TokenLm:
    torch.manual_seed(3)
    return build_lm(config, VOCAB).double().eval()


def _tokens(num_streams: int, length: int) -> Tensor:
    return torch.randint(VOCAB, (num_streams, length), generator=torch.Generator().manual_seed(5))


def _in_pieces(model: TokenLm, tokens: Tensor, cuts: list[int]) -> Tensor:
    state, scores, begin = model.init_state(len(tokens)), [], 0
    for end in [*cuts, tokens.size(1)]:
        piece, state = model.score(tokens[:, begin:end], state)
        scores.append(piece)
        begin = end
    return torch.cat(scores, dim=1)


@BOTH
@pytest.mark.parametrize("cuts", [list(range(1, 13)), [1, 2], [5], [3, 4, 11]])
@torch.inference_mode()
def test_pieces_are_scored_as_the_whole(config: LmConfig, cuts: list[int]) -> None:
    model, tokens = _model(config), _tokens(3, 13)
    whole, _ = model.score(tokens)
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(3, 13).double())
    torch.testing.assert_close(_in_pieces(model, tokens, cuts), whole, atol=1e-12, rtol=0)


@BOTH
@torch.inference_mode()
def test_streams_of_any_length_go_on_together(config: LmConfig) -> None:
    model = _model(config)
    lens = (1, 7, 2, 3)
    rows = [_tokens(1, length + 2) for length in lens]
    states = [model.score(row[:, :-2])[1] for row in rows]
    state = model.stack(states)
    for place in (-2, -1):
        last = torch.cat([row[:, place:][:, :1] for row in rows])
        scores, state = model.score(last, state)
        # Apart and together again, in another order and back.
        state = model.stack(model.unstack(model.stack(model.unstack(state))))
    alone = torch.cat([model.score(row)[0][:, -1] for row in rows])
    torch.testing.assert_close(scores[:, 0], alone, atol=1e-12, rtol=0)


@BOTH
@torch.inference_mode()
def test_a_state_handed_in_stays_as_it_was(config: LmConfig) -> None:
    model, tokens = _model(config), _tokens(2, 3)
    state: Any = model.score(tokens)[1]
    before = [part.clone() for part in state]
    model.score(tokens, state)
    for part, kept in zip(state, before, strict=True):
        assert torch.equal(part, kept)
    for own in model.unstack(state):
        # Views would keep the memory of the whole batch.
        assert all(part.untyped_storage().nbytes() == part.nbytes for part in own)


@BOTH
def test_nothing_is_known_of_later_tokens(config: LmConfig) -> None:
    model, tokens = _model(config), _tokens(1, 9)
    vectors: list[Tensor] = []

    def keep(module: torch.nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        out.retain_grad()
        vectors.append(out)

    model.embedding.register_forward_hook(keep)
    scores, _ = model.score(tokens)
    scores[0, 4].pow(2).sum().backward()
    (vector,) = vectors
    assert vector.grad is not None
    reach = vector.grad[0].abs().sum(-1) > 0
    assert reach[: 4 + 1].all() and not reach[5:].any()


@torch.inference_mode()
def test_a_transformer_forgets_what_is_out_of_its_windows() -> None:
    model, tokens = _model(TRANSFORMER), _tokens(1, 12)
    others = tokens.clone()
    # Two layers of four tokens: place 11 reaches back to place 5.
    others[:, :5] = (others[:, :5] + 1) % VOCAB
    first, second = model.score(tokens)[0], model.score(others)[0]
    assert torch.equal(first[:, 11], second[:, 11])
    assert not torch.allclose(first[:, 10], second[:, 10])
    _, state = model.score(tokens)
    assert isinstance(model.core, TransformerCore)
    assert state.keys.shape == (1, 2, 3, 12) and state.lens.tolist() == [3]


@BOTH
def test_tied_weights_are_one_table(config: LmConfig) -> None:
    tied, apart = _model(config), _model(replace(config, tie_weights=False))
    assert tied.output.weight is tied.embedding.weight
    sizes = [sum(p.numel() for p in model.parameters()) for model in (tied, apart)]
    assert sizes[1] - sizes[0] == tied.embedding.weight.numel()


@pytest.mark.parametrize("lm_type", LM_TYPES)
@torch.inference_mode()
def test_a_fresh_model_prefers_nothing(lm_type: str) -> None:
    torch.manual_seed(3)
    model = build_lm(lm_preset("lm-small", lm_type), 500).eval()
    tokens = torch.randint(500, (4, 20))
    scores, _ = model.score(tokens)
    loss = -scores[:, :-1].gather(2, tokens[:, 1:, None]).mean()
    assert float(loss) < math.log(500) + 0.5
