"""What the linker took for a program: the libraries of the compiler and those of its own source.

A list in a recipe alone would rot; this is the linker's own, of the very link that made the binary
(`--why-extract`, ld.lld(1): a line for each member of an archive that it took, tab-separated).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipeline.builder.components import toolchain
from pipeline.errors import NiftyError, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pipeline.builder.recipes.component import Component

_MEMBER = re.compile(r"(?P<archive>[^/]+)\.a\((?P<member>.+)\)")
# BusyBox calls the archive of each of its folders so: they are the program itself
_OWN = "lib"
# the archive that libc.py makes, and its two members that are none of musl's
_LIBC = "libc"
_OF_ZIG = {"compiler_rt.o": "compiler-rt", "zigc.o": "zig-libc"}


class LinkedError(ProblemsError):
    """What is linked in is not what the recipe says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library that comes with the compiler; *file* is its licence's path in the wheel."""

    name: str
    version: str
    licence: str
    cpe: str | None
    file: str

    def text(self) -> bytes:
        """The licence as the wheel has it."""
        return (toolchain.library().parent / self.file).read_bytes()


def of_compiler() -> Mapping[str, Library]:
    """The libraries that the compiler brings, by name. Raises ToolchainError without it.

    Two are zig's own: compiler-rt, which it has rewritten after LLVM's, and the functions of libc
    that it has rewritten after musl's. They have zig's version.
    """
    zig = dict(toolchain.versions())["ziglang"]
    found = (
        Library(
            name="musl",
            version=_musl_version(),
            licence="MIT",
            cpe="musl-libc:musl",
            file="lib/libc/musl/COPYRIGHT",
        ),
        Library(
            name="compiler-rt",
            version=zig,
            licence="MIT AND Apache-2.0 WITH LLVM-exception",
            cpe=None,
            file="LICENSE",
        ),
        Library(name="zig-libc", version=zig, licence="MIT", cpe=None, file="LICENSE"),
    )
    return {library.name: library for library in found}


def _musl_version() -> str:
    path = toolchain.library() / "libc/musl/src/internal/version.h"
    found = re.search(r'#define VERSION "([^"]+)"', path.read_text("utf-8"))
    if not found:
        raise NiftyError(f"{path}: tells no version of musl")
    return found[1]


def libraries(record: Path) -> tuple[str, ...]:
    """The names of the libraries in the linker's *record*, sorted; the program's own left out."""
    found = set()
    for line in record.read_text("utf-8", "surrogateescape").splitlines()[1:]:
        extracted = line.split("\t")[1]
        if match := _MEMBER.fullmatch(PurePosixPath(extracted).name):
            found.add(_library(match["archive"], match["member"]))
    return tuple(sorted(found - {_OWN}))


def _library(archive: str, member: str) -> str:
    return _OF_ZIG.get(member, "musl") if archive == _LIBC else archive


def check(component: Component, found: Iterable[str]) -> None:
    """Raise LinkedError where the recipe says otherwise than *found*, what the linker took."""
    told = {item.name for item in component.include}
    taken = set(found) - of_compiler().keys()
    if problems := [*_differences(told, taken)]:
        raise LinkedError(
            f"{component.name} {component.version}: what is linked in is not what its recipe says:",
            problems,
            hint=f"see [[include]] in recipes/components/{component.name}/recipe.toml",
        )


def _differences(told: set[str], taken: set[str]) -> Iterator[str]:
    for name in sorted(taken - told):
        yield f"{name}: is in the binary, and no [[include]] names it"
    for name in sorted(told - taken):
        yield f"{name}: an [[include]] names it, and nothing of it is in the binary"
