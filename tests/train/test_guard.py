"""A step without its bad utterances is the step of a batch that never held them, to the bit."""

import functools
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.core.errors import TrainingError
from snowmelt.data.batch import AsrDataset, Batch
from snowmelt.models.build import build_transducer
from snowmelt.models.regularisers import MaxEig, regulariser_state, set_batch_count
from snowmelt.presets.frames import num_encoder_frames
from snowmelt.presets.models import LstmConfig
from snowmelt.presets.training import TrainConfig
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.distributed import process_group
from snowmelt.train.elastic import launch
from snowmelt.train.guard import (
    BadUtterance,
    BadUtterances,
    ForwardState,
    guarded_forward,
    select_rows,
    without_bad_features,
)
from snowmelt.train.objective import StepLosses, TransducerObjective
from snowmelt.train.resume import seed_batch
from tests.train.noise import NoiseCorpus

VOCAB = 6
NAN = float("nan")
# The longest is among those that are left out: its padding must go with it.
LENGTHS = {"a": (90, 3), "b": (150, 5), "c": (70, 2), "d": (120, 4)}


def _batch(names: str, dtype: torch.dtype = torch.float32) -> Batch:
    """Utterances of LENGTHS, each with the same content in whatever batch it is."""
    rows = []
    for name in names:
        generator = torch.Generator().manual_seed(ord(name))
        num_frames, num_tokens = LENGTHS[name]
        labels = torch.randint(VOCAB, (num_encoder_frames(num_frames),), generator=generator)
        features = torch.randn(num_frames, 80, generator=generator, dtype=torch.float64)
        tokens = torch.randint(1, VOCAB, (num_tokens,), generator=generator)
        rows.append((features.to(dtype), tokens, labels))
    features, tokens, labels = zip(*rows, strict=True)
    pad = nn.utils.rnn.pad_sequence
    return Batch(
        features=pad(features, batch_first=True, padding_value=-23.0),
        feature_lens=torch.tensor([len(x) for x in features]),
        token_ids=pad(tokens, batch_first=True),
        token_lens=torch.tensor([len(x) for x in tokens]),
        cut_ids=tuple(names),
        frame_tokens=pad(labels, batch_first=True, padding_value=-100),
    )


@pytest.fixture(params=["zipformer", "lstm"])
def any_config(config: ExperimentConfig, request: pytest.FixtureRequest) -> ExperimentConfig:
    """Tiny models of both kinds."""
    lstm = LstmConfig(
        num_encoder_layers=2,
        encoder_dim=16,
        rnn_hidden_size=24,
        dim_feedforward=16,
        decoder_dim=16,
        joiner_dim=16,
    )
    return config if request.param == "zipformer" else replace(config, model=lstm)


def _objective(config: ExperimentConfig, dtype: torch.dtype = torch.float32) -> TransducerObjective:
    torch.manual_seed(1)
    model = build_transducer(config.model, VOCAB)
    train = TrainConfig(ctc_loss_scale=0.2, frame_loss_scale=0.2)
    objective = TransducerObjective(model, train, encoder_dim=16, vocab_size=VOCAB).to(dtype)
    # Late enough that layers and modules are dropped at random.
    set_batch_count(model, 100.0)
    return objective


def _forward(
    objective: nn.Module, poison: Callable[[str], float] = lambda name: 1.0
) -> Callable[[Batch], StepLosses]:
    """Losses of a batch; features of an utterance are multiplied by `poison` where no guard sees.

    As if the model had made something infinite of it.
    """

    def forward(batch: Batch) -> StepLosses:
        factors = torch.tensor([poison(name) for name in batch.cut_ids], dtype=batch.features.dtype)
        return objective(
            batch.features * factors[:, None, None],
            batch.feature_lens,
            batch.token_ids,
            batch.token_lens,
            batch.frame_tokens,
            5000,
        )

    return forward


def _reseed() -> None:
    seed_batch(7, 5000, 0)


