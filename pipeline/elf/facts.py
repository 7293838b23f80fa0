"""The facts of an ELF file, frozen."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Mapping


class ElfError(NiftyError):
    """A file that is not ELF, is cut short, or whose headers cannot be true."""


class Endianness(StrEnum):
    """EI_DATA."""

    LITTLE = "little"
    BIG = "big"


class FileType(StrEnum):
    """e_type, in the words of elf(5)."""

    REL = "REL"
    EXEC = "EXEC"
    DYN = "DYN"
    CORE = "CORE"


class Linkage(StrEnum):
    """What a file needs in order to run."""

    STATIC = "static"  # nothing, at a fixed address
    STATIC_PIE = "static-pie"  # nothing, at any address
    DYNAMIC = "dynamic"  # an interpreter or libraries (libc.so.6 can be run and is here, too)
    SHARED = "shared"  # somebody who loads it: no interpreter
    NONE = "none"  # cannot be run: object file, core, separate debug information


class Relro(StrEnum):
    """PT_GNU_RELRO; full if everything is bound at start as well (BIND_NOW).

    A static program without dynamic section has no such mark and counts as partial.
    """

    NONE = "none"
    PARTIAL = "partial"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes, exactly as binutils' `size` prints them (Berkeley format).

    They come from section headers, so a file without any has 0, 0, 0; a core file's come from its
    segments. `.tbss` counts as bss. In separate debug information, whose sections have no contents,
    data counts as bss.
    """

    text: int
    data: int
    bss: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One PT_LOAD: *flags* as in `r-x`, the numbers in bytes, named as in elf(5)."""

    flags: str
    filesz: int
    memsz: int
    vaddr: int
    align: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ElfFacts:
    """One ELF file. What is absent is None or empty.

    *machine* is in the words of `uname -m`, or else of elf.h in lower case. *needed*, *rpath* and
    *runpath* keep the file's order, which is the search order. *versions_needed* maps a library's
    file name to the symbol versions without which ld.so refuses to start (those asked for by weak
    symbols only are left out, as ld.so does); *versions_defined* leaves out the base version,
    which is the file's own name, and *has_versions* tells whether there is a table of definitions
    at all (ld.so tolerates a library without one). *no_default_directories* is DF_1_NODEFLIB.
    *pie* also takes what older linkers made; *marked_pie* is DF_1_PIE alone, which ld.so looks at.
    An *rpath* or *runpath* of `("",)` is there, but empty. *build_id* is in hexadecimal.
    """

    bits: int
    endianness: Endianness
    machine: str
    type: FileType
    linkage: Linkage
    pie: bool
    interpreter: str | None
    needed: tuple[str, ...]
    soname: str | None
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    versions_needed: Mapping[str, tuple[str, ...]] = field(hash=False)
    versions_defined: tuple[str, ...]
    has_versions: bool
    no_default_directories: bool
    executable_stack: bool
    relro: Relro
    build_id: str | None
    sizes: Sizes
    segments: tuple[Segment, ...]
    marked_pie: bool = False

    @property
    def text_segment(self) -> int:
        """Bytes of memory that hold code: the sum of the executable PT_LOADs."""
        return sum(segment.memsz for segment in self.segments if "x" in segment.flags)


def as_json(facts: ElfFacts) -> dict[str, object]:
    """*facts* in JSON's types, the same for the same file every time."""
    plain: dict[str, object] = {}
    # the mark is ld.so's business; *pie* says the same to people
    for name in (each.name for each in fields(facts) if each.name != "marked_pie"):
        value = getattr(facts, name)
        match value:
            case StrEnum():
                plain[name] = value.value
            case Sizes():
                plain[name] = _members(value)
            case MappingProxyType():
                plain[name] = {file: list(value[file]) for file in sorted(value)}
            case tuple():
                plain[name] = [_members(v) if isinstance(v, Segment) else v for v in value]
            case _:
                plain[name] = value
    return plain | {"text_segment": facts.text_segment}


def _members(record: Sizes | Segment) -> dict[str, int | str]:
    return {each.name: getattr(record, each.name) for each in fields(record)}
