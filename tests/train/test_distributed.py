"""Processes that train together: they add up, they share what one has read, and learn as one."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed import TCPStore
from torch.nn.parallel import DistributedDataParallel

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.core.errors import CheckpointError, ConfigError, TrainingError
from snowmelt.models.build import build_transducer
from snowmelt.presets.models import LstmConfig, ModelConfig
from snowmelt.presets.training import TrainConfig
from snowmelt.train import distributed
from snowmelt.train.distributed import (
    Ranks,
    any_rank,
    broadcast_from_main,
    file_from_main,
    process_group,
    sum_over_ranks,
)
from snowmelt.train.elastic import launch
from snowmelt.train.objective import TransducerObjective

CPU = torch.device("cpu")
VOCAB = 6

# Not a multiple of a piece.
_CONTENT = bytes(range(95))


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(CPU) as ranks:
        assert ranks == Ranks(0, 1) and ranks.is_main
        assert sum_over_ranks((1.5, 2.0), ranks, CPU) == [1.5, 2.0]
        assert any_rank(True, ranks, CPU) and not any_rank(False, ranks, CPU)
        assert broadcast_from_main(lambda: "mine", ranks) == "mine"


class _FakeGroup:
    """Stands for torch's process group and for GPUs: notes what it is asked to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rank: int, num_gpus: int) -> None:
        self.calls: list[tuple[str, Any]] = []
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, str(rank))
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", "1")
        monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        monkeypatch.setattr(torch.cuda, "set_device", lambda n: self.calls.append(("gpu", n)))
        monkeypatch.setattr(dist, "init_process_group", lambda b: self.calls.append(("join", b)))
        monkeypatch.setattr(dist, "destroy_process_group", lambda: self.calls.append(("leave", 0)))
        monkeypatch.setattr(dist, "get_rank", lambda: rank)
        monkeypatch.setattr(dist, "get_world_size", lambda: 4)


@pytest.mark.parametrize("rank", [0, 2, 3])
def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    group = _FakeGroup(monkeypatch, rank, num_gpus=4)
    with process_group(torch.device("cuda")) as ranks:
        assert ranks == Ranks(rank, 4)
    # The device is chosen first: what joins takes the one that is chosen.
    assert group.calls == [("gpu", rank), ("join", "nccl"), ("leave", 0)]


def test_processes_on_the_cpu_need_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    group = _FakeGroup(monkeypatch, 1, num_gpus=0)
    with process_group(CPU):
        pass
    assert group.calls == [("join", "gloo"), ("leave", 0)]