def _gradients(objective: nn.Module) -> dict[str, torch.Tensor]:
    """Gradients by name, and none left behind; parameters without one stand for zeros."""
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in objective.named_parameters()
    }
    objective.zero_grad()
    return gradients


def _assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    assert all(bool(x.isfinite().all()) for x in one.values())
    assert any(bool(x.any()) for x in one.values())


def _assert_equal(one: Batch, other: Batch) -> None:
    for name, value in vars(one).items():
        expected = getattr(other, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, expected) and value.stride() == expected.stride(), name
        else:
            assert value == expected, name


def test_rows_are_the_batch_made_of_them() -> None:
    batch = _batch("abcd")
    _assert_equal(select_rows(batch, [0, 2]), _batch("ac"))
    _assert_equal(select_rows(batch, [3, 1]), _batch("db"))
    no_labels = replace(batch, frame_tokens=torch.zeros(4, 0, dtype=torch.int64))
    assert select_rows(no_labels, [2]).frame_tokens.shape == (1, 0)
    nothing = select_rows(batch, [])
    assert nothing.features.shape == (0, 0, 80) and nothing.token_ids.shape == (0, 0)
    assert nothing.cut_ids == () and len(nothing.token_lens) == 0


def test_rows_are_the_batch_the_data_set_makes_of_them(
    data_dir: Path, tokenizer: Tokenizer
) -> None:
    cuts = NoiseCorpus(data_dir / "noise").cuts("train")
    dataset = AsrDataset(cuts, tokenizer, has_frame_tokens=True)
    _assert_equal(select_rows(dataset.get([1, 7, 4], 1), [0, 2]), dataset.get([1, 4], 1))


def test_features_that_are_not_finite_and_empty_transcripts_are_left_out() -> None:
    batch = _batch("abcd")
    assert without_bad_features(batch) == (batch, ())
    batch.features[0, 80, 3] = NAN
    batch.features[2, 0, 0] = float("-inf")
    batch.token_lens[3] = 0
    usable, bad = without_bad_features(batch)
    _assert_equal(usable, _batch("b"))
    assert [(u.cut_id, u.reason) for u in bad] == [
        ("a", "its features are not finite"),
        ("c", "its features are not finite"),
        ("d", "its transcript has no token"),
    ]
    assert [u.seconds for u in bad] == pytest.approx([0.9, 0.7, 1.2])


def test_large_features_are_finite() -> None:
    batch = _batch("a")
    batch.features.fill_(3e38)  # their sum is infinite
    assert without_bad_features(batch)[0] is batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", ["b", "ad", "bcd"])
def test_gradient_is_that_of_a_batch_without_them(
    any_config: ExperimentConfig, dtype: torch.dtype, bad: str
) -> None:
    good = "".join(name for name in LENGTHS if name not in bad)
    objective, reference = _objective(any_config, dtype), _objective(any_config, dtype)
    state = ForwardState(objective)
    for _ in range(3):  # what regularisers remember of one step shows in the next
        _reseed()
        expected = _forward(reference)(_batch(good, dtype))
        expected.loss.backward()
        forward = _forward(objective, lambda name: NAN if name in bad else 1.0)
        step = guarded_forward(forward, _batch("abcd", dtype), state=state, reseed=_reseed)
        step.losses.loss.backward()
        assert [u.cut_id for u in step.bad] == list(bad)
        _assert_equal(step.batch, _batch(good, dtype))
        assert torch.equal(step.losses.loss, expected.loss)
        _assert_same(_gradients(objective), _gradients(reference))
        assert regulariser_state(objective) == regulariser_state(reference)


def test_it_matters_that_regularisers_are_put_back(config: ExperimentConfig) -> None:
    """The test above can fail: without that, or without new seeds, gradients differ."""
    objective = _objective(config)
    before = regulariser_state(objective)
    _reseed()
    _forward(objective)(_batch("abcd"))
    assert regulariser_state(objective) != before
    objective.zero_grad()
    _reseed()
    _forward(objective)(_batch("ac")).loss.backward()
    second = _gradients(objective)
    _forward(objective)(_batch("ac")).loss.backward()
    third = _gradients(objective)
    assert any(not torch.equal(second[name], third[name]) for name in second)


