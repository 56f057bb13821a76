"""How fast is the LSTM encoder's recurrence, alone and in a training step? Prints; asserts nothing.

    python -m benchmarks.lstm_layer layer           one layer 512/1024/512, 337 frames
    python -m benchmarks.lstm_layer step [--model lstm-small] [--seconds 20]
    python -m benchmarks.lstm_layer profile [--model lstm-small] [--seconds 20]

Programs: `native` is torch's LSTM with projection, `plain` the loop over frames in torch
operations, `compiled` what training does on the CPU. They take turns, so that whatever else runs on
the machine meets all of them. Given are medians of the wall time and of the processor time; on a
busy machine only the latter says something. A step is forward, loss, backward and Eve; five
utterances of 10.5 to 13.5 s for each 60 s of sound.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from snowmelt.models.build import build_transducer
from snowmelt.models.lstm import projected, recurrence
from snowmelt.models.lstm.projected import ProjectedLstm
from snowmelt.optim.eve import Eve
from snowmelt.presets.models import model_preset
from snowmelt.presets.recipes import recipe
from snowmelt.train.objective import TransducerObjective

_FRAMES = 337
_VOCAB_SIZE = 500


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["layer", "step", "profile"])
    parser.add_argument("--model", default="lstm", help="preset (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of sound in a batch")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--programs", nargs="*", default=["native", "plain", "compiled"])
    parser.add_argument("--batch-sizes", nargs="*", type=int, default=[5, 16])
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "LSTM with projections")
    torch.set_num_threads(args.num_threads)
    print(f"{args.num_threads} threads, torch {torch.__version__}, {torch.get_num_threads()=}")
    if args.what == "layer":
        for batch_size in args.batch_sizes:
            _print_table(_layer(batch_size, args.programs), args.repetitions)
    else:
        step = _step(args.model, args.seconds)
        if args.what == "profile":
            _profile(step)
            return
        runs = {
            f"step of {args.model}, {args.seconds:g} s, {program}, {name}": _using(
                program, lambda dtype=dtype: step(dtype)
            )
            for program in args.programs
            for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16))
            if (program, name) != ("native", "bfloat16")
        }
        _print_table(runs, args.repetitions)


def _layer(batch_size: int, programs: list[str]) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    lstm = ProjectedLstm(512, 1024, 512)
    x = torch.randn(_FRAMES, batch_size, 512)
    h, c = torch.zeros(batch_size, 512), torch.zeros(batch_size, 1024)
    grad = torch.randn(_FRAMES, batch_size, 512)

    def forward(dtype: torch.dtype | None) -> object:
        with torch.no_grad(), _autocast(dtype):
            return lstm(x, h, c)

    def both(dtype: torch.dtype | None) -> object:
        leaf = x.clone().requires_grad_()
        with _autocast(dtype):
            out, _ = lstm(leaf, h, c)
        return torch.autograd.grad(out, [leaf, *lstm.parameters()], grad.to(out.dtype))

    return {
        f"{name}, batch {batch_size}, {program}, {precision}": _using(
            program, lambda function=function, dtype=dtype: function(dtype)
        )
        for name, function in (("forward", forward), ("forward and backward", both))
        for program in programs
        for precision, dtype in (("float32", None), ("bfloat16", torch.bfloat16))
        if (program, precision) != ("native", "bfloat16")
    }


def _step(model_name: str, seconds: float) -> Callable[[torch.dtype | None], object]:
    """A whole training step, given the type of autocast."""
    torch.manual_seed(0)
    config = model_preset(model_name)
    model = build_transducer(config, _VOCAB_SIZE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    model.encoder.warmup = 2.0
    train = recipe(model_name).train
    objective = TransducerObjective(
        model, train, encoder_dim=config.output_dim, vocab_size=_VOCAB_SIZE
    )
    optimizer = Eve([(n, p) for n, p in objective.named_parameters()], lr=1e-4)
    num_rows = max(1, round(seconds / 12.0))
    lens = torch.linspace(1050.0, 1350.0, num_rows).long().flip(0)
    x = torch.randn(num_rows, int(lens.max()), config.feature_dim)
    y_lens = torch.full((num_rows,), 50)
    y = torch.randint(1, _VOCAB_SIZE, (num_rows, 50))
    frame_tokens = torch.full((num_rows, (int(lens.max()) - 5) // 4), -100)

    def step(dtype: torch.dtype | None) -> object:
        with _autocast(dtype):
            losses = objective(x, lens, y, y_lens, frame_tokens, 10**6)
        losses.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return losses

    return step


def _autocast(dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def _using(program: str, function: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with _program(program):
            return function()

    return run


@contextmanager
def _program(name: str) -> Iterator[None]:
    if name == "native":
        with mock.patch.object(projected.ProjectedLstm, "_run", _native):
            yield
    elif name == "plain":
        with mock.patch.object(recurrence, "_is_compiled", lambda *_: False):
            yield
    else:
        yield


def _native(
    lstm: ProjectedLstm, x: Tensor, h: Tensor, c: Tensor, weights: projected._Weights
) -> tuple[Tensor, Tensor]:
    """torch's own LSTM; its cells are known at the last frame only."""
    flat = [weights.ih, weights.hh, weights.bias, torch.zeros_like(weights.bias)]
    if weights.hr is not None:
        flat.append(weights.hr)
    states = (h.unsqueeze(0), c.unsqueeze(0))
    out, _, new_c = torch._VF.lstm(  # type: ignore[attr-defined]
        x, states, flat, True, 1, 0.0, lstm.training, False, False
    )
    return out, new_c


def _profile(step: Callable[[torch.dtype | None], object]) -> None:
    for _ in range(2):
        step(None)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            step(None)
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=40))


def _print_table(runs: dict[str, Callable[[], object]], repetitions: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for function in runs.values():
        function()
    for _ in range(repetitions):
        for name, function in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    print("| what | wall ms | processor ms | fastest |\n| --- | --- | --- | --- |")
    for name, pairs in times.items():
        wall, cpu = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {wall:.0f} | {cpu:.0f} | {1000 * min(p[1] for p in pairs):.0f} |")


if __name__ == "__main__":
    main()
