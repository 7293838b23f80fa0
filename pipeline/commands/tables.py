"""Results on stdout: tables for people and awk, JSON for programs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pipeline import terminal
from pipeline.errors import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIGURE = re.compile(r"[\d.,]+")


def print_json(value: Any) -> None:
    """*value* as indented JSON, keys sorted."""
    terminal.json(json.dumps(value, indent=1, sort_keys=True, default=str) + "\n")


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be: a table that awk reads as well as a person."""
    safe = [tuple(map(shown, row)) for row in rows]
    figures = [
        all(_FIGURE.fullmatch(cell) for cell in column) for column in zip(*safe, strict=True)
    ]
    for line in aligned((head, *safe), to_right=figures or [True] * len(head)):
        terminal.lines(line)


def aligned(rows: Sequence[Sequence[str]], *, to_right: Sequence[bool]) -> list[str]:
    """A line for each of *rows*, cells as wide as their column; *to_right* says where they lean."""
    columns = []
    for column, right in zip(zip(*rows, strict=True), to_right, strict=True):
        width = max(map(len, column))
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in column])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
