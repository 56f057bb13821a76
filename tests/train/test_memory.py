"""Is memory estimated and tried before training, and is training the same afterwards?"""

import logging
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.errors import TrainingError
from snowmelt.data.batch import Batch
from snowmelt.models.build import build_transducer
from snowmelt.models.regularisers import regulariser_state
from snowmelt.optim.scaled_adam import ScaledAdam
from snowmelt.presets.training import TrainConfig
from snowmelt.train.distributed import process_group
from snowmelt.train.elastic import launch
from snowmelt.train.free_memory import free_memory
from snowmelt.train.memory import (
    BatchShape,
    MemoryEstimate,
    batch_shapes,
    dry_run,
    estimate_memory,
    pessimistic_batches,
)
from snowmelt.train.objective import StepLosses, TransducerObjective
from snowmelt.train.resume import seed_batch
from tests.train.checkpoints import differences

CPU = torch.device("cpu")
GIB = 2**30


def _objective(config: ExperimentConfig) -> TransducerObjective:
    torch.manual_seed(1)
    model = build_transducer(config.model, 6)
    return TransducerObjective(model, TrainConfig(), encoder_dim=16, vocab_size=6)


def _optimizer(objective: nn.Module) -> ScaledAdam:
    names, params = zip(*objective.named_parameters(), strict=True)
    return ScaledAdam(list(params), lr=0.01, parameters_names=[list(names)])


def _forward(objective: nn.Module) -> Callable[[Batch], StepLosses]:
    return lambda batch: objective(
        batch.features, batch.feature_lens, batch.token_ids, batch.token_lens, batch.frame_tokens, 9
    )


def _batch(num_utterances: int = 2, num_frames: int = 100) -> Batch:
    generator = torch.Generator().manual_seed(5)
    n = num_utterances
    return Batch(
        features=torch.randn(n, num_frames, 80, generator=generator),
        feature_lens=torch.full((n,), num_frames),
        token_ids=torch.randint(1, 6, (n, 4), generator=generator),
        token_lens=torch.full((n,), 4),
        cut_ids=tuple(str(i) for i in range(n)),
        frame_tokens=torch.zeros(n, 0, dtype=torch.int64),
    )


