"""Readers of the values in a file that may hold anything: each gives the value, or a ValueError.

What they raise is one printable line, however long and strange the value is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import re
    from collections.abc import Callable
    from enum import StrEnum


def shown(value: Any) -> str:
    """*value* in a message: printable, and not all of a long one."""
    told = ascii(value)
    return told if len(told) <= 60 else f"{told[:40]}...{told[-1]}"


def text(value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {shown(value)}")  # noqa: TRY004 (one kind for all)
    return value


def like(pattern: re.Pattern[str], what: str) -> Callable[[Any], str]:
    """A reader of text that *pattern* matches whole; *what* it should be, for the message."""

    def reader(value: Any) -> str:
        if not pattern.fullmatch(text(value)):
            raise ValueError(f"expected {what}, found {shown(value)}")
        return str(value)

    return reader


def or_none(reader: Callable[[Any], str]) -> Callable[[Any], str | None]:
    """*reader*, for a value that may be null."""
    return lambda value: None if value is None else reader(value)


def within(low: int, high: int) -> Callable[[Any], int]:
    """A reader of whole numbers from *low* to *high*."""

    def reader(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            told = f"expected a whole number from {low} to {high}, found {shown(value)}"
            raise ValueError(told)
        return value

    return reader


def one_of(kind: type[StrEnum]) -> Callable[[Any], StrEnum]:
    """A reader of the members of *kind*."""

    def reader(value: Any) -> StrEnum:
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"expected {' or '.join(kind)}, found {shown(value)}") from None

    return reader


def truth(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {shown(value)}")  # noqa: TRY004 (as `text`)
    return value
