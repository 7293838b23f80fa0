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
    columns = list(zip(head, *safe, strict=True))
    aligned = []
    for column in columns:
        width = max(map(len, column))
        is_figures = all(_FIGURE.fullmatch(cell) for cell in column[1:])
        aligned.append([cell.rjust(width) if is_figures else cell.ljust(width) for cell in column])
    for cells in zip(*aligned, strict=True):
        terminal.lines("  ".join(cells).rstrip())