def test_reason_gives_the_losses(config: ExperimentConfig) -> None:
    objective = _objective(config)
    forward = _forward(objective, lambda name: NAN if name == "c" else 1.0)
    step = guarded_forward(forward, _batch("acd"), state=ForwardState(objective), reseed=_reseed)
    (bad,) = step.bad
    assert bad.cut_id == "c" and bad.seconds == pytest.approx(0.7)
    assert bad.reason.startswith("its loss is not finite (simple nan, pruned ")


def test_a_good_batch_is_computed_once(config: ExperimentConfig) -> None:
    objective, calls = _objective(config), []

    def forward(batch: Batch) -> StepLosses:
        calls.append(batch)
        return _forward(objective)(batch)

    batch = _batch("ab")
    step = guarded_forward(forward, batch, state=ForwardState(objective), reseed=_reseed)
    assert len(calls) == 1 and calls[0] is batch is step.batch and step.bad == ()


def test_nothing_left_gives_zeros(config: ExperimentConfig) -> None:
    objective = _objective(config)
    with torch.no_grad():
        next(objective.parameters()).fill_(NAN)
    step = guarded_forward(
        _forward(objective), _batch("ab"), state=ForwardState(objective), reseed=_reseed
    )
    assert len(step.bad) == 2 and step.batch.cut_ids == ()
    step.losses.loss.backward()
    assert step.losses.loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())


def test_forward_state_is_all_that_a_forward_changes(any_config: ExperimentConfig) -> None:
    """All numbers and tensors of all modules are compared, not those the state knows of."""
    model = nn.Sequential(_objective(any_config), MaxEig(80, channel_dim=2))
    objective, max_eig = model

    def everything() -> dict[str, object]:
        found: dict[str, object] = {}
        for name, module in model.named_modules():
            plain = {k: v for k, v in vars(module).items() if isinstance(v, int | float)}
            tensors = {k: v.tolist() for k, v in module.named_buffers(recurse=False)}
            found |= {f"{name}.{k}": v for k, v in (plain | tensors).items()}
        return found

    state = ForwardState(model)
    before, copied = everything(), state.copy()
    _reseed()
    batch = _batch("abcd")
    _forward(objective)(batch).loss.backward()
    max_eig(batch.features.requires_grad_())
    changed = {name for name, value in everything().items() if value != before[name]}
    kinds = {name.rpartition(".")[2] for name in changed}
    assert "max_eig_direction" in kinds
    assert any_config.model.encoder == "lstm" or "num_calls" in kinds
    state.restore(copied)
    assert everything() == before


_batch_once = functools.cache(_batch)


def _report(guard: BadUtterances, names: str, bad: str, batch_idx_train: int = 1) -> None:
    guard.report(
        _batch_once(names),
        [BadUtterance(n, 0.5, "its loss is not finite") for n in bad],
        batch_idx_train,
    )


def test_bad_utterances_are_named_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = BadUtterances(tmp_path, max_files=2)
    _report(guard, "ab", "")
    assert not list(tmp_path.iterdir()) and not caplog.records
    for number in (2, 3, 4):
        _report(guard, "abc", "ac", number)
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert lines[0] == "Batch 2: left out a (0.50 s): its loss is not finite"
    assert sum("left out" in line for line in lines) == 6
    first, second = tmp_path.glob("batch-*.pt")  # not three
    kept = load_checkpoint(first)
    assert torch.equal(kept["features"], _batch("abc").features)
    assert kept["cut_ids"] == ["a", "b", "c"] and kept["bad"].keys() == {"a", "c"}
    assert {load_checkpoint(p)["batch_idx_train"] for p in (first, second)} == {2, 3}
    # A run that goes on keeps no more.
    _report(BadUtterances(tmp_path, max_files=2), "abc", "a")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_batch_that_cannot_be_kept_ends_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "plain").touch()
    _report(BadUtterances(tmp_path / "plain"), "abc", "a")
    assert "The batch is not kept: cannot make the folder" in caplog.text


