"""How much slower than its matrix products is a search? Prints a table; asserts nothing.

    python -m benchmarks.search

The yardstick does nothing but what no search can do without: joiner vectors times the matrix
(512, 500) and a log-softmax, for as many rows as the search asked the joiner for, in one call.
Both run in turn, and processor time is counted, so that a busy machine does not decide.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from snowmelt.models.decoder import Decoder
from snowmelt.models.joiner import Joiner
from snowmelt.runtime.backends.torch_eager import TorchScorer
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.method import SearchMethod
from snowmelt.search.modified_beam import ModifiedBeamSearch

_JOINER_DIM, _VOCAB_SIZE = 512, 500
_NUM_FRAMES = 100  # 4 s
_REPETITIONS = 5


class _CountingScorer(TorchScorer):
    """Counts the rows that the joiner is asked for."""

    num_rows = 0

    def join(self, encoder_proj: Any, decoder_proj: Any) -> Any:
        self.num_rows += len(encoder_proj)
        return super().join(encoder_proj, decoder_proj)


def _scorer() -> _CountingScorer:
    """Random weights that emit a token on about every fourth frame, as trained ones do."""
    torch.manual_seed(0)
    decoder = Decoder(_VOCAB_SIZE, _JOINER_DIM, 0, 2)
    joiner = Joiner(_JOINER_DIM, _JOINER_DIM, _JOINER_DIM, _VOCAB_SIZE)
    with torch.no_grad():
        joiner.output_linear.weight.normal_(0, 0.15)
        joiner.output_linear.bias[0] += 9.0
    return _CountingScorer(SimpleNamespace(decoder=decoder.eval(), joiner=joiner.eval()), 2)


def _measured(
    search: SearchMethod[Any], num_streams: int, chunk_frames: int
) -> tuple[float, float, int, int]:
    """Processor seconds of the search and of the yardstick (medians), joiner rows, tokens found."""
    scorer = _scorer()
    rng = np.random.default_rng(0)
    shape = (num_streams, _NUM_FRAMES, _JOINER_DIM)
    encoder_proj = rng.normal(0, 1, shape).astype(np.float32)
    lens = np.full(num_streams, chunk_frames, np.int64)

    def run() -> list[Any]:
        states = [search.init_state(scorer) for _ in range(num_streams)]
        for start in range(0, _NUM_FRAMES, chunk_frames):
            states = search.step(
                scorer, encoder_proj[:, start : start + chunk_frames], lens, states
            )
        return [search.result(scorer, state, is_final=True) for state in states]

    num_tokens = sum(len(result.tokens) for result in run())
    num_rows = scorer.num_rows
    matrix = torch.randn(_JOINER_DIM, _VOCAB_SIZE)
    rows = torch.randn(num_rows, _JOINER_DIM)
    own, plain = [], []
    with torch.inference_mode():
        for _ in range(_REPETITIONS):
            own.append(_seconds(run))
            plain.append(_seconds(lambda: (rows @ matrix).log_softmax(dim=1)))
    return statistics.median(own), statistics.median(plain), num_rows, num_tokens


def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    """Measure the searches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-threads", type=int, default=1, help="(default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    print("| search | streams | frames a step | joiner rows | tokens | ms | yardstick ms | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    searches = {"greedy": GreedySearch(), "modified beam, 4": ModifiedBeamSearch(4)}
    for name, search in searches.items():
        for num_streams, chunk_frames in ((32, _NUM_FRAMES), (8, _NUM_FRAMES), (32, 10)):
            own, plain, rows, tokens = _measured(search, num_streams, chunk_frames)
            print(
                f"| {name} | {num_streams} | {chunk_frames} | {rows} | {tokens} | "
                f"{1000 * own:.1f} | {1000 * plain:.1f} | {own / plain:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