def test_too_few_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    group = _FakeGroup(monkeypatch, 2, num_gpus=2)
    with (
        pytest.raises(ConfigError, match="needs GPU 2, 2 are visible .*CUDA_VISIBLE_DEVICES"),
        process_group(torch.device("cuda")),
    ):
        pass
    assert group.calls == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("environment variable MASTER_ADDR expected"), "MASTER_ADDR expected"),
        (dist.DistNetworkError("port: 1, code: -98, name: EADDRINUSE\nC++ frames"), "EADDRINUSE"),
        (RuntimeError("Gloo failed with [/gloo/gloo/transport/tcp/a.cc:1] timed out"), "timed out"),
    ],
)
def test_who_cannot_join_says_where(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def refuse(backend: str) -> None:
        raise error

    _FakeGroup(monkeypatch, 1, num_gpus=0)
    monkeypatch.setattr(dist, "init_process_group", refuse)
    message = rf"cannot meet at 127\.0\.0\.1:1: .*{reason} \(hint"
    with pytest.raises(ConfigError, match=message), process_group(CPU):
        pass


def test_who_loses_the_others_is_not_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    group = _FakeGroup(monkeypatch, 1, num_gpus=0)
    lost = RuntimeError("[/gloo/gloo/transport/tcp/pair.cc:5] Connection closed by peer [::1]:2. O")
    with pytest.raises(TrainingError) as error, process_group(CPU):
        raise lost
    assert error.value.message == (
        "process 1 of 4 has lost the others: Connection closed by peer [::1]:2"
    )
    assert "--resume auto" in error.value.hint and error.value.__cause__ is lost
    with pytest.raises(RuntimeError, match="a bug"), process_group(CPU):
        raise RuntimeError("a bug")
    assert ("leave", 0) not in group.calls


def test_addresses_of_processes_that_are_gone_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    gone = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared.set(distributed._STORE_PORT, str(gone.port))
    del gone
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(distributed, "_STORE_TIMEOUT", timedelta(seconds=0.5))
    monkeypatch.setattr(distributed, "rendezvous", lambda url: iter([(shared, 0, 2)]))
    stores: list[TCPStore] = []
    other = threading.Thread(target=lambda: stores.append(distributed._own_store(1)))
    other.start()
    mine = distributed._own_store(0)
    other.join()
    mine.set("word", "fresh")
    assert stores[0].get("word") == b"fresh"


def _share(folder: Path) -> None:
    def load() -> dict[str, Any]:
        calls.append(1)
        return {"weights": torch.arange(3.0), "step": 5}

    def fail() -> None:
        raise CheckpointError("epoch-1.pt is damaged", "take another")

    calls: list[int] = []
    with process_group(CPU) as ranks:
        shared = broadcast_from_main(load, ranks)
        assert shared["step"] == 5 and torch.equal(shared["weights"], torch.arange(3.0))
        assert len(calls) == (1 if ranks.is_main else 0)
        with pytest.raises(CheckpointError, match=r"^epoch-1\.pt is damaged \(hint: take another"):
            broadcast_from_main(fail, ranks)
        (folder / str(ranks.rank)).mkdir()
        ours, its = folder / "shared.pt", folder / str(ranks.rank) / "epoch-1.pt"
        for _ in broadcast_from_main(lambda: [ours.write_bytes(b"shared")], ranks):
            with file_from_main(ours, ranks, CPU) as path:
                assert path == ours
        its.write_bytes(_CONTENT if ranks.is_main else b"of another run")
        monkeypatch = pytest.MonkeyPatch()
        monkeypatch.setattr(distributed, "_PIECE_BYTES", 7)
        with file_from_main(its, ranks, CPU) as path:
            assert path.read_bytes() == _CONTENT and path.name == "epoch-1.pt"
            assert (path == its) == ranks.is_main
        assert path.exists() == ranks.is_main
        with (
            pytest.raises(CheckpointError, match=r"0/epoch-9\.pt does not exist"),
            file_from_main(its.with_name("epoch-9.pt"), ranks, CPU),
        ):
            pass
        (folder / f"{ranks.rank} is done").touch()


@pytest.mark.slow
def test_what_one_has_read_all_have(tmp_path: Path) -> None:
    launch(2, _share, tmp_path)
    assert len(list(tmp_path.glob("* is done"))) == 2


def _lstm() -> LstmConfig:
    return LstmConfig(
        num_encoder_layers=2,
        encoder_dim=16,
        rnn_hidden_size=24,
        dim_feedforward=32,
        decoder_dim=16,
        joiner_dim=16,
    )


def _objective(model_config: ModelConfig) -> TransducerObjective:
    """The real losses, in double precision; evaluation mode has no random draw, no regulariser and
    no filter of gradients."""
    torch.manual_seed(1)
    model = build_transducer(model_config, VOCAB)
    objective = TransducerObjective(
        model, TrainConfig(), encoder_dim=model_config.output_dim, vocab_size=VOCAB
    )
    return objective.double().eval()


def _global_batch() -> tuple[torch.Tensor, ...]:
    """Four utterances; each process takes two."""
    torch.manual_seed(3)
    x_lens = torch.tensor([90, 85, 77, 70])
    x = torch.randn(4, 90, 80, dtype=torch.float64)
    y_lens = torch.tensor([3, 2, 3, 1])
    y = torch.randint(1, VOCAB, (4, 3)).masked_fill(torch.arange(3) >= y_lens[:, None], 0)
    return x, x_lens, y, y_lens, torch.full((4, 21), -100)


def _gradients(objective: TransducerObjective) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}


def _learn_apart(model_config: ModelConfig, folder: Path) -> None:
    with process_group(CPU) as ranks:
        objective = _objective(model_config)
        parallel = DistributedDataParallel(objective, find_unused_parameters=True)
        mine = slice(2 * ranks.rank, 2 * ranks.rank + 2)
        parallel(*(t[mine] for t in _global_batch()), 5000).loss.backward()
        torch.save(_gradients(objective), folder / f"{ranks.rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["zipformer", "lstm"])
def test_two_processes_find_the_gradient_of_one(
    tmp_path: Path, config: ExperimentConfig, encoder: str
) -> None:
    model_config = config.model if encoder == "zipformer" else _lstm()
    launch(2, _learn_apart, model_config, tmp_path)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    objective = _objective(model_config)
    objective(*_global_batch(), 5000).loss.backward()
    whole = _gradients(objective)
    assert whole.keys() == one.keys() == other.keys() and len(whole) > 20
    largest = max(float(g.abs().max()) for g in whole.values())
    for name, gradient in whole.items():
        assert torch.equal(one[name], other[name]), name
        # Processes average where one batch sums. Sums in another order: 1e-12 of the largest.
        assert torch.allclose(2 * one[name], gradient, rtol=1e-9, atol=1e-12 * largest), name
