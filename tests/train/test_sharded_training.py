"""A corpus in shards trains as it does in files; killed, it goes on at once and exactly."""

from pathlib import Path

import pytest
from lhotse import CutSet

from snowmelt.checkpoint.experiment import ExperimentConfig
from snowmelt.data import batch as batch_module
from snowmelt.prepare.pipeline import Pipeline
from snowmelt.prepare.shar import Content, SharCorpus, shar_steps
from snowmelt.prepare.workers import Workers
from snowmelt.presets.data import DataConfig
from snowmelt.text.tokenizer import build_words
from snowmelt.train.corpus import TrainingCorpora
from snowmelt.train.distributed import Ranks
from tests.crash.plan import kill_and_resume
from tests.crash.trainings import BATCHES_BETWEEN_SAVES, ZIPFORMER, Training
from tests.crash.verdict import final_digest, problems
from tests.crash.watched import BATCH, SAVING, UNFINISHED, Moment
from tests.data.audit.planted import TEXTS, corpus


def _prepare(data: Path, content: Content) -> None:
    """The same utterances in files ("plain") and, three in each, in shards ("shards")."""
    splits = corpus(data / "plain")
    for split, cuts in splits.items():
        CutSet.from_cuts(cuts).to_file(data / "plain" / f"plain_cuts_{split}.jsonl")
    shar = SharCorpus("shards", splits, content, shard_size=3)
    Pipeline("shards", data, shar_steps(shar, data, Workers(1))).run(1, 1)


def _corpora(data: Path, name: str) -> TrainingCorpora:
    config = ExperimentConfig(data=DataConfig(corpus=name, max_duration=6.0))
    return TrainingCorpora(
        config,
        build_words(TEXTS),
        Ranks(),
        data_dir=data,
        manifest_dir=data,
        musan_dir=data,
    )


def test_a_run_begins_in_the_middle_without_reading_what_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prepare(tmp_path, "sound")
    whole, resumed = (_corpora(tmp_path, "shards") for _ in range(2))
    steps = whole.plan(2, first_step=0, positions={}).steps
    assert resumed.plan(2, first_step=0, positions={}).steps == steps
    ids = [whole.read(step)[0].cut_ids for step in steps]
    assert sorted(i for batch in ids for i in batch) == [f"train-{n:02d}" for n in range(40)]
    read: list[str] = []
    reader = batch_module.FeatureReader.read

    def watched(self: batch_module.FeatureReader, cut: object, **options: int) -> object:
        read.append(cut.id)  # type: ignore[attr-defined]
        return reader(self, cut, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(batch_module.FeatureReader, "read", watched)
    for number in range(len(steps) // 2, len(steps)):
        theirs = whole.read(steps[number])[0]
        read.clear()
        ours = resumed.read(steps[number])[0]
        assert ours.cut_ids == theirs.cut_ids == tuple(read)
        assert ours.features.equal(theirs.features)
    # Eight shards of three are read before any other.
    shards = [int(i[-2:]) // 3 for batch in ids for i in batch]
    assert len(set(shards[:24])) == 8 and not set(shards[:24]) & set(shards[24:])


def test_an_utterance_is_the_same_in_files_and_in_shards(tmp_path: Path) -> None:
    _prepare(tmp_path, "sound")
    plain, shards = (_corpora(tmp_path, name).corpora[0] for name in ("plain", "shards"))
    assert plain.dataset(1).shards is None and len(set(shards.dataset(1).shards or ())) == 14
    for n in range(0, 40, 7):
        one, other = (c.dataset(1).get([n], epoch=3) for c in (plain, shards))
        assert one.cut_ids == other.cut_ids and one.features.equal(other.features)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["sound", "features"])
def test_killed_and_gone_on_with(tmp_path: Path, content: Content) -> None:
    _prepare(tmp_path / "data", content)
    training = Training(
        f"shards of {content}",
        (
            *("--preset", "an4", "--corpus", "shards", *ZIPFORMER, "--max-duration", "6"),
            *("--speed-perturb", "no", "--num-epochs", "2", "--tensorboard", "no"),
        ),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    kill_and_resume(training, [], whole, tmp_path / "data")
    plan = [
        Moment(f"{SAVING}.+/checkpoint-", 2, writing=f"{UNFINISHED}.pt"),
        Moment(BATCH, 5),
    ]
    runs = kill_and_resume(training, plan, killed, tmp_path / "data")
    assert [run.is_killed for run in runs] == [True, True, False]
    assert problems(whole, killed, runs, most_redone=BATCHES_BETWEEN_SAVES) == []
    assert final_digest(whole) == final_digest(killed)
