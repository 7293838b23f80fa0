"""Which files fit into one process, and what is compiled into the ld.so that loads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.elf import ElfFacts, Endianness
    from pipeline.libraries.root import LibraryRoot

# (machine, bits) -> where the ABI says glibc's ld.so is, and Debian's name for the directories
_GLIBC: Mapping[tuple[str, int], tuple[str, str]] = {
    ("x86_64", 64): ("/lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
    ("x86_64", 32): ("/libx32/ld-linux-x32.so.2", "x86_64-linux-gnux32"),
    ("i686", 32): ("/lib/ld-linux.so.2", "i386-linux-gnu"),
    ("aarch64", 64): ("/lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
    ("arm", 32): ("/lib/ld-linux-armhf.so.3", "arm-linux-gnueabihf"),
    ("ppc64le", 64): ("/lib64/ld64.so.2", "powerpc64le-linux-gnu"),
    ("s390x", 64): ("/lib/ld64.so.1", "s390x-linux-gnu"),
    ("riscv64", 64): ("/lib/ld-linux-riscv64-lp64d.so.1", "riscv64-linux-gnu"),
    ("loongarch64", 64): ("/lib64/ld-linux-loongarch-lp64d.so.1", "loongarch64-linux-gnu"),
}
# system_dirs of glibc's elf/dl-load.c: directories, each with a slash and a NUL at its end
_SYSTEM_DIRS = re.compile(rb"(?:/[!-~]{1,250}/\0)+")


class Libc(StrEnum):
    """Whose ld.so it is; the two search by different rules."""

    GLIBC = "glibc"
    MUSL = "musl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Abi:
    """What two files must agree about to be loaded into one process."""

    machine: str
    bits: int
    endianness: Endianness

    @classmethod
    def of(cls, facts: ElfFacts) -> Self:
        """That of an ELF file."""
        return cls(machine=facts.machine, bits=facts.bits, endianness=facts.endianness)

    def __str__(self) -> str:
        """`x86_64, 64 bits`."""
        return f"{self.machine}, {self.bits} bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """An ld.so: *path* as PT_INTERP names it; *directories* are searched at last, *lib* is `$LIB`.

    For musl, *directories* holds what its configuration says, and *lib* is of no use.
    """

    path: str
    libc: Libc
    directories: tuple[str, ...]
    lib: str


def loader_of(facts: ElfFacts, root: LibraryRoot) -> Loader:
    """The ld.so that a program asks for, or that would load this library.

    glibc's carries its directories as text, so they are read from the file; without it they are
    what Debian (if the root has its multiarch directory) or everybody else would compile in.
    """
    path = facts.interpreter or _usual_path(facts, root)
    key = (path, facts.machine, facts.bits)
    return root.remembered(key, lambda: _loader(path, facts, root))


def _loader(path: str, facts: ElfFacts, root: LibraryRoot) -> Loader:
    content = root.content(path) or b""
    name = path.rpartition("/")[2]
    if name.startswith("ld-musl-") or b"musl libc (" in content:
        directories = _musl_directories(path, facts.machine, root)
        return Loader(path=path, libc=Libc.MUSL, directories=directories, lib="lib")
    directories = _compiled_in(content) or _usual_directories(facts, root)
    lib = re.fullmatch(r"/(?:usr/)?(lib.*)", directories[0])
    return Loader(path=path, libc=Libc.GLIBC, directories=directories, lib=lib[1] if lib else "lib")


def _usual_path(facts: ElfFacts, root: LibraryRoot) -> str:
    musl = f"/lib/ld-musl-{_musl_name(facts.machine)}.so.1"
    usual, _ = _GLIBC.get((facts.machine, facts.bits), ("/lib/ld.so.1", ""))
    if any(name == "libc.so" or name.startswith("libc.musl-") for name in facts.needed):
        return musl
    return musl if root.locate(usual) is None and root.locate(musl) is not None else usual


def _compiled_in(content: bytes) -> tuple[str, ...]:
    runs = (run for run in _SYSTEM_DIRS.findall(content) if b"lib" in run)
    found = max(runs, key=len, default=b"")
    return tuple(part.decode().rstrip("/") for part in found.split(b"\0") if part.strip(b"/"))


def _usual_directories(facts: ElfFacts, root: LibraryRoot) -> tuple[str, ...]:
    _, triple = _GLIBC.get((facts.machine, facts.bits), ("", ""))
    if triple and root.locate(f"/usr/lib/{triple}"):
        return (f"/lib/{triple}", f"/usr/lib/{triple}", "/lib", "/usr/lib")
    return ("/lib64", "/usr/lib64") if facts.bits == 64 else ("/lib", "/usr/lib")


def _musl_name(machine: str) -> str:
    return {"i686": "i386", "arm": "armhf", "ppc64le": "powerpc64le"}.get(machine, machine)


def _musl_directories(path: str, machine: str, root: LibraryRoot) -> tuple[str, ...]:
    """Musl's ldso/dynlink.c, load_library: a file below the prefix of the ld.so itself, or these.

    Separators are colons and line feeds; a file without any directory means no search at all.
    """
    name = re.fullmatch(r"ld-musl-(.+)\.so\.1", path.rpartition("/")[2])
    prefix = path.rpartition("/")[0].rpartition("/")[0]
    file = f"{prefix}/etc/ld-musl-{name[1] if name else _musl_name(machine)}.path"
    if root.locate(file) is None:
        return ("/lib", "/usr/local/lib", "/usr/lib")
    text = (root.content(file) or b"").decode(errors="replace")
    return tuple(part for part in re.split("[:\n]", text) if part)
