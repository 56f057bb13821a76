"""One LSTM layer: torch's own numbers, scales, and the filter of its gradients."""

import pytest
import torch
from torch import Tensor, nn

from snowmelt.models.lstm.projected import ProjectedLstm, ScaledLstm

NAMES = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0"]


def _zeros(lstm: ProjectedLstm, batch_size: int) -> tuple[Tensor, Tensor]:
    like = lstm.weight_ih_l0
    return (
        like.new_zeros(batch_size, lstm.output_size),
        like.new_zeros(batch_size, lstm.hidden_size),
    )


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported:UserWarning")
@pytest.mark.parametrize("proj_size", [0, 5])
def test_is_torchs_lstm(proj_size: int) -> None:
    torch.manual_seed(0)
    ours = ProjectedLstm(6, 9, proj_size).double()
    theirs = nn.LSTM(6, 9, proj_size=proj_size).double()
    nn.init.normal_(ours.bias_ih_l0)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(7, 2, 6, dtype=torch.float64)
    expected, (h, c) = theirs(x)
    hs, cs = ours(x, *_zeros(ours, 2))
    torch.testing.assert_close(hs, expected)
    torch.testing.assert_close(hs[-1], h[0])
    torch.testing.assert_close(cs[-1], c[0])


def test_names_order_and_initial_scales() -> None:
    lstm = ScaledLstm(6, 9, 5)
    assert list(lstm.state_dict()) == [*NAMES, *(f"{name}_scale" for name in NAMES)]
    for name, value in lstm.state_dict().items():
        if name.endswith("_scale"):
            is_bias = name.startswith("bias")
            expected = torch.tensor(1.0 if is_bias else 9.0**-0.5 / 0.1).log()
            torch.testing.assert_close(value, expected)
    assert not lstm.bias_ih_l0.any()
    largest = float(lstm.weight_ih_l0.detach().abs().max())
    assert 0.16 < largest <= 0.1 * 3.0**0.5
    assert list(ScaledLstm(5, 5).state_dict()) == [
        *NAMES[:4],
        *(f"{name}_scale" for name in NAMES[:4]),
    ]


def _noisy(**arguments: float) -> ScaledLstm:
    torch.manual_seed(0)
    lstm = ScaledLstm(6, 9, 5, **arguments).double()
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return lstm


def test_a_scale_multiplies_its_weight_and_folding_keeps_the_function() -> None:
    lstm = _noisy().eval()
    x = torch.randn(7, 2, 6, dtype=torch.float64)
    folded = lstm.folded()
    assert type(folded) is ProjectedLstm
    assert list(folded.state_dict()) == NAMES
    for name, value in folded.state_dict().items():
        scale = lstm.state_dict()[f"{name}_scale"].exp()
        torch.testing.assert_close(value, lstm.state_dict()[name] * scale)
    for a, b in zip(lstm(x, *_zeros(lstm, 2)), folded(x, *_zeros(lstm, 2)), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_filtered_in_training_only() -> None:
    x = torch.randn(7, 3, 6, dtype=torch.float64)
    grads = []
    for training in (False, True):
        lstm = _noisy(grad_norm_threshold=2.0).train(training)
        leaf = x.clone().requires_grad_()
        out, _ = lstm(leaf, *_zeros(lstm, 3))
        (out.square() * torch.tensor([1.0, 1.0, 500.0])[:, None]).sum().backward()
        grads.append([leaf.grad, *(p.grad for p in lstm.parameters())])
    plain, filtered = grads
    # The wild utterance's gradient shrinks far more than the others', the weights' in proportion.
    norms = [g[0].square().sum(dim=(0, 2)).sqrt() for g in grads]
    ratio = (norms[1] / norms[0]).tolist()
    assert ratio[2] < 0.05 < 0.5 < min(ratio[:2])
    weights = [b / a for a, b in zip(plain[1:], filtered[1:], strict=True)]
    for w in weights:
        torch.testing.assert_close(w, weights[0].flatten()[0].expand_as(w))
    assert float(weights[0].flatten()[0]) < 0.1


def test_without_a_gradient_to_the_input_nothing_is_filtered() -> None:
    lstm = _noisy().train()
    out, _ = lstm(torch.randn(4, 2, 6, dtype=torch.float64), *_zeros(lstm, 2))
    out.sum().backward()
    assert lstm.weight_hr_l0 is not None
    assert lstm.weight_hr_l0.grad is not None
