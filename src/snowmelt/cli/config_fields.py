"""How do the numbers of settings become options? Every field has one, of the same name with dashes.

Invariant: an option that is not given is None, so that a preset's value stays.
"""

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from snowmelt.cli.arguments import parse_bool

__all__ = ["add_field", "add_fields", "field_defaults"]


def add_fields(
    group: argparse._ArgumentGroup, defaults: Mapping[str, Any], help: Mapping[str, str]
) -> None:
    """Add an option for each field.

    Args:
        group: what to add to.
        defaults: of `field_defaults`; their types are those of the options.
        help: what each field means.
    """
    for name, default in defaults.items():
        add_field(group, ["--" + name.replace("_", "-")], default, help[name])


def add_field(
    group: argparse._ArgumentGroup, flags: Sequence[str], default: Any, text: str
) -> None:
    """Add the option of one field, of the type of its default; None stands for a truth value."""
    text = text.replace("%", "%%")
    if default is None or isinstance(default, bool):
        group.add_argument(
            *flags, nargs="?", const=True, type=parse_bool, metavar="BOOL", help=text
        )
    else:
        metavar = {int: "N", float: "X"}.get(type(default), "NAME")
        group.add_argument(*flags, type=type(default), metavar=metavar, help=text)


def field_defaults(classes: Sequence[type], *, without: Collection[str] = ()) -> dict[str, Any]:
    """Name -> default of every field; of the first class that has it.

    Args:
        classes: dataclasses.
        without: fields that are no options.
    """
    defaults: dict[str, Any] = {}
    for cls in classes:
        for field in fields(cls):
            if field.name not in without:
                defaults.setdefault(field.name, field.default)
    return defaults
