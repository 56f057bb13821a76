"""Broken data, a full disk, broken checkpoints: one clear line, and what was saved is not lost."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.checkpoint.files import load_checkpoint
from snowmelt.core.errors import CheckpointError, TrainingError, UserError
from snowmelt.data.batch import AsrDataset, Batch
from snowmelt.presets.models import LstmConfig
from snowmelt.text.tokenizer import Tokenizer
from snowmelt.train.checkpoints import newest_checkpoint
from snowmelt.train.guard import select_rows
from snowmelt.train.history import read_history
from snowmelt.train.trainer import RunOptions, train
from tests.train.checkpoints import differences
from tests.train.noise import NoiseCorpus

# One of the noise corpus that is trained on.
VICTIM = "utt03"
# Enough for records and log lines, far too little for a checkpoint.
LITTLE = 100_000


@pytest.fixture
def start(data_dir: Path, config: ExperimentConfig, tokenizer: Tokenizer) -> Callable[..., None]:
    """Trains in a folder, perhaps from a checkpoint, perhaps with other settings."""

    def run(exp_dir: Path, resume_from: Path | None = None, **changes: object) -> None:
        options = RunOptions(exp_dir, data_dir, tensorboard=False, resume_from=resume_from)
        train(replace(config, **changes), tokenizer, options)

    return run


def _log(exp_dir: Path) -> str:
    return "".join(p.read_text() for p in sorted((exp_dir / "log").glob("log-train-*")))


def _files(exp_dir: Path, suffixes: tuple[str, ...]) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in exp_dir.iterdir() if p.suffix in suffixes}


@contextmanager
def _changed_batches(change: Callable[[Batch, int], Batch]) -> Iterator[None]:
    """Batches with the victim go through `change`, which is told its row."""
    get = AsrDataset.get

    def changed(self: AsrDataset, indices: Sequence[int], epoch: int) -> Batch:
        batch = get(self, indices, epoch)
        rows = [n for n, cut_id in enumerate(batch.cut_ids) if cut_id.startswith(VICTIM)]
        return change(batch, rows[0]) if rows else batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsrDataset, "get", changed)
        yield


def _left_out(batch: Batch, row: int) -> Batch:
    return select_rows(batch, [n for n in range(len(batch.cut_ids)) if n != row])


def _nan_features(batch: Batch, row: int) -> Batch:
    batch.features[row, 17:19, 5] = float("nan")
    return batch


def _no_tokens(batch: Batch, row: int) -> Batch:
    token_ids, token_lens = batch.token_ids.clone(), batch.token_lens.clone()
    token_ids[row], token_lens[row] = 0, 0
    return replace(batch, token_ids=token_ids, token_lens=token_lens)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (_nan_features, "its features are not finite"),
        (_no_tokens, "its transcript has no token"),
    ],
)
def test_a_bad_utterance_is_named_and_leaves_no_trace(
    tmp_path: Path,
    start: Callable[..., None],
    fault: Callable[[Batch, int], Batch],
    reason: str,
) -> None:
    with _changed_batches(_left_out):
        start(tmp_path / "without")
    with _changed_batches(fault):
        start(tmp_path / "bad")
    assert f"left out {VICTIM}" in _log(tmp_path / "bad")
    assert reason in _log(tmp_path / "bad")
    without, bad = (load_checkpoint(tmp_path / name / "epoch-2.pt") for name in ("without", "bad"))
    # But for the count of such utterances it is the run that never saw it.
    left = [d for d in differences(without, bad) if "bad_utterances" not in d]
    assert left == []
    assert read_history(tmp_path / "without") == read_history(tmp_path / "bad")
    kept = load_checkpoint(next((tmp_path / "bad").glob("batch-*.pt")))
    assert list(kept["bad"]) == [name for name in kept["cut_ids"] if name.startswith(VICTIM)]


def test_a_bad_utterance_survives_a_resumption(tmp_path: Path, start: Callable[..., None]) -> None:
    with _changed_batches(_nan_features):
        start(tmp_path / "whole")
        start(tmp_path / "resumed", tmp_path / "whole" / "epoch-1.pt")
    whole, resumed = (load_checkpoint(tmp_path / n / "epoch-2.pt") for n in ("whole", "resumed"))
    assert not differences(whole, resumed)


def test_nothing_but_nan_ends_the_run_before_anything_is_learnt(
    tmp_path: Path, start: Callable[..., None], config: ExperimentConfig
) -> None:
    get = AsrDataset.get

    def broken(self: AsrDataset, indices: Sequence[int], epoch: int) -> Batch:
        batch = get(self, indices, epoch)
        return replace(batch, features=torch.full_like(batch.features, float("nan")))

    many = replace(config.train, num_epochs=50, save_every_n=10**6)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingError) as error:
        patch.setattr(AsrDataset, "get", broken)
        start(tmp_path / "exp", train=many)
    assert "of the last batches' utterances only 0% had a finite loss" in str(error.value)
    assert "--base-lr" in error.value.hint and "\n" not in str(error.value)
    for path in (tmp_path / "exp").glob("epoch-*.pt"):
        model = load_checkpoint(path)["model"]
        assert all(bool(x.isfinite().all()) for x in model.values() if x.is_floating_point())
    assert 1 <= len(list((tmp_path / "exp").glob("batch-*.pt"))) <= 5


def test_cuts_without_a_transcript_are_counted(
    tmp_path: Path, start: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = NoiseCorpus.cuts

    def without_text(self: NoiseCorpus, split: str, epoch: int = 0) -> object:
        found = cuts(self, split, epoch)
        for cut in found:
            if cut.id.startswith(VICTIM):
                cut.supervisions[0].text = "  "
        return found

    monkeypatch.setattr(NoiseCorpus, "cuts", without_text)
    start(tmp_path / "exp")
    assert "without a transcript" in _log(tmp_path / "exp")
    assert "dropped 1 of 8 cuts" in _log(tmp_path / "exp")
    assert (tmp_path / "exp" / "epoch-2.pt").exists()


def _after_one_epoch(exp_dir: Path, start: Callable[..., None], config: ExperimentConfig) -> None:
    start(exp_dir, train=replace(config.train, num_epochs=1))


def _assert_ends_intact(
    exp_dir: Path, run: Callable[[], None], reason: str, *, kept: tuple[str, ...]
) -> None:
    """The run ends with one line, and files with these suffixes are to the byte what they were."""
    before = _files(exp_dir, kept)
    with pytest.raises(UserError, match=reason) as error:
        run()
    assert "\n" not in str(error.value)
    assert _files(exp_dir, kept) == before
    assert not list(exp_dir.rglob(".tmp-*"))


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A disk of 64 MiB, in memory, mounted at `folder`."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily: the log file of the run is still open.
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_while_saving(
    tmp_path: Path, start: Callable[..., None], config: ExperimentConfig
) -> None:
    """With a disk that is really full; where none can be mounted the next test stands alone."""
    start(tmp_path / "whole")
    with _small_disk(tmp_path / "disk"):
        exp_dir, filler = tmp_path / "disk" / "exp", tmp_path / "disk" / "filler"
        _after_one_epoch(exp_dir, start, config)
        filler.write_bytes(bytes(shutil.disk_usage(exp_dir).free - LITTLE))
        _assert_ends_intact(
            exp_dir,
            lambda: start(exp_dir, exp_dir / "epoch-1.pt"),
            r"cannot write .*\.pt: No space left on device",
            kept=(".pt",),
        )
        filler.unlink()
        start(exp_dir, exp_dir / "epoch-1.pt")
        _assert_same_run(tmp_path / "whole", exp_dir)


def test_files_that_may_not_grow(
    tmp_path: Path, start: Callable[..., None], config: ExperimentConfig
) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the middle too."""
    start(tmp_path / "whole")
    exp_dir = tmp_path / "exp"
    _after_one_epoch(exp_dir, start, config)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE, limits[1]))
    try:
        _assert_ends_intact(
            exp_dir,
            lambda: start(exp_dir, exp_dir / "epoch-1.pt"),
            r"cannot write .*\.pt: File too large",
            kept=(".pt",),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    start(exp_dir, exp_dir / "epoch-1.pt")
    _assert_same_run(tmp_path / "whole", exp_dir)


def _assert_same_run(one: Path, other: Path) -> None:
    assert not differences(
        load_checkpoint(one / "epoch-2.pt"), load_checkpoint(other / "epoch-2.pt")
    )
    assert read_history(one) == read_history(other)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_checkpoint(
    tmp_path: Path, start: Callable[..., None], config: ExperimentConfig, share: float
) -> None:
    exp_dir = tmp_path / "exp"
    _after_one_epoch(exp_dir, start, config)
    path = exp_dir / "epoch-1.pt"
    os.truncate(path, int(path.stat().st_size * share))
    reason = r"epoch-1\.pt is (empty|truncated or damaged|no checkpoint)"
    _assert_ends_intact(exp_dir, lambda: start(exp_dir, path), reason, kept=(".pt", ".yaml"))
    # --resume auto looks at it too; it must not silently take an older one.
    with pytest.raises(CheckpointError, match=reason):
        newest_checkpoint(exp_dir)
    # The one before it is as good as ever.
    start(exp_dir, exp_dir / "checkpoint-3.pt")
    start(tmp_path / "whole")
    _assert_same_run(tmp_path / "whole", exp_dir)


def test_checkpoint_of_another_architecture(
    tmp_path: Path, start: Callable[..., None], config: ExperimentConfig
) -> None:
    exp_dir = tmp_path / "exp"
    _after_one_epoch(exp_dir, start, config)
    lstm = LstmConfig(
        num_encoder_layers=1,
        encoder_dim=16,
        rnn_hidden_size=24,
        dim_feedforward=16,
        decoder_dim=16,
        joiner_dim=16,
    )
    _assert_ends_intact(
        exp_dir,
        lambda: start(exp_dir, exp_dir / "epoch-1.pt", model=lstm),
        r"epoch-1\.pt is of a run whose model\.\w+ is .*, here it is .*another --exp-dir",
        kept=(".pt", ".yaml"),
    )
    start(exp_dir, exp_dir / "epoch-1.pt")
    start(tmp_path / "whole")
    _assert_same_run(tmp_path / "whole", exp_dir)


def test_weights_of_another_shape_under_the_right_settings(
    tmp_path: Path, start: Callable[..., None], config: ExperimentConfig
) -> None:
    exp_dir = tmp_path / "exp"
    _after_one_epoch(exp_dir, start, config)
    strange = load_checkpoint(exp_dir / "epoch-1.pt")
    strange["model"]["joiner.output_linear.weight"] = torch.zeros(2, 3)
    torch.save(strange, exp_dir / "strange.pt")
    _assert_ends_intact(
        exp_dir,
        lambda: start(exp_dir, exp_dir / "strange.pt"),
        r"strange\.pt does not fit this run",
        kept=(".pt", ".yaml"),
    )
