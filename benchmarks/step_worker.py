"""What does one process of the training-step benchmark do? Builds a model, then steps on request.

    python -m benchmarks.step_worker '{"preset": "small-zipformer", ...}'

A line on its standard input is a command, a line on its output the answer as JSON. `train_step.py`
starts such processes, each with a source tree of its own on PYTHONPATH, and lets them take turns.

Invariant: every tree and every form of the model sees the same batches, seeds and chunk sizes, and
goes through the `Learner` of real training: guard, loss, backward, optimiser, schedules.
"""

import itertools
import json
import math
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.data.batch import Batch
from snowmelt.models.zipformer import encoder as zipformer_encoder
from snowmelt.presets.models import ModelConfig, ZipformerConfig, model_preset
from snowmelt.presets.training import ENCODER_TRAINING
from snowmelt.train.build import new_state
from snowmelt.train.distributed import Ranks
from snowmelt.train.guard import BadUtterances
from snowmelt.train.step import Learner

__all__ = ["AUDIO_S", "KINDS", "Job", "model_config"]

# 60 s of audio in feature frames of 10 ms, and the tokens of each utterance.
_FEATURE_LENS = (1350, 1275, 1200, 1125, 1050)
_TOKEN_LENS = (56, 53, 50, 47, 44)
AUDIO_S = sum(_FEATURE_LENS) / 100
_VOCAB_SIZE = 500
# Schedules as after so many batches: no warm-up left, balancers at a third of their calls.
_FIRST_BATCH = 5000
_BALANCER_CALLS = 5000

_SMALL_ZIPFORMER = ZipformerConfig(
    num_encoder_layers=(2, 2, 2, 2, 2),
    feedforward_dims=(512,) * 5,
    nhead=(4,) * 5,
    encoder_dims=(192,) * 5,
    attention_dims=(128,) * 5,
    encoder_unmasked_dims=(160,) * 5,
    decoder_dim=256,
    joiner_dim=256,
)

# Training draws full attention for a quarter of the batches, else a multiple of 8 up to 48 frames:
# a round has steps of all kinds in that share. 0: full attention.
_CHUNK_SIZES = (16, 32, 0, 40)


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    preset: str
    use_bf16: bool = False
    num_threads: int = 1
    is_plain: bool = False


def model_config(preset: str) -> ModelConfig:
    """The model called `preset`; "small-zipformer" is that of the published measurements."""
    return _SMALL_ZIPFORMER if preset == "small-zipformer" else model_preset(preset)


class Worker:
    """A model in training on made-up batches."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.num_threads)
        torch.manual_seed(0)
        model = model_config(job.preset)
        train = ENCODER_TRAINING[model.encoder]
        config = ExperimentConfig(model=model, train=replace(train, use_bf16=job.use_bf16))
        # Rank 1 keeps no running mean of the model, which no step of these would move.
        state = new_state(config, _VOCAB_SIZE, torch.device("cpu"), Ranks(rank=1, world_size=1))
        state.progress.batch_idx_train = _FIRST_BATCH
        state.set_batch_count()
        for module in state.objective.modules():
            if hasattr(module, "num_calls"):
                module.num_calls = _BALANCER_CALLS
        if job.is_plain:
            from benchmarks.plain import make_plain

            make_plain(state)
        self._state = state
        state.objective.train()
        self._batch = _batch(model.feature_dim)
        self._dtype = torch.bfloat16 if job.use_bf16 else torch.float32
        self._folder = tempfile.TemporaryDirectory(prefix="train-step-")
        bad_utterances = BadUtterances(Path(self._folder.name))
        self._learner = Learner(state, state.objective, torch.device("cpu"), bad_utterances)
        self._chunk_sizes = itertools.cycle(_CHUNK_SIZES)
        zipformer_encoder.random_chunk_size = self._next_chunk_size

    def _next_chunk_size(self, num_frames: int, *_: object) -> int:
        random.random()  # the draw that is replaced
        return next(self._chunk_sizes) or num_frames

    def round(self) -> dict[str, Any]:
        """One step of every kind: seconds of the wall and of the processor."""
        self._state.progress.batch_idx_train = _FIRST_BATCH  # the same draws in every round
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in _CHUNK_SIZES:
            self._learner.step([self._batch])
        n = len(_CHUNK_SIZES)
        return {
            "wall": (time.perf_counter() - wall) / n,
            "cpu": (time.process_time() - cpu) / n,
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def breakdown(self) -> dict[str, Any]:
        """Milliseconds of one step by kind of work, from torch's profiler."""
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            self.round()
        times = dict.fromkeys((*KINDS, "other"), 0.0)
        for event in profiler.key_averages():
            times[_kind(event.key)] += event.self_cpu_time_total / 1000 / len(_CHUNK_SIZES)
        return times

    def flops(self) -> dict[str, Any]:
        """Floating-point operations of the matrix products and convolutions of one step."""
        counted: Any = {
            torch.ops.aten.convolution: _convolution_flops,
            torch.ops.aten.convolution_backward: _convolution_backward_flops,
        }
        with FlopCounterMode(display=False, custom_mapping=counted) as counter:
            self.round()
        return {"gflop": counter.get_total_flops() / 1e9 / len(_CHUNK_SIZES)}

    def peak(self) -> dict[str, Any]:
        """The processor's matrix-product rate in this type with these threads, GFLOP/s.

        Of the processor's seconds, as the share of it: others have their turn within the wall's.
        """
        n = 1024
        a, b = (torch.randn(n, n).to(self._dtype) for _ in range(2))
        best = float("inf")
        for _ in range(12):
            start = time.process_time()
            a @ b
            best = min(best, (time.process_time() - start) / torch.get_num_threads())
        return {"gflops": 2 * n**3 / best / 1e9}


