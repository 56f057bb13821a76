"""Members of a run on the noise corpora: the command line for other programs to start, and a death.

`python -m tests.train.members train ...` is `snowmelt train ...` that knows the noise corpora; with
DIGESTS=DIR in the environment every process writes there what its weights are at each checkpoint,
with KILL_AT_BATCH=N process 1 is killed when it begins to learn from its N-th batch.
"""

import hashlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.cli.main import entry_point
from snowmelt.data import corpora
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.elastic import restart_count
from snowmelt.train.resume import TrainState
from snowmelt.train.trainer import RunOptions
from tests.train.noise import NAMES, NoiseCorpus, train_on_noise

REPOSITORY = Path(__file__).parents[2]

TINY = {
    "preset": "digits",
    "corpus": "noise",
    "num-encoder-layers": "1,1",
    "feedforward-dims": "16,16",
    "nhead": "2,2",
    "encoder-dims": "16,16",
    "attention-dims": "8,8",
    "encoder-unmasked-dims": "12,12",
    "zipformer-downsampling-factors": "1,2",
    "cnn-module-kernels": "5,5",
    "decoder-dim": "16",
    "joiner-dim": "16",
    "schedule-scale": "0.005",
    "save-every-n": "200",
    "average-period": "200",
    "num-epochs": "2",
    "max-duration": "3",
    "device": "cpu",
    "tensorboard": "0",
}


def command(exp_dir: Path, data_dir: Path, **options: str) -> list[str]:
    """Words after `python -m`: a tiny run, for which options may be changed."""
    places = {"exp-dir": str(exp_dir), "data-dir": str(data_dir)}
    chosen = {**TINY, **places, **{k.replace("_", "-"): v for k, v in options.items()}}
    words = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    return ["tests.train.members", "train", *words]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, in which a child finds snowmelt and the tests."""
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}


def train_or_die(
    config: ExperimentConfig, tokenizer: Tokenizer, options: RunOptions, batch: int
) -> None:
    """`train`, in which process 1 is killed when it begins to learn from its `batch`-th batch.

    Once only: started again it lives.
    """
    _kill_at_batch(batch)
    train_on_noise(config, tokenizer, options)


def digest(state_dict: Mapping[str, Any]) -> str:
    """Equal for equal tensors."""
    summed = hashlib.sha256()
    for name, value in sorted(state_dict.items()):
        summed.update(name.encode() + value.numpy().tobytes())
    return summed.hexdigest()


def _kill_at_batch(batch: int) -> None:
    forward, calls = DistributedDataParallel.forward, []

    def counted(self: DistributedDataParallel, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        # Who this is, a process of `launch` learns after this file was read.
        is_victim = os.environ.get("RANK") == "1" and restart_count() == 0
        if is_victim and len(calls) == batch:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(self, *args, **kwargs)

    DistributedDataParallel.forward = counted  # type: ignore[method-assign]


def _write_digests(folder: Path) -> None:
    """All processes ask for their state when a checkpoint is due."""
    rank_state = TrainState.rank_state

    def written(self: TrainState) -> dict[str, Any]:
        name = f"rank{self.ranks.rank}-batch{self.progress.batch_idx_train}"
        (folder / name).write_text(digest(self.objective.model.state_dict()))
        return rank_state(self)

    TrainState.rank_state = written  # type: ignore[method-assign]


# "__mp_main__" is this file in the processes that `launch` starts.
if __name__ in ("__main__", "__mp_main__"):
    for corpus in NAMES:
        corpora._ARCHIVE_CORPORA[corpus] = lambda folder, seed: NoiseCorpus(folder)  # type: ignore[index]
    if "DIGESTS" in os.environ:
        _write_digests(Path(os.environ["DIGESTS"]))
    if "KILL_AT_BATCH" in os.environ:
        _kill_at_batch(int(os.environ["KILL_AT_BATCH"]))

if __name__ == "__main__":
    sys.exit(entry_point())
