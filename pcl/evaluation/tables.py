"""Tables for a terminal."""

__all__ = ["format_table"]

from pcl.errors import printable
from pcl.evaluation.result import Table


def format_table(table: Table) -> str:
    """Align a table for a terminal: the first row is its head, the first column is text, the others are numbers.

    Example:
        >>> print(format_table([["name", "value"], ["a", "0.5"]]))
        name  value
        ----  -----
        a       0.5
    """
    table = [[printable(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = [table[0], ["-" * width for width in widths], *table[1:]]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
