"""How does a configuration file become checked, typed values, and the other way round?

Values are (nested, usually frozen) dataclasses; files are YAML. Unknown keys and wrong types are
errors that name the key, the value and what would be right.

Invariant: `from_dict(type(x), to_dict(x)) == x`; nothing is converted silently except what
`from_dict` lists.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from snowmelt.core.errors import ConfigError
from snowmelt.core.files import require_file

__all__ = ["dump_yaml", "from_dict", "load_yaml", "override", "to_dict"]

_T = TypeVar("_T")


# PyYAML's safe loader, except that 1e-3 is a number as everywhere else, not a string.
_Loader: Any = type("_Loader", (yaml.SafeLoader,), {})
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping with text keys; an empty file gives {}.

    Raises:
        ConfigError: missing file, not YAML, or not a mapping.
    """
    path = require_file(path, "configuration", error=ConfigError)
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except Exception as error:  # yaml's own is one of many: a date without such a day, …
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path} must hold a mapping of names to values")
    return content


def dump_yaml(mapping: Mapping[str, Any]) -> str:
    """YAML text of a mapping, in the order of its keys; short lists stay on one line."""
    text: str = yaml.safe_dump(
        _plain(mapping), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    return text


def to_dict(obj: Any) -> dict[str, Any]:
    """Plain dict of a dataclass: nested dataclasses become dicts, tuples lists, paths text."""
    plain = _plain(obj)
    assert isinstance(plain, dict), obj
    return plain


def from_dict(cls: type[_T], mapping: Mapping[str, Any]) -> _T:
    """Build a dataclass from plain values, checking names and types.

    Converted are: int to float, list to tuple, text to Path, mapping to nested dataclass, and
    "2,4,3" or a single number to a tuple (the spelling of icefall's options).

    Args:
        cls: the dataclass; fields may be bool, int, float, str, Path, Any, tuple, list, dict,
            Literal, Optional or unions of these, dataclasses, and unions of dataclasses that a
            Literal field of one value tells apart.
        mapping: field name -> value; fields with a default may be absent.

    Raises:
        ConfigError: unknown or missing key, wrong type, or the class's own check
            (`__post_init__`) refuses the values.
    """
    return typing.cast(_T, _read_dataclass(cls, mapping, ""))


def override(obj: _T, assignments: Sequence[str]) -> _T:
    """Copy of a dataclass with some values replaced, as `--set a.b=value` asks.

    Args:
        obj: a dataclass.
        assignments: "name=value" or "outer.inner=value"; values are read as YAML.

    Raises:
        ConfigError: no "=", unknown name, wrong type.
    """
    values = to_dict(obj)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"cannot read the setting '{assignment}'", "write name=value")
        *outer, last = name.strip().split(".")
        target = values
        for part in outer:
            inner = target.get(part)
            if not isinstance(inner, dict):
                raise ConfigError(f"'{part}' in '{name}' is no group of settings")
            target = inner
        try:
            target[last] = _parse(text)
        except Exception:
            raise ConfigError(f"cannot read the value of '{assignment}'") from None
    return from_dict(type(obj), values)


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain values only


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _read_dataclass(cls: type, mapping: Any, where: str) -> Any:
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where or cls.__name__} must be a mapping, got {mapping!r}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in mapping:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(fields)}"
            raise ConfigError(f"unknown setting '{_join(where, str(key))}'", hint)
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = _read(hints[name], mapping[name], _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"setting '{_join(where, name)}' is missing")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where or cls.__name__}: {error}") from None


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type `kind`; `where` is the dotted name for messages."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _read_union(kind, args, value, where)
    if origin is typing.Literal:
        if value in args and type(value) in {type(arg) for arg in args}:
            return value
        raise ConfigError(f"{where} must be one of {', '.join(map(str, args))}, got {value!r}")
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else _read_dataclass(kind, value, where)
    if origin is tuple and isinstance(value, str):
        value = [_parse(part) for part in value.split(",")] if value.strip() else []
    if origin is tuple and type(value) in (int, float):
        value = [value]
    if origin is tuple and isinstance(value, (list, tuple)):
        if len(args) == 2 and args[1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) == len(value):
            items = enumerate(zip(args, value, strict=True))
            return tuple(_read(arg, item, f"{where}[{i}]") for i, (arg, item) in items)
    elif origin is list and isinstance(value, (list, tuple)):
        return [_read(args[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    elif origin is dict and isinstance(value, Mapping):
        return {
            _read(args[0], key, where): _read(args[1], item, _join(where, str(key)))
            for key, item in value.items()
        }
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif kind in (bool, int, float, str, types.NoneType) and type(value) is kind:
        return value
    raise ConfigError(f"{where} must be {_type_name(kind)}, got {value!r}")


def _read_union(kind: Any, args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and types.NoneType in args:
        return None
    choices = [arg for arg in args if arg is not types.NoneType]
    if len(choices) == 1:
        return _read(choices[0], value, where)
    if all(dataclasses.is_dataclass(choice) for choice in choices):
        if dataclasses.is_dataclass(value):
            return value
        return _read(_tagged(choices, value, where), value, where)
    # The exact type wins, so that int | float keeps 3 an int.
    if type(value) in choices:
        return value
    for choice in choices:
        try:
            return _read(choice, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} must be {_type_name(kind)}, got {value!r}")


def _tagged(choices: list[Any], value: Any, where: str) -> Any:
    """The one of several dataclasses that `value` names; the first one if it names none.

    They share a field of one possible value each, their tag.
    """
    tags = {}
    for choice in choices:
        for name, hint in typing.get_type_hints(choice).items():
            if typing.get_origin(hint) is typing.Literal and len(typing.get_args(hint)) == 1:
                tags[typing.get_args(hint)[0]] = (name, choice)
    assert len(tags) == len(choices), choices
    tag = next(iter(tags.values()))[0]
    chosen = value.get(tag, next(iter(tags))) if isinstance(value, Mapping) else next(iter(tags))
    if chosen not in list(tags):  # it may be anything, also unhashable
        raise ConfigError(f"{_join(where, tag)} must be one of {', '.join(tags)}, got {chosen!r}")
    return tags[chosen][1]


def _type_name(kind: Any) -> str:
    if kind is types.NoneType:
        return "empty"
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