class _Product(nn.Module):
    """Keeps the features once, and their product with the weight once: countable by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("noise", torch.zeros(7))

    def forward(self, batch: Batch) -> StepLosses:
        product = (batch.features * self.weight).exp()
        loss = product.sum()
        zero = loss.detach()
        is_finite = torch.ones(len(batch.cut_ids), dtype=torch.bool)
        return StepLosses(loss, zero, zero, zero, zero, is_finite, is_finite[None].float())


def test_shapes_of_batches() -> None:
    shapes = batch_shapes([[0, 2], [1]], [1.0, 3.214, 2.0], [5, 9, 7])
    assert shapes == [BatchShape(2, 200, 7), BatchShape(1, 321, 9)]
    assert shapes[0].seconds == pytest.approx(4.0)


def test_worst_batches_by_each_criterion() -> None:
    shapes = [
        BatchShape(1, 2000, 10),  # longest
        BatchShape(50, 100, 12),  # most utterances; 5000 frames, 600 tokens
        BatchShape(6, 1000, 20),  # most seconds
        BatchShape(20, 250, 40),  # most tokens, most frames x tokens
        BatchShape(5, 1000, 20),
    ]
    assert pessimistic_batches(shapes) == [
        ("longest utterance", 0),
        ("most utterances", 1),
        ("most seconds", 2),
        ("most tokens, most frames x tokens", 3),
    ]
    # Of several equally long ones that with more of them.
    assert pessimistic_batches([BatchShape(1, 9, 2), BatchShape(2, 9, 2)]) == [
        (
            "longest utterance, most utterances, most seconds, most tokens, most frames x tokens",
            1,
        )
    ]


def test_what_autograd_keeps_is_counted() -> None:
    objective = _Product()
    optimizer = torch.optim.Adam(objective.parameters())
    shapes = [BatchShape(5, 300, 3), BatchShape(1, 20, 3)]
    estimate = estimate_memory(
        objective, objective, optimizer, shapes, model_avg=_Product().double(), feature_dim=10
    )
    assert estimate.shape == shapes[0]
    assert estimate.batch == pytest.approx(1.25 * 5 * 2 * 300 * 10 * 4, abs=2)
    assert estimate.model == 8 * (4 + 8)
    assert estimate.learning == 4 + 2 * 4
    objective(_batch()).loss.backward()
    optimizer.step()
    resumed = estimate_memory(objective, objective, optimizer, shapes, num_processes=2)
    assert resumed.learning == 4
    assert resumed.free is not None and estimate.free is not None
    assert resumed.free < 0.9 * estimate.free


def test_estimate_of_a_transducer(config: ExperimentConfig) -> None:
    objective = _objective(config)
    optimizer = _optimizer(objective)

    def of(*shape: int) -> int:
        shapes = [BatchShape(*shape)]
        return estimate_memory(_forward(objective), objective, optimizer, shapes).batch

    least = of(2, 200, 10)
    more = [of(3, 200, 10), of(2, 300, 10), of(2, 200, 100)]
    assert all(bytes_needed > least for bytes_needed in more)
    # Ten utterances from two of them, against twice the batch counted as a whole.
    assert of(10, 200, 10) == pytest.approx(5 * least, rel=0.1)
    # Of several shapes the one that needs most, whatever it is the worst by.
    shapes = [BatchShape(1, 400, 2), BatchShape(9, 200, 10)]
    estimate = estimate_memory(_forward(objective), objective, optimizer, shapes)
    assert estimate.shape == shapes[1]


def test_frame_labels_are_made_up_where_wanted(config: ExperimentConfig) -> None:
    torch.manual_seed(1)
    train = TrainConfig(frame_loss_scale=0.3)
    objective = TransducerObjective(
        build_transducer(config.model, 6), train, encoder_dim=16, vocab_size=6
    )
    estimate = estimate_memory(
        _forward(objective),
        objective,
        _optimizer(objective),
        [BatchShape(1, 90, 3)],
        has_frame_tokens=True,
    )
    assert estimate.batch > 0


def _estimate(batch: float, free: float | None, num_utterances: int = 10) -> MemoryEstimate:
    return MemoryEstimate(
        model=round(0.1 * GIB),
        learning=round(0.2 * GIB),
        batch=round(batch * GIB),
        shape=BatchShape(num_utterances, 20_000 // num_utterances, 60),
        free=None if free is None else round(free * GIB),
    )


def test_line_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _estimate(2.1, 21.4).report()
    _estimate(2.1, None).report()
    assert [r.getMessage() for r in caplog.records] == [
        "memory: 0.3 GiB for model and optimiser, about 2.1 GiB for a batch of 200 s; "
        "21.4 GiB are free",
        "memory: 0.3 GiB for model and optimiser, about 2.1 GiB for a batch of 200 s",
    ]


def test_what_may_not_fit_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    _estimate(2.0, 1.8).report()
    (record,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert record.getMessage() == (
        "training needs about 2.2 GiB more memory, 1.8 GiB are free "
        "(hint: lower --max-duration, for instance to 160)"
    )


def test_what_cannot_fit_is_an_error() -> None:
    with pytest.raises(TrainingError, match="about 8.2 GiB more .*--max-duration.* to 45"):
        _estimate(8.0, 2.0).report()
    with pytest.raises(TrainingError, match="for instance with --max-utterance-s 45"):
        _estimate(8.0, 2.0, num_utterances=1).report()
    with pytest.raises(TrainingError, match="hint: train a smaller model"):
        _estimate(0.1, 0.1).report()


def _train(
    config: ExperimentConfig, between: Callable[[TransducerObjective, ScaledAdam], None]
) -> dict[str, object]:
    """Weights, optimiser and all other state after a few steps, `between` two of them."""
    objective = _objective(config)
    optimizer = _optimizer(objective)
    seed_batch(7, 9, 0)
    between(objective, optimizer)
    draws = [random.random(), torch.rand(3)]
    for number in range(4):
        seed_batch(7, number, 0)
        _forward(objective)(_batch()).loss.backward()
        if number == 2:  # gradients are there too
            between(objective, optimizer)
        optimizer.step()
        optimizer.zero_grad()
    return {
        "model": dict(objective.state_dict()),
        "optimizer": optimizer.state_dict(),
        "regularisers": regulariser_state(objective),
        "draws": draws,
    }


def test_training_is_the_same_with_and_without_a_trial(config: ExperimentConfig) -> None:
    def look(objective: TransducerObjective, optimizer: ScaledAdam) -> None:
        shapes = [BatchShape(3, 150, 4), BatchShape(1, 900, 4)]
        estimate_memory(_forward(objective), objective, optimizer, shapes)
        # Longer than any batch that is trained on.
        batches = [("longest utterance", _batch(1, 2100)), ("most utterances", _batch(3, 150))]
        dry_run(_forward(objective), objective, optimizer, batches)

    without = _train(config, lambda *_: None)
    assert not differences(without, _train(config, look))


def _train_with_trial(config: ExperimentConfig) -> None:
    """The wrapper listens to the parameters, so it hears the trial's backward too."""
    with process_group(CPU) as ranks:
        gradients = []
        for has_trial in (False, True):
            objective = _objective(config)
            wrapper = DistributedDataParallel(
                objective,
                find_unused_parameters=True,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
            )
            if has_trial:
                trial = [("most seconds", _batch(3, 150 + 50 * ranks.rank))]
                dry_run(_forward(objective), objective, _optimizer(objective), trial)
            for number in range(3):
                seed_batch(7, number, ranks.rank)
                _forward(wrapper)(_batch(2 + ranks.rank)).loss.backward()
            gradients.append({n: p.grad for n, p in objective.named_parameters()})
        assert not differences(*gradients)