# Self time of operations by what their names hold, the first that fits; the others are "other".
KINDS: dict[str, tuple[str, ...]] = {
    "optimizer": ("Optimizer.step", "optimizer_pass"),
    "random": ("bernoulli", "uniform_", "rand", "dropout"),
    "matrix": ("mm", "conv", "mkldnn", "onednn", "linear", "matmul", "lstm"),
    "copies": ("copy_", "cat", "contiguous", "clone", "fill_", "zero_", "pad", "stack"),
    "kernels": ("Function",),
    "reductions": ("sum", "mean", "max", "min", "norm", "dot", "cumsum", "softmax", "sort"),
    "elementwise": (
        *("mul", "add", "sub", "div", "sigmoid", "tanh", "glu", "sqrt", "where", "clamp", "lerp"),
        *("neg", "exp", "pow", "abs", "gt", "lt", "ge", "le", "index", "gather", "relu", "eq"),
    ),
}


def _kind(name: str) -> str:
    for kind, words in KINDS.items():
        if any(word in name for word in words):
            return kind
    return "other"


# torch's own formulas for convolutions take no notice of groups.


def _convolution_flops(_x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    flops: int = 2 * math.prod(out_shape) * math.prod(weight[1:])
    return flops


def _convolution_backward_flops(grad: Any, _x: Any, weight: Any, *args: Any, **_: Any) -> int:
    output_mask = args[-1]
    num_products = int(output_mask[0]) + int(output_mask[1])
    flops: int = num_products * 2 * math.prod(grad) * math.prod(weight[1:])
    return flops


def _batch(feature_dim: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    n = len(_FEATURE_LENS)
    features = torch.randn(n, max(_FEATURE_LENS), feature_dim, generator=generator)
    tokens = torch.randint(1, _VOCAB_SIZE, (n, max(_TOKEN_LENS)), generator=generator)
    return Batch(
        features=features,
        feature_lens=torch.tensor(_FEATURE_LENS),
        token_ids=tokens,
        token_lens=torch.tensor(_TOKEN_LENS),
        cut_ids=tuple(map(str, range(n))),
        frame_tokens=torch.zeros(n, 0, dtype=torch.int64),
    )


def main() -> None:
    """Answer commands until the input ends."""
    worker = Worker(Job(**json.loads(sys.argv[1])))
    commands: dict[str, Callable[[], dict[str, Any]]] = {
        name: getattr(worker, name) for name in ("round", "breakdown", "flops", "peak")
    }
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(commands[line.strip()]()), flush=True)


if __name__ == "__main__":
    main()
