"""Slow and obviously right: sums the paths of a small lattice one by one."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

Arc = tuple[str, int, int]  # "symbol" or "blank", s, t


def paths(start: tuple[int, int], end: tuple[int, int], is_regular: bool) -> Iterator[list[Arc]]:
    """Every path from node (s, t) to another; a symbol raises s, and t too if not regular."""
    (s, t), (s_end, t_end) = start, end
    if start == end:
        yield []
        return
    if t < t_end:
        for rest in paths((s, t + 1), end, is_regular):
            yield [("blank", s, t), *rest]
    if s < s_end and (is_regular or t < t_end):
        for rest in paths((s + 1, t if is_regular else t + 1), end, is_regular):
            yield [("symbol", s, t), *rest]


def brute_force(px: Tensor, py: Tensor, boundary: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (N,) and occupations of all arcs, like `lattice_forward_backward`, in float64."""
    is_regular = px.size(2) == py.size(2) + 1
    scores = torch.zeros(px.size(0), dtype=torch.float64)
    px_grad, py_grad = torch.zeros_like(px), torch.zeros_like(py)
    for n, (s_begin, t_begin, s_end, t_end) in enumerate(boundary):
        every = list(paths((s_begin, t_begin), (s_end, t_end), is_regular))
        log_probs = [
            math.fsum(float((px if kind == "symbol" else py)[n, s, t]) for kind, s, t in path)
            for path in every
        ]
        best = max(log_probs, default=-math.inf)
        if best == -math.inf:
            scores[n] = -math.inf
            continue
        total = best + math.log(math.fsum(math.exp(x - best) for x in log_probs))
        scores[n] = total
        for path, log_prob in zip(every, log_probs, strict=True):
            for kind, s, t in path:
                table = px_grad if kind == "symbol" else py_grad
                table[n, s, t] += math.exp(log_prob - total)
    return scores, px_grad, py_grad


def random_boundary(num_symbols: int, num_frames: int, generator: torch.Generator) -> list[int]:
    """A random rectangle [s_begin, t_begin, s_end, t_end] inside the lattice."""
    s_begin, s_end = sorted(torch.randint(num_symbols + 1, (2,), generator=generator).tolist())
    t_begin, t_end = sorted(torch.randint(num_frames + 1, (2,), generator=generator).tolist())
    return [s_begin, t_begin, s_end, t_end]