@pytest.mark.slow
def test_a_trial_beside_the_data_parallel_wrapper(config: ExperimentConfig) -> None:
    launch(2, _train_with_trial, config)


def _no_room(batch: Batch) -> StepLosses:
    torch.empty(2**55, dtype=torch.uint8)  # more than any processor can address
    raise AssertionError


def _raising(error: Exception) -> Callable[[Batch], StepLosses]:
    def forward(batch: Batch) -> StepLosses:
        raise error

    return forward


@pytest.mark.parametrize(
    "forward",
    [
        _no_room,
        _raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        _raising(RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)")),
        _raising(MemoryError()),
    ],
)
def test_a_batch_that_does_not_fit_is_named(
    config: ExperimentConfig, forward: Callable[[Batch], StepLosses]
) -> None:
    objective = _objective(config)
    optimizer = _optimizer(objective)
    with pytest.raises(TrainingError) as error:
        dry_run(forward, objective, optimizer, [("most seconds", _batch(8, 1500))])
    assert str(error.value) == (
        "out of memory in a trial of the batch with the most seconds: 120 s with padding, "
        "8 utterances of up to 15 s (hint: lower --max-duration, for instance to 60)"
    )
    alone = pytest.raises(TrainingError, match=r"one utterance of 15 s .*--max-utterance-s 7\.5")
    with alone:
        dry_run(forward, objective, optimizer, [("longest utterance", _batch(1, 1500))])


def test_room_is_kept_for_the_state_of_the_optimiser(
    config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = _objective(config)
    optimizer = _optimizer(objective)
    empty, taken = torch.empty, []

    def counted(size: int, **kwargs: object) -> Tensor:
        taken.append(size)
        return empty(size, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr("snowmelt.train.memory.torch.empty", counted)
    dry_run(_raising(MemoryError()), _Product(), optimizer, [])
    assert taken == []
    with pytest.raises(TrainingError):
        dry_run(_raising(MemoryError()), objective, optimizer, [("most seconds", _batch())])
    assert taken == [2 * sum(p.nbytes for p in objective.parameters())]


def test_a_mistake_is_no_lack_of_memory(config: ExperimentConfig) -> None:
    objective = _objective(config)
    mistake = _raising(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        dry_run(mistake, objective, _optimizer(objective), [("most seconds", _batch())])


def test_a_bad_utterance_is_left_out_of_the_trial(config: ExperimentConfig) -> None:
    batch = _batch()
    batch.token_lens[:] = 0
    objective = _objective(config)
    dry_run(_forward(objective), objective, _optimizer(objective), [("most seconds", batch)])


def _write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


MEMINFO = "MemTotal:       24684096 kB\nMemFree: 1 kB\nMemAvailable:   2000 kB\n"


def test_free_memory_of_this_machine() -> None:
    free = free_memory(CPU)
    assert free is not None and free > 2**20


def test_free_memory_without_limits(tmp_path: Path) -> None:
    physical = free_memory(CPU, tmp_path)  # nothing is known but how much there is
    assert physical is not None and physical > 2**28
    _write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n4:cpu:/\n"})
    assert free_memory(CPU, tmp_path) == 2000 * 1024


def test_free_memory_in_a_control_group(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/job/step\n",
            "sys/fs/cgroup/job/step/memory.max": "max\n",
            "sys/fs/cgroup/job/step/memory.current": "300000\n",
            # The limit is that of the group above.
            "sys/fs/cgroup/job/memory.max": "1000000\n",
            "sys/fs/cgroup/job/memory.current": "500000\n",
            "sys/fs/cgroup/job/memory.stat": "anon 400000\ninactive_file 70000\nslab 3\n",
        },
    )
    assert free_memory(CPU, tmp_path) == 1_000_000 - 500_000 + 70_000


def test_free_memory_in_a_control_group_of_the_first_version(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory"
    _write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            # Containers see their own group as the top.
            "proc/self/cgroup": "9:cpu:/x\n4:memory:/docker/0123\n0::/\n",
            f"{folder}/memory.limit_in_bytes": "900000\n",
            f"{folder}/memory.usage_in_bytes": "950000\n",
            f"{folder}/memory.stat": "inactive_file 1\ntotal_inactive_file 60000\n",
        },
    )
    assert free_memory(CPU, tmp_path) == 10_000
