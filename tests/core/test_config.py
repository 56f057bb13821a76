"""Do typed configuration values survive the way through YAML, and are mistakes named?"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from snowmelt.core.config import dump_yaml, from_dict, load_yaml, override, to_dict
from snowmelt.core.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    dims: tuple[int, ...] = (2, 4)
    pair: tuple[int, str] = (1, "a")
    rate: float = 0.1

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError(f"rate must be >= 0, got {self.rate}")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    path: Path = Path("a/b")
    limit: int | None = None
    flag: bool = False
    method: Literal["greedy", "beam"] = "greedy"
    weights: dict[str, float] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    either: int | float = 1
    anything: Any = None


FULL = Outer(
    name="no",
    inner=Inner(dims=(), rate=1e-5),
    path=Path("c"),
    limit=3,
    flag=True,
    method="beam",
    weights={"a": 1.0},
    words=["yes", "ä"],
    either=2.5,
    anything=[1, "x"],
)


@pytest.mark.parametrize("value", [Outer(name="x"), FULL])
def test_round_trip_through_a_file(value, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(to_dict(value)), encoding="utf-8")
    assert from_dict(Outer, load_yaml(path)) == value


def test_conversions():
    value = from_dict(
        Outer, {"name": "x", "inner": {"dims": "2,4,3", "rate": 1}, "path": "p", "either": 3}
    )
    assert value.inner.dims == (2, 4, 3)
    assert type(value.inner.rate) is float
    assert value.path == Path("p")
    assert type(value.either) is int
    assert from_dict(Inner, {"dims": ""}).dims == ()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "setting 'name' is missing"),
        ({"name": 3}, "name must be str, got 3"),
        ({"name": "x", "limt": 3}, r"unknown setting 'limt' \(hint: did you mean 'limit'\?\)"),
        ({"name": "x", "inner": {"zzz": 3}}, r"unknown setting 'inner.zzz' .*dims, pair, rate"),
        ({"name": "x", "inner": 3}, "inner must be a mapping, got 3"),
        ({"name": "x", "limit": 2.5}, "limit must be int, got 2.5"),
        ({"name": "x", "limit": True}, "limit must be int, got True"),
        ({"name": "x", "flag": 1}, "flag must be bool, got 1"),
        ({"name": "x", "method": "bean"}, "method must be one of greedy, beam, got 'bean'"),
        ({"name": "x", "inner": {"dims": [1, "b"]}}, r"inner.dims\[1\] must be int, got 'b'"),
        ({"name": "x", "inner": {"pair": [1]}}, "inner.pair must be tuple.*got"),
        ({"name": "x", "inner": {"rate": -1.0}}, "inner: rate must be >= 0, got -1.0"),
        ({"name": "x", "weights": {"a": "b"}}, "weights.a must be float, got 'b'"),
        ({"name": "x", "either": "b"}, "either must be int | float, got 'b'"),
    ],
)
def test_mistakes_are_named(mapping, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(Outer, mapping)


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1e-3\nb: -2E5\nc: .5e1\nd: 1e\n")
    assert load_yaml(path) == {"a": 1e-3, "b": -2e5, "c": 5.0, "d": "1e"}


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "- 1\n- 2\n",
        "1: a\n",
        "\t",
        "a: 2026-13-45",
        "a: !!timestamp x",
        "a: " + 9999 * "[",
    ],
)
def test_load_yaml_refuses(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert "a.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_yaml_never_builds_objects(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError):
        load_yaml(path)


def test_load_yaml_missing_and_empty(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").touch()
    assert load_yaml(tmp_path / "a.yaml") == {}


def test_override():
    value = override(
        Outer(name="x"), ["inner.dims=3,5", "limit=7", "name=a=b", "weights.en=0.5", "path=q"]
    )
    assert value.inner.dims == (3, 5)
    assert (value.limit, value.name, value.weights, value.path) == (
        7,
        "a=b",
        {"en": 0.5},
        Path("q"),
    )
    assert override(value, ["limit="]).limit is None
    assert override(value, ["inner.rate=1e-3"]).inner.rate == 1e-3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("limit", "write name=value"),
        ("limmit=3", "did you mean 'limit'"),
        ("limit.x=3", "'limit' in 'limit.x' is no group of settings"),
        ("limit=[", "cannot read the value"),
        ("limit=abc", "limit must be int, got 'abc'"),
    ],
)
def test_override_mistakes(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(Outer(name="x"), [assignment])


@dataclass(frozen=True)
class _Circle:
    shape: Literal["circle"] = "circle"
    radius: float = 1.0


@dataclass(frozen=True)
class _Square:
    shape: Literal["square"] = "square"
    side: float = 1.0


@dataclass(frozen=True)
class _Drawing:
    figure: _Circle | _Square = _Circle()


def test_a_union_of_dataclasses_is_told_apart_by_its_tag() -> None:
    drawing = _Drawing(_Square(side=2.0))
    assert from_dict(_Drawing, to_dict(drawing)) == drawing
    assert from_dict(_Drawing, {"figure": {"radius": 3}}) == _Drawing(_Circle(radius=3.0))
    assert from_dict(_Drawing, {"figure": _Square()}) == _Drawing(_Square())


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({"shape": "star"}, r"figure\.shape must be one of circle, square, got 'star'"),
        ({"shape": "square", "radius": 1.0}, r"unknown setting 'figure\.radius'"),
        (7, r"figure must be a mapping, got 7"),
    ],
)
def test_a_union_names_what_is_wrong(figure: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(_Drawing, {"figure": figure})
