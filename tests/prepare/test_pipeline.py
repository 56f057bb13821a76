"""What is done is not done again; what depends on something that changed is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from snowmelt.core.errors import DataError, UserError
from snowmelt.prepare.pipeline import Pipeline, Step, recorded_steps


class _House:
    """A wall of stones, and a roof on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[str] = []
        self.colour = "red"
        self.stones: str | None = "granite"
        self.fails = False

    def pipeline(self) -> Pipeline:
        wall, roof = self.folder / "wall.txt", self.folder / "roof.txt"
        return Pipeline(
            "house",
            self.folder,
            [
                Step(
                    stage=1,
                    name="wall",
                    title="the wall",
                    outputs=(wall,),
                    make=self._maker(wall),
                    settings={"colour": self.colour},
                    inputs=lambda: self.stones,
                    scratch=(self.folder / "bricks",),
                ),
                Step(
                    stage=2,
                    name="roof",
                    title="the roof",
                    outputs=(roof,),
                    make=self._maker(roof),
                    needs=("wall",),
                ),
            ],
        )

    def run(self, first: int = 0, last: int = 9, *, force: bool = False) -> list[str]:
        """What was made in this run."""
        self.made = []
        self.pipeline().run(first, last, force=force)
        return self.made

    def _maker(self, path: Path) -> Callable[[], str]:
        def make() -> str:
            if path.stem == "wall":
                (self.folder / "bricks").mkdir(exist_ok=True)
                (self.folder / "bricks" / self.colour).touch()
            if self.fails:
                raise DataError("it rains")
            path.write_text(path.stem)
            self.made.append(path.stem)
            return f"a {path.stem}"

        return make


@pytest.fixture
def house(tmp_path: Path) -> _House:
    return _House(tmp_path)


def test_what_is_done_is_not_done_again(house: _House) -> None:
    assert house.pipeline().run(0, 9) == ["a wall", "a roof"]
    assert house.run() == []
    assert house.pipeline().run(0, 9) == ["a wall", "a roof"]
    assert house.run(force=True) == ["wall", "roof"]
    assert house.run(2, 2, force=True) == ["roof"]


def test_what_changed_is_made_again_with_all_that_comes_of_it(house: _House) -> None:
    house.run()
    house.colour = "blue"
    states = house.pipeline().states(0, 9)
    assert [s.note for s in states] == ["made of something else"] * 2
    assert house.run() == ["wall", "roof"]
    house.stones = "chalk"
    assert house.run() == ["wall", "roof"]
    # Stones that are gone are no reason to tear the house down.
    house.stones = None
    assert house.run() == []
    house.stones = "chalk"
    assert house.run() == []


def test_lost_and_shortened_outputs(house: _House) -> None:
    house.run()
    (house.folder / "roof.txt").unlink()
    assert house.run() == ["roof"]
    (house.folder / "roof.txt").write_text("roo")
    assert [s.is_done for s in house.pipeline().states(0, 9)] == [True, False]
    assert house.run() == ["roof"]
    (house.folder / "bricks" / "red").unlink()
    assert house.run() == ["wall"]


def test_a_stage_needs_those_before_it(house: _House) -> None:
    with pytest.raises(
        DataError, match=r"stage 2 \(the roof\) needs stage 1 \(the wall\): new .*--stage 1"
    ):
        house.run(2, 2)
    house.run(1, 1)
    assert house.run(2, 2) == ["roof"]


def test_a_failed_step_is_gone_on_with(house: _House) -> None:
    house.fails = True
    with pytest.raises(DataError, match="it rains"):
        house.run()
    assert [s.note for s in house.pipeline().states(0, 9)] == ["unfinished", "new"]
    (state,) = recorded_steps(house.folder)["house"]
    assert (state.title, state.is_done) == ("wall", False)
    bricks = house.folder / "bricks"
    (bricks / "half").touch()
    house.fails = False
    assert house.run() == ["wall", "roof"]
    assert (bricks / "half").exists()
    # What was left half done for other settings is no good.
    house.colour = "blue"
    house.run()
    assert [path.name for path in bricks.iterdir()] == ["blue"]


def test_what_brings_something_is_not_asked_twice(tmp_path: Path) -> None:
    there = tmp_path / "there"
    step = Step(
        stage=0,
        name="bring",
        title="it",
        outputs=(),
        make=lambda: there.touch() or "",
        is_there=there.exists,
    )
    pipeline = Pipeline("x", tmp_path, [step])
    assert not pipeline.states(0, 0)[0].is_done
    pipeline.run(0, 0)
    changed = there.stat().st_mtime_ns
    assert pipeline.states(0, 0, force=True)[0].is_done
    pipeline.run(0, 0, force=True)
    assert there.stat().st_mtime_ns == changed


def test_status(house: _House) -> None:
    assert recorded_steps(house.folder) == {}
    house.run()
    (house.folder / "roof.txt").unlink()
    wall, roof = recorded_steps(house.folder)["house"]
    assert (wall.title, wall.is_done, wall.note) == ("the wall", True, "a wall")
    assert (roof.is_done, roof.note) == (False, "roof.txt is missing or was changed")


def test_two_at_once_are_refused(house: _House, tmp_path: Path) -> None:
    other = house.pipeline()

    def make() -> str:
        with pytest.raises(UserError, match="another snowmelt prepare is at work"):
            other.run(0, 9)
        return ""

    Pipeline("x", tmp_path, [Step(0, "s", "s", (), make)]).run(0, 0)
