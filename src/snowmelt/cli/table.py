"""How is a table printed? Columns aligned, no lines drawn.

Invariant: imports nothing.
"""

from collections.abc import Sequence

__all__ = ["aligned"]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns, two blanks between them.

    Example:
        >>> print(aligned([["avg", "WER"], ["10", "2.50"]]))
        avg  WER
        10   2.50
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
