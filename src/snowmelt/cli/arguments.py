"""How are options read that argparse alone reads badly?

Invariant: imports the standard library only, so that every `--help` stays fast.
"""

import argparse
import math
from typing import Final

__all__ = [
    "add_bool",
    "finite_float",
    "finite_floats",
    "natural_int",
    "parse_bool",
    "positive_float",
    "positive_int",
    "positive_ints",
    "sizes",
    "words",
]

_TRUE_WORDS: Final = frozenset({"1", "true", "yes", "t", "y", "on"})
_FALSE_WORDS: Final = frozenset({"0", "false", "no", "f", "n", "off"})

# What a float32 can hold: larger numbers would become infinite in calculations.
_MAX_FLOAT: Final = 3e38


def parse_bool(word: str) -> bool:
    """Read a word as yes or no, as icefall's scripts do, in any case of letters.

    Raises:
        argparse.ArgumentTypeError: the word is neither.

    Example:
        >>> parse_bool("True"), parse_bool("0")
        (True, False)

    Source: icefall, icefall/utils.py, str2bool ("on" and "off" are ours).
    """
    lowered = word.lower()
    if lowered in _TRUE_WORDS:
        return True
    if lowered in _FALSE_WORDS:
        return False
    raise argparse.ArgumentTypeError(f"{word!r} is neither yes nor no; write 1 or 0")


def add_bool(parser: argparse._ActionsContainer, flag: str, *, default: bool, help: str) -> None:
    """Add an option that may stand alone (yes) or carry a word: `--use-fp16`, `--use-fp16 0`.

    Args:
        parser: the parser or group to add to.
        flag: the option with its dashes.
        default: value when the option is absent; appended to the help text.
        help: what the option does.
    """
    parser.add_argument(
        flag,
        nargs="?",
        const=True,
        default=default,
        type=parse_bool,
        metavar="BOOL",
        help=f"{help} (default: {'yes' if default else 'no'})",
    )


def positive_int(word: str) -> int:
    """A whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    return _int_from(word, minimum=1)


def natural_int(word: str) -> int:
    """A whole number of at least 0.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    return _int_from(word, minimum=0)


def positive_ints(word: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, separated by commas.

    Raises:
        argparse.ArgumentTypeError: they are not.

    Example:
        >>> positive_ints("28,29,30")
        (28, 29, 30)
    """
    return tuple(positive_int(part) for part in words(word))


def sizes(word: str) -> tuple[int, ...] | int:
    """A whole number of at least 1, or several separated by commas, which may be equal.

    Raises:
        argparse.ArgumentTypeError: they are not.

    Example:
        >>> sizes("384,384"), sizes("12")
        ((384, 384), 12)
    """
    numbers = tuple(positive_int(part.strip()) for part in word.split(","))
    return numbers if len(numbers) > 1 else numbers[0]


def words(word: str) -> tuple[str, ...]:
    """Words separated by commas, at least one.

    Raises:
        argparse.ArgumentTypeError: there is none, or one comes twice.
    """
    parts = tuple(part.strip() for part in word.split(","))
    if not all(parts) or len(set(parts)) != len(parts):
        raise argparse.ArgumentTypeError(f"{word!r} is no list of different words: a,b,c")
    return parts


def finite_float(word: str) -> float:
    """A number; neither NaN nor infinity.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not abs(number) <= _MAX_FLOAT:
        raise argparse.ArgumentTypeError(f"{word!r} is not a finite number")
    return number


def finite_floats(word: str) -> tuple[float, ...]:
    """Different finite numbers, separated by commas.

    Raises:
        argparse.ArgumentTypeError: they are not.

    Example:
        >>> finite_floats("0.1,0.2")
        (0.1, 0.2)
    """
    return tuple(finite_float(part) for part in words(word))


def positive_float(word: str) -> float:
    """A finite number above 0.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    number = finite_float(word)
    if number <= 0.0:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0")
    return number


def _int_from(word: str, *, minimum: int) -> int:
    try:
        number = int(word)
    except ValueError:
        number = minimum - 1
    if number < minimum:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of at least {minimum}")
    return number
