"""Why a program would not start: one record for each reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Kind(StrEnum):
    """What is wrong."""

    INTERPRETER = "interpreter"  # absent, or nothing the kernel could use as one
    MISSING = "missing"  # no such library in any directory
    MACHINE = "machine"  # only for another machine or class
    BROKEN = "broken"  # a file of that name ends ld.so's search, and cannot be loaded
    VERSION = "version"  # the library does not define a symbol version


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One reason why *binary* would not start; `str` makes a sentence of it.

    *needed_by* is the file that asks for *library*, both as ld.so names them. *found* is the file
    that was found and is not good enough, *searched* every directory (and the cache) that was
    looked into, in order, *detail* what else is to be said.
    """

    kind: Kind
    binary: str
    needed_by: str
    library: str
    version: str | None = None
    found: str | None = None
    searched: tuple[str, ...] = ()
    detail: str = ""

    def __str__(self) -> str:
        """Binary, library, version and every directory searched, in one line."""
        asking = "" if self.needed_by == self.binary else f" (for {self.needed_by})"
        where = f"; searched {', '.join(self.searched)}" if self.searched else ""
        return f"{self.binary}: {self._what(asking)}{where}"

    def _what(self, asking: str) -> str:
        match self.kind:
            case Kind.INTERPRETER if not self.library:
                return f"has a first line that names no interpreter{asking}"
            case Kind.INTERPRETER:
                return f"needs the interpreter {self.library}{asking}, which {self.detail}"
            case Kind.MISSING:
                end = f": {self.detail}" if self.detail else ""
                return f"needs {self.library}{asking}, which is not there{end}"
            case Kind.MACHINE:
                return f"needs {self.library}{asking}, but there is only {self.detail}"
            case Kind.BROKEN:
                return f"needs {self.library}{asking}, but {self.found} {self.detail}"
            case Kind.VERSION:
                return (
                    f"needs {self.version} of {self.library}{asking},"
                    f" but {self.found} {self.detail}"
                )


def newest_like(version: str, defined: Sequence[str]) -> str:
    """What a library has instead of *version*: `has GLIBC_2.36 at most`."""
    prefix = re.match(r"[^0-9]*", version)
    family = re.compile(re.escape(prefix[0] if prefix else "") + r"[0-9]")
    alike = [each for each in defined if family.match(each)]
    return f"has {alike[-1]} at most" if alike else "has no version like it"
