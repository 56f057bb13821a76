"""`snowmelt info PATH`: what a model's file or folder is and holds, as text or JSON."""

import argparse
from pathlib import Path
from typing import Any, Final

__all__ = ["add_parser", "run"]

_DONE: Final = 0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = subparsers.add_parser(
        "info",
        help="what a checkpoint or model file holds",
        description="Say what a file or folder of a model is: a checkpoint of snowmelt or icefall, "
        "an experiment, ONNX or TorchScript files, tokens.txt, bpe.model.",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="file or folder")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    import json

    from snowmelt.runtime.info import describe

    facts = describe(args.path)
    if args.json:
        print(json.dumps(_finite(facts), ensure_ascii=False, allow_nan=False))
    else:
        for line in _lines(facts, ""):
            print(line)
    return _DONE


def _lines(value: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{indent}{key}:", *_lines(item, f"{indent}  ")]
        elif isinstance(item, (list, tuple)) and item and isinstance(item[0], dict):
            for part in item:
                lines += [f"{indent}{key}:", *_lines(part, f"{indent}  ")]
        elif isinstance(item, (list, tuple)):
            # Inputs and outputs of a graph are a line each; numbers fit in one.
            words = [str(part) for part in item]
            is_long = any(" " in word for word in words)
            lines += [f"{indent}{key}:", *(f"{indent}  {word}" for word in words)] * is_long
            lines += [f"{indent}{key}: {','.join(words) or 'none'}"] * (not is_long)
        else:
            text = f"{item:,}" if key in ("bytes", "parameters") else str(item)
            lines.append(f"{indent}{key}: {'none' if item is None else text}")
    return lines


def _finite(value: Any) -> Any:
    """The same with infinities and NaN, which JSON does not know, as null."""
    import math

    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
