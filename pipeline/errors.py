"""One exception tree: what is wrong, where, and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class NiftyError(Exception):
    """A failure that its message explains; shown without a traceback, exit code 1."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Message, then the hint on a line of its own."""
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(NiftyError):
    """A variable or value that cannot be what the user meant; exit code 2."""

    exit_code = 2


class ProblemsError(NiftyError):
    """Several problems found in one go; each is one line of the message."""

    def __init__(self, summary: str, problems: Iterable[str], *, hint: str | None = None) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        super().__init__("\n".join([summary, *(f"  {line}" for line in self.problems)]), hint=hint)
