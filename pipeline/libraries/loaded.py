"""A closure: every file that ld.so would load to start a program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePosixPath

    from pipeline.elf import ElfFacts
    from pipeline.libraries.abi import Libc
    from pipeline.libraries.problems import Problem
    from pipeline.libraries.root import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One file of a process.

    *name* is what it was asked for by, *path* what ld.so calls it (`name => path`), *file* where it
    lies in the root when all *links* on the way are followed. *needs* are the paths of what it
    needs itself, in its own order; *searched* the directories that were looked into for it.
    """

    name: str
    path: str
    file: PurePosixPath
    links: tuple[Link, ...]
    size: int
    needs: tuple[str, ...]
    searched: tuple[str, ...]
    facts: ElfFacts = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """What it takes to run *binary*, a path inside a root.

    If *binary* is a script, *scripts* are it and those which interpret each other, *program* is the
    interpreter of the last, and *launchers* are the closures of the `env` that starts it. *program*
    is None if a script's is missing; *links* led from the scripts' lines there. *interpreter* is
    the ld.so, also when a library needs it by name and it is among the *libraries*; those are in
    the order in which ld.so loads them.
    """

    binary: str
    libc: Libc | None
    program: Loaded | None
    interpreter: Loaded | None = None
    libraries: tuple[Loaded, ...] = ()
    scripts: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    launchers: tuple[Closure, ...] = ()
    problems: tuple[Problem, ...] = ()

    def files(self) -> tuple[Loaded, ...]:
        """Program, interpreter, libraries and the same of the launchers, each file once."""
        return tuple({each.file: each for each in self._all()}.values())

    def _all(self) -> Iterator[Loaded]:
        yield from (each for each in (self.program, self.interpreter) if each is not None)
        yield from self.libraries
        for launcher in self.launchers:
            yield from launcher.files()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.files())