def test_batches_without_a_usable_utterance_end_the_run(tmp_path: Path) -> None:
    guard = BadUtterances(tmp_path, max_consecutive_batches=3)
    for names, bad in (("ab", "ab"), ("a", "a"), ("ab", "b"), ("a", "a"), ("ab", "ba")):
        _report(guard, names, bad)
    resumed = BadUtterances(tmp_path, max_consecutive_batches=3)
    resumed.load(guard.state())
    with pytest.raises(TrainingError, match="at batch 9 .* 3 batches in a row had no") as error:
        _report(resumed, "c", "c", 9)
    assert "--base-lr" in error.value.hint and "--inf-check 1" in error.value.hint
    _report(BadUtterances(tmp_path, max_consecutive_batches=3), "c", "c", 9)


def test_a_large_share_of_bad_utterances_ends_the_run(tmp_path: Path) -> None:
    guard = BadUtterances(tmp_path)
    for number in range(19):  # a third, but few
        _report(guard, "abc", "b", number)
    with pytest.raises(TrainingError, match="of the last batches' utterances only 67% had a fin"):
        for number in range(19, 30):
            _report(guard, "abc", "b", number)
    guard = BadUtterances(tmp_path)
    for number in range(1000):  # many, but a small share
        _report(guard, "abcd", "b" if number % 3 == 0 else "", number)


def test_old_sins_are_forgotten(tmp_path: Path) -> None:
    guard = BadUtterances(tmp_path)
    for number in range(15):
        _report(guard, "ab", "a", number)
    for number in range(1000):
        _report(guard, "ab", "", number)
    for number in range(15):
        _report(guard, "ab", "a", number)


def _mean_gradients(
    objective: TransducerObjective, usable: tuple[str, str]
) -> dict[str, torch.Tensor]:
    """What two processes should agree on, computed one after the other."""
    state = ForwardState(objective)
    before = state.copy()
    mean: dict[str, torch.Tensor] = {}
    for rank, names in enumerate(usable):
        if names:
            seed_batch(7, 5000, rank)
            _forward(objective)(_batch(names)).loss.backward()
            state.restore(before)
        for name, gradient in _gradients(objective).items():
            mean[name] = mean.get(name, 0.0) + gradient / 2
    return mean


def _train_side_by_side(config: ExperimentConfig) -> None:
    """Two processes, the second with bad utterances: none waits, and the gradient is the mean."""
    with process_group(torch.device("cpu")) as ranks:
        objective = _objective(config)
        wrapper = DistributedDataParallel(
            objective,
            find_unused_parameters=True,
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )
        for bad in ("", "d", "cd", "cd", "c", ""):
            good = "".join(name for name in "cd" if name not in bad)
            expected = _mean_gradients(_objective(config), ("ab", good))
            state = ForwardState(objective)
            before = state.copy()
            step = guarded_forward(
                _forward(wrapper, lambda name, bad=bad: NAN if name in bad else 1.0),
                _batch("ab" if ranks.is_main else "cd"),
                state=state,
                reseed=lambda: seed_batch(7, 5000, ranks.rank),
            )
            step.losses.loss.backward()
            assert len(step.bad) == (0 if ranks.is_main else len(bad))
            _assert_same(_gradients(objective), expected)
            state.restore(before)


@pytest.mark.slow
def test_a_process_without_usable_utterances_takes_part(config: ExperimentConfig) -> None:
    launch(2, _train_side_by_side, config)


def test_seeds_are_left_to_the_batch(config: ExperimentConfig) -> None:
    """Draws after the guarded forward continue the batch's own stream, bad utterances or not."""
    draws = []
    for bad in ("", "b"):
        objective = _objective(config)
        names = "ab" if bad else "a"
        guarded_forward(
            _forward(objective, lambda name, bad=bad: NAN if name in bad else 1.0),
            _batch(names),
            state=ForwardState(objective),
            reseed=_reseed,
        )
        draws.append((random.random(), torch.rand(3).tolist()))
    assert draws[0] == draws[1]
