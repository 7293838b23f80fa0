"""A library root: a directory tree whose files are looked at as if it were `/`."""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline import elf
from pipeline.errors import NiftyError
from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from pipeline.elf import ElfFacts

T = TypeVar("T")

_MOST_LINKS = 40  # MAXSYMLINKS, path_resolution(7)


class LibraryError(NiftyError):
    """A file that has no closure: absent, or nothing that can be run or loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A symbolic link of a root: *path* with no link before its last part, *target* as it says."""

    path: PurePosixPath
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a name leads: the absolute path inside the root, without links, and those followed."""

    file: PurePosixPath
    links: tuple[Link, ...]
    inode: tuple[int, int]
    is_regular: bool
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryRoot:
    """The tree at *path*; every name is absolute inside it, and nothing outside is looked at.

    *hwcaps* are the subdirectories of `glibc-hwcaps` that the CPU can use, best first; a build
    leaves them out, so that its own CPU decides nothing. *platform* is `$PLATFORM`, which the
    kernel tells a program (AT_PLATFORM); None: the machine's name. Without *has_ldconfig* neither
    ld.so.cache nor ld.so.conf plays a part, as in an instance, which has no such files.

    What has been read is remembered for as long as the value lives: make a new one when the tree
    may have changed.
    """

    path: Path = Path("/")
    hwcaps: tuple[str, ...] = ()
    platform: str | None = None
    has_ldconfig: bool = True
    _memory: dict[Hashable, Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def remembered(self, key: Hashable, make: Callable[[], T]) -> T:
        """What *make* returned when it was called for this *key*, which is once."""
        if key not in self._memory:
            self._memory[key] = make()
        value: T = self._memory[key]
        return value

    def locate(self, name: str) -> Located | None:
        """What open(2) of the absolute *name* would reach with this root as `/`; None: nothing.

        Links restart at the root when they are absolute, and `..` stays at it (path_resolution(7)).
        """
        return self.remembered(name, lambda: self._walk(name))

    def _walk(self, name: str) -> Located | None:
        parts, here, links = deque(name.split("/")), "", []
        status = self._status(here)
        while parts:
            part = parts.popleft()
            if not stat.S_ISDIR(status.st_mode):
                return None
            if part in ("", "."):
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                status = self._status(here)
                continue
            inside = f"{here}/{part}"
            try:
                status = self._status(inside)
                if not stat.S_ISLNK(status.st_mode):
                    here = inside
                    continue
                target = str(beneath(self.path, inside[1:]).readlink())
                status = self._status(here)
            except OSError:
                return None
            links.append(Link(path=PurePosixPath(inside), target=target))
            if len(links) > _MOST_LINKS:
                return None
            if target.startswith("/"):
                here, status = "", self._status("")
            parts.extendleft(reversed(target.split("/")))
        return Located(
            file=PurePosixPath(here or "/"),
            links=tuple(links),
            inode=(status.st_dev, status.st_ino),
            is_regular=stat.S_ISREG(status.st_mode),
            size=status.st_size,
        )

    def _status(self, inside: str) -> os.stat_result:
        return os.lstat(beneath(self.path, inside[1:])) if inside else self.path.stat()

    def outside(self, file: PurePosixPath) -> Path:
        """Where *file*, an absolute path without links inside the root, is for everybody else."""
        inside = str(file).lstrip("/")
        return beneath(self.path, inside) if inside else self.path

    def content(self, name: str, most: int = -1) -> bytes | None:
        """The first *most* bytes (all, if negative) of a regular file; None: cannot be read."""
        located = self.locate(name)
        if located is None or not located.is_regular:
            return None
        try:
            with self.outside(located.file).open("rb") as stream:
                return stream.read(most)
        except OSError:
            return None

    def names(self, directory: str) -> tuple[str, ...]:
        """What a directory holds, sorted; empty if it is none."""
        located = self.locate(directory)
        try:
            found = self.outside(located.file).iterdir() if located else ()
            return tuple(sorted(each.name for each in found))
        except OSError:
            return ()

    def is_readable(self, located: Located) -> bool:
        """Whether this user may read the file."""
        return os.access(self.outside(located.file), os.R_OK)

    def facts(self, file: PurePosixPath) -> ElfFacts:
        """The facts of the ELF file at *file*, an absolute path without links; raises ElfError."""
        return self.remembered(file, lambda: elf.read(self.outside(file)))
