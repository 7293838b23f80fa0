"""What an ELF file says about itself, as frozen facts; the only user of pyelftools.

Everything is read the way the kernel and ld.so read it, through program headers and PT_DYNAMIC, so
a file without section headers tells as much. Sections serve for `Sizes` and the build id only.
Every count and offset is checked against the file before it is followed: a hostile or broken file
costs one `ElfError`, not a traceback, memory or time.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from elftools.elf.structs import ELFStructs  # noqa: TID251 (this module is the door)

_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 0x1, 0x2, 0x4
_PF_X, _PF_W, _PF_R = 0x1, 0x2, 0x4
_PN_XNUM, _SHN_XINDEX = 0xFFFF, 0xFFFF
_DF_BIND_NOW, _DF_1_NOW, _DF_1_PIE = 0x8, 0x1, 0x08000000
_VER_FLG_BASE, _VER_FLG_WEAK = 0x1, 0x2
_NT_GNU_BUILD_ID = 3

# What no honest file comes near; a lying one must not cost more than this.
_MOST_DYNAMIC_ENTRIES = 4096
_MOST_VERSIONS = 8192
_MOST_NOTES = 4096
_LONGEST_STRING = 16384

# `uname -m` by (e_machine, bits); one name where the kernel has one per CPU (armv6l, armv7l).
_MACHINES: Mapping[tuple[str | int, int], str] = {
    ("EM_386", 32): "i686",
    ("EM_68K", 32): "m68k",
    ("EM_AARCH64", 64): "aarch64",
    (0x9026, 64): "alpha",
    ("EM_ARM", 32): "arm",
    ("EM_IA_64", 64): "ia64",
    ("EM_LOONGARCH", 64): "loongarch64",
    ("EM_MIPS", 32): "mips",
    ("EM_MIPS", 64): "mips64",
    ("EM_PARISC", 32): "parisc",
    ("EM_PARISC", 64): "parisc64",
    ("EM_PPC", 32): "ppc",
    ("EM_PPC64", 64): "ppc64",
    ("EM_RISCV", 32): "riscv32",
    ("EM_RISCV", 64): "riscv64",
    ("EM_S390", 32): "s390",
    ("EM_S390", 64): "s390x",
    ("EM_SPARC", 32): "sparc",
    ("EM_SPARC32PLUS", 32): "sparc",
    ("EM_SPARCV9", 64): "sparc64",
    ("EM_X86_64", 32): "x86_64",  # the x32 ABI: the kernel is the 64-bit one
    ("EM_X86_64", 64): "x86_64",
}

# Without PT_GNU_STACK the stack is executable to glibc's ld.so (DEFAULT_STACK_PERMS) and to older
# kernels everywhere but here. x86_64 is not in the list: Linux before 5.8 made all memory of such
# a program executable, and any Linux does so for a 32-bit one (arch/x86/include/asm/elf.h).
_NO_STACK_HEADER_IS_SAFE = frozenset({"aarch64", "aarch64_be", "loongarch64", "riscv32", "riscv64"})


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
    which is the file's own name. *build_id* is in hexadecimal.
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
    executable_stack: bool
    relro: Relro
    build_id: str | None
    sizes: Sizes
    segments: tuple[Segment, ...]

    @property
    def text_segment(self) -> int:
        """Bytes of memory that hold code: the sum of the executable PT_LOADs."""
        return sum(segment.memsz for segment in self.segments if "x" in segment.flags)


def as_json(facts: ElfFacts) -> dict[str, object]:
    """*facts* in JSON's types, the same for the same file every time."""
    plain: dict[str, object] = {}
    for name in (each.name for each in fields(facts)):
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


def read(path: Path) -> ElfFacts:
    """The facts of the file at *path* (symbolic links are followed); raises ElfError."""
    try:
        stream = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 (opener; below)
    except (OSError, ValueError) as error:
        raise ElfError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    with stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ElfError(f"{path}: not an ELF file: is no regular file")
        return _facts(stream, size=status.st_size, name=str(path))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for its other end


def parse(content: bytes, name: str) -> ElfFacts:
    """The facts of the ELF file with these bytes; raises ElfError, which starts with *name*."""
    return _facts(io.BytesIO(content), size=len(content), name=name)


def _facts(stream: BinaryIO, *, size: int, name: str) -> ElfFacts:
    from elftools.common.exceptions import ELFError  # noqa: PLC0415, TID251 (lazy; the door)

    try:
        return _gather(_identify(stream, size=size, name=name))
    except (
        *(ELFError, struct.error, OSError, ArithmeticError),
        *(AssertionError, LookupError, TypeError, ValueError),
    ) as error:
        # Bounds are checked before the library reads, so this is a file that changes meanwhile,
        # or a value which the library did not expect.
        raise ElfError(f"{name}: broken ELF file: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """An ELF file whose identification and header are sane; the rest is read through here."""

    stream: BinaryIO
    size: int
    name: str
    header: Any
    structs: ELFStructs

    @property
    def bits(self) -> int:
        return self.structs.elfclass

    def broken(self, what: str) -> ElfError:
        return ElfError(f"{self.name}: broken ELF file: {what}")

    def bytes_at(self, offset: int, length: int, what: str) -> bytes:
        if offset + length > self.size:
            raise self.broken(f"{what} ends at byte {offset + length}, the file at {self.size}")
        self.stream.seek(offset)
        return self.stream.read(length)

    def record(self, layout: Any, offset: int, what: str) -> Any:
        from elftools.common.utils import struct_parse  # noqa: PLC0415, TID251 (lazy; the door)

        end = offset + layout.sizeof()
        if end > self.size:
            raise self.broken(f"{what} ends at byte {end}, the file at {self.size}")
        return struct_parse(layout, self.stream, offset)

    def table(self, layout: Any, *, offset: int, count: int, stated: int, what: str) -> list[Any]:
        """*count* records at *offset*, *stated* being the header's own idea of a record's size."""
        wanted = layout.sizeof()
        if count and stated != wanted:
            raise self.broken(f"a {what} of {stated} bytes, expected {wanted}")
        end = offset + count * wanted
        if end > self.size:
            raise self.broken(f"{count} {what}s end at byte {end}, the file at {self.size}")
        return [self.record(layout, offset + i * wanted, what) for i in range(count)]


def _identify(stream: BinaryIO, *, size: int, name: str) -> _Image:
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415, TID251 (lazy; the door)

    start = stream.read(20)
    if start[:4] != b"\x7fELF":
        raise ElfError(f"{name}: not an ELF file: {_appearance(start)}")
    wanted = {1: 52, 2: 64}.get(start[4] if len(start) > 4 else 0, 64)
    if size < wanted:
        raise ElfError(f"{name}: broken ELF file: {size} bytes, the header alone has {wanted}")
    if start[6] != 1:
        raise ElfError(f"{name}: broken ELF file: version {start[6]}, expected 1")
    file = ELFFile(stream)
    return _Image(stream=stream, size=size, name=name, header=file.header, structs=file.structs)


def _appearance(start: bytes) -> str:
    if not start:
        return "is empty"
    line = start.split(b"\n")[0]
    if line and all(0x20 <= byte < 0x7F for byte in line):
        return f"starts with {line.decode('ascii')!r}"
    return f"starts with the bytes {start[:8].hex(' ')}"


def _gather(image: _Image) -> ElfFacts:
    header, kind = image.header, _file_type(image)
    sections, programs = _section_headers(image), _program_headers(image)
    hollow = _is_hollow(sections)
    if not hollow:
        _check_segments(image, programs)
    runs = kind in (FileType.EXEC, FileType.DYN) and not hollow
    interpreter = _interpreter(image, programs) if runs else None
    dynamic = _dynamic(image, programs) if runs else _Dynamic(image=image)
    pie = kind is FileType.DYN and _is_pie(dynamic, interpreter)
    endianness = Endianness.LITTLE if image.structs.little_endian else Endianness.BIG
    machine = _machine(header["e_machine"], image.bits, endianness)
    return ElfFacts(
        bits=image.bits,
        endianness=endianness,
        machine=machine,
        type=kind,
        linkage=_linkage(kind, dynamic, interpreter) if runs else Linkage.NONE,
        pie=pie,
        interpreter=interpreter,
        needed=dynamic.strings("DT_NEEDED"),
        soname=dynamic.string("DT_SONAME"),
        rpath=_directories(dynamic.string("DT_RPATH")),
        runpath=_directories(dynamic.string("DT_RUNPATH")),
        versions_needed=_versions_needed(dynamic),
        versions_defined=_versions_defined(dynamic),
        executable_stack=runs and _executable_stack(programs, machine),
        relro=_relro(programs, dynamic),
        build_id=_build_id(image, programs, sections, hollow=hollow),
        sizes=_core_sizes(programs) if kind is FileType.CORE else _sizes(kind, header, sections),
        segments=tuple(_segment(each) for each in programs if each["p_type"] == "PT_LOAD"),
    )


def _file_type(image: _Image) -> FileType:
    stated = str(image.header["e_type"]).removeprefix("ET_")
    if stated not in FileType.__members__:
        raise image.broken(f"type {stated}, expected one of {', '.join(FileType)}")
    return FileType[stated]


def _machine(stated: str | int, bits: int, endianness: Endianness) -> str:
    name = _MACHINES.get((stated, bits))
    if name is None:
        if isinstance(stated, str):
            return stated.removeprefix("EM_").lower()
        return f"machine-{stated}"
    if name == "aarch64" and endianness is Endianness.BIG:
        return "aarch64_be"
    if name in ("ppc", "ppc64") and endianness is Endianness.LITTLE:
        return f"{name}le"
    return name


# --- headers ----------------------------------------------------------------------------------


def _first_section(image: _Image) -> Any:
    """Section 0 is no section: it holds the counts that do not fit the file header."""
    return image.record(image.structs.Elf_Shdr, image.header["e_shoff"], "section header 0")


def _section_headers(image: _Image) -> list[Any]:
    header = image.header
    offset, count = header["e_shoff"], header["e_shnum"]
    if offset == 0:
        if count:
            raise image.broken(f"{count} section headers at no offset")
        return []
    if count == 0:
        count = _first_section(image)["sh_size"]
    stated = header["e_shentsize"]
    layout = image.structs.Elf_Shdr
    sections = image.table(layout, offset=offset, count=count, stated=stated, what="section header")
    if header["e_type"] != "ET_CORE":  # a core's only section carries the number of segments
        _check_names(image, sections)
        _check_sections(image, sections)
    return sections


def _names_index(header: Any, sections: Sequence[Any]) -> int:
    stated: int = header["e_shstrndx"]
    return sections[0]["sh_link"] if stated == _SHN_XINDEX and sections else stated


def _check_names(image: _Image, sections: Sequence[Any]) -> None:
    index = _names_index(image.header, sections)
    if index == 0:
        return
    if index >= len(sections):
        raise image.broken(f"section names in section {index}, there are {len(sections)}")
    names = sections[index]
    if names["sh_type"] != "SHT_STRTAB":
        raise image.broken(f"section names in section {index}, which is no string table")
    for number, section in enumerate(sections):
        if section["sh_name"] >= max(1, names["sh_size"]):
            raise image.broken(
                f"section {number}'s name at byte {section['sh_name']} of a table of"
                f" {names['sh_size']}"
            )
    end = names["sh_offset"] + names["sh_size"]
    if names["sh_size"] and image.bytes_at(end - 1, 1, "the section names") != b"\0":
        raise image.broken("the table of section names has no end")


def _check_sections(image: _Image, sections: Sequence[Any]) -> None:
    for number, section in enumerate(sections[1:], start=1):
        if section["sh_type"] in ("SHT_NULL", "SHT_NOBITS"):
            continue
        end = section["sh_offset"] + section["sh_size"]
        if end > image.size:
            raise image.broken(f"section {number} ends at byte {end}, the file at {image.size}")


def _program_headers(image: _Image) -> list[Any]:
    header = image.header
    count = header["e_phnum"]
    if count == _PN_XNUM and header["e_shoff"]:
        count = _first_section(image)["sh_info"] or count
    return image.table(
        image.structs.Elf_Phdr,
        offset=header["e_phoff"],
        count=count,
        stated=header["e_phentsize"],
        what="program header",
    )


def _is_hollow(sections: Sequence[Any]) -> bool:
    """Whether this is separate debug information: read-only memory, but no contents for it.

    Its program headers describe the stripped file (`eu-strip -f`), or are cut to what is left
    (`objcopy --only-keep-debug`); following them would find garbage.
    """
    return any(
        section["sh_type"] == "SHT_NOBITS"
        and section["sh_size"]
        and section["sh_flags"] & (_SHF_ALLOC | _SHF_WRITE) == _SHF_ALLOC
        for section in sections
    )


def _check_segments(image: _Image, programs: Sequence[Any]) -> None:
    for number, each in enumerate(programs):
        end = each["p_offset"] + each["p_filesz"]
        if each["p_type"] != "PT_NULL" and each["p_filesz"] and end > image.size:
            raise image.broken(f"segment {number} ends at byte {end}, the file at {image.size}")


def _segment(program: Any) -> Segment:
    flags = program["p_flags"]
    shown = (
        letter if flags & bit else "-" for bit, letter in ((_PF_R, "r"), (_PF_W, "w"), (_PF_X, "x"))
    )
    return Segment(
        flags="".join(shown),
        filesz=program["p_filesz"],
        memsz=program["p_memsz"],
        vaddr=program["p_vaddr"],
        align=program["p_align"],
    )


def _of_type(programs: Sequence[Any], wanted: str) -> Any | None:
    return next((each for each in programs if each["p_type"] == wanted), None)


def _interpreter(image: _Image, programs: Sequence[Any]) -> str | None:
    header = _of_type(programs, "PT_INTERP")
    if header is None:
        return None
    length = min(header["p_filesz"], _LONGEST_STRING)
    path, end, _ = image.bytes_at(header["p_offset"], length, "PT_INTERP").partition(b"\0")
    if not end or not path:
        raise image.broken("PT_INTERP holds no path that ends")
    return _text(image, path, "PT_INTERP")


def _text(image: _Image, raw: bytes, what: str) -> str:
    text = raw.decode(errors="replace")
    if "\ufffd" in text or not text.isprintable():  # would reach terminals and the manifest
        raise image.broken(f"{what} is not printable UTF-8: {raw[:40]!r}")
    return text


def _executable_stack(programs: Sequence[Any], machine: str) -> bool:
    header = _of_type(programs, "PT_GNU_STACK")
    if header is None:
        return machine not in _NO_STACK_HEADER_IS_SAFE
    return bool(header["p_flags"] & _PF_X)


# --- dynamic section ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dynamic:
    """PT_DYNAMIC's entries up to DT_NULL, and the way from addresses to file offsets."""

    image: _Image
    tags: tuple[tuple[str | int, int], ...] = ()
    loads: tuple[Any, ...] = ()

    def value(self, tag: str) -> int | None:
        return next((value for name, value in self.tags if name == tag), None)

    def flags(self, tag: str) -> int:
        return self.value(tag) or 0

    def table(self) -> _Strings:
        """The dynamic string table, which is the only one; finding it costs time, so do it once."""
        address, size = self.value("DT_STRTAB"), self.value("DT_STRSZ")
        if address is None or size is None:
            raise self.image.broken("PT_DYNAMIC names no string table")
        start = self.offset(address, "the string table")
        return _Strings(image=self.image, start=start, size=size)

    def offset(self, address: int, what: str) -> int:
        for load in self.loads:
            if load["p_vaddr"] <= address < load["p_vaddr"] + load["p_filesz"]:
                offset: int = address - load["p_vaddr"] + load["p_offset"]
                return offset
        raise self.image.broken(f"{what} at address {address:#x}, which no segment holds")

    def string(self, tag: str) -> str | None:
        return next(iter(self.strings(tag)), None)

    def strings(self, tag: str) -> tuple[str, ...]:
        indexes = [value for name, value in self.tags if name == tag]
        if not indexes:
            return ()
        table = self.table()
        return tuple(table.text(index, tag) for index in indexes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Strings:
    image: _Image
    start: int
    size: int

    def text(self, index: int, what: str) -> str:
        if index >= self.size:
            raise self.image.broken(f"{what} at byte {index} of a string table of {self.size}")
        # nearly all strings are short, and a library has hundreds: read little first
        for most in (128, _LONGEST_STRING):
            length = min(most, self.size - index)
            chunk = self.image.bytes_at(self.start + index, length, f"{what}'s string")
            raw, end, _ = chunk.partition(b"\0")
            if end:
                return _text(self.image, raw, what)
        raise self.image.broken(f"{what}'s string has no end")


def _dynamic(image: _Image, programs: Sequence[Any]) -> _Dynamic:
    loads = tuple(each for each in programs if each["p_type"] == "PT_LOAD")
    header = _of_type(programs, "PT_DYNAMIC")
    if header is None:
        return _Dynamic(image=image, loads=loads)
    layout = image.structs.Elf_Dyn
    step = layout.sizeof()
    tags: list[tuple[str | int, int]] = []
    for index in range(header["p_filesz"] // step):
        entry = image.record(layout, header["p_offset"] + index * step, "PT_DYNAMIC")
        if entry["d_tag"] == "DT_NULL":
            break
        if index >= _MOST_DYNAMIC_ENTRIES:
            raise image.broken(f"PT_DYNAMIC has more than {_MOST_DYNAMIC_ENTRIES} entries")
        tags.append((entry["d_tag"], entry["d_val"]))
    return _Dynamic(image=image, tags=tuple(tags), loads=loads)


def _directories(path: str | None) -> tuple[str, ...]:
    return tuple(path.split(":")) if path else ()


def _is_pie(dynamic: _Dynamic, interpreter: str | None) -> bool:
    # Linkers before 2016 set no DF_1_PIE; a program has an interpreter and no soname then, either.
    marked = bool(dynamic.flags("DT_FLAGS_1") & _DF_1_PIE)
    return marked or (interpreter is not None and dynamic.value("DT_SONAME") is None)


def _linkage(kind: FileType, dynamic: _Dynamic, interpreter: str | None) -> Linkage:
    needs = interpreter is not None or dynamic.value("DT_NEEDED") is not None
    if kind is FileType.EXEC:
        return Linkage.DYNAMIC if needs else Linkage.STATIC
    if dynamic.tags and not dynamic.flags("DT_FLAGS_1") & _DF_1_PIE and interpreter is None:
        return Linkage.SHARED
    return Linkage.DYNAMIC if needs else Linkage.STATIC_PIE


def _relro(programs: Sequence[Any], dynamic: _Dynamic) -> Relro:
    if _of_type(programs, "PT_GNU_RELRO") is None:
        return Relro.NONE
    now = (
        dynamic.value("DT_BIND_NOW") is not None
        or dynamic.flags("DT_FLAGS") & _DF_BIND_NOW
        or dynamic.flags("DT_FLAGS_1") & _DF_1_NOW
    )
    return Relro.FULL if now else Relro.PARTIAL


def _chain(
    dynamic: _Dynamic, layout: Any, *, offset: int, link: str, what: str
) -> Iterator[tuple[int, Any]]:
    """Records linked by their field *link*, each with its offset; ends at link 0, as for ld.so.

    Links are unsigned, so a chain only ever goes forward and ends at the end of the file.
    """
    while True:
        record = dynamic.image.record(layout, offset, what)
        yield offset, record
        if record[link] == 0:
            return
        offset += record[link]


def _count_versions(dynamic: _Dynamic, count: int) -> None:
    if count > _MOST_VERSIONS:
        raise dynamic.image.broken(f"more than {_MOST_VERSIONS} symbol versions")


def _versions_needed(dynamic: _Dynamic) -> Mapping[str, tuple[str, ...]]:
    address = dynamic.value("DT_VERNEED")
    found: dict[str, set[str]] = {}
    if address is None:
        return MappingProxyType({})
    structs, table, count = dynamic.image.structs, dynamic.table(), 0
    start = dynamic.offset(address, "DT_VERNEED")
    libraries = _chain(
        dynamic, structs.Elf_Verneed, offset=start, link="vn_next", what="DT_VERNEED"
    )
    for offset, library in libraries:
        versions = found.setdefault(table.text(library["vn_file"], "DT_VERNEED"), set())
        for _, version in _chain(
            dynamic,
            structs.Elf_Vernaux,
            offset=offset + library["vn_aux"],
            link="vna_next",
            what="DT_VERNEED",
        ):
            count += 1
            _count_versions(dynamic, count)
            if not version["vna_flags"] & _VER_FLG_WEAK:
                versions.add(table.text(version["vna_name"], "DT_VERNEED"))
    return MappingProxyType(
        {file: tuple(sorted(found[file], key=_natural)) for file in sorted(found) if found[file]}
    )


def _versions_defined(dynamic: _Dynamic) -> tuple[str, ...]:
    address = dynamic.value("DT_VERDEF")
    if address is None:
        return ()
    structs, table, found = dynamic.image.structs, dynamic.table(), set()
    start = dynamic.offset(address, "DT_VERDEF")
    definitions = _chain(
        dynamic, structs.Elf_Verdef, offset=start, link="vd_next", what="DT_VERDEF"
    )
    for count, (offset, definition) in enumerate(definitions):
        _count_versions(dynamic, count)
        # the first name is the version's own, the others those which it inherits from
        name = dynamic.image.record(structs.Elf_Verdaux, offset + definition["vd_aux"], "DT_VERDEF")
        if not definition["vd_flags"] & _VER_FLG_BASE:
            found.add(table.text(name["vda_name"], "DT_VERDEF"))
    return tuple(sorted(found, key=_natural))


def _natural(version: str) -> tuple[object, ...]:
    """Sorts GLIBC_2.4 before GLIBC_2.34."""
    parts = re.split(r"([0-9]+)", version)  # text, number, text, ...
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts))


# --- notes --------------------------------------------------------------------------------------


def _build_id(
    image: _Image, programs: Sequence[Any], sections: Sequence[Any], *, hollow: bool
) -> str | None:
    if image.header["e_type"] == "ET_CORE":
        return None  # its notes are about the process
    areas = [(s["sh_offset"], s["sh_size"]) for s in sections if s["sh_type"] == "SHT_NOTE"]
    if not hollow:
        areas += [(p["p_offset"], p["p_filesz"]) for p in programs if p["p_type"] == "PT_NOTE"]
    for kind, owner, description in islice(_notes(image, areas), _MOST_NOTES):
        if kind == _NT_GNU_BUILD_ID and owner == b"GNU\0" and description:
            return description.hex()
    return None


def _notes(image: _Image, areas: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes, bytes]]:
    """Type, owner and the first 64 bytes of each note; one that does not fit its area ends it.

    Parts are padded to 4 bytes, in 64-bit files, too: what is padded to 8 (.note.gnu.property) has
    parts whose lengths are the same either way.
    """
    layout = f"{'<' if image.structs.little_endian else '>'}3I"
    for start, length in areas:
        offset, end = start, start + length
        while offset + 12 <= end:
            namesz, descsz, kind = struct.unpack(layout, image.bytes_at(offset, 12, "a note"))
            description = offset + 12 + (namesz + 3) // 4 * 4
            if description + descsz > end:
                break
            owner = image.bytes_at(offset + 12, min(namesz, 64), "a note's owner")
            yield kind, owner, image.bytes_at(description, min(descsz, 64), "a note's description")
            offset = description + (descsz + 3) // 4 * 4


# --- sizes --------------------------------------------------------------------------------------


def _sizes(kind: FileType, header: Any, sections: Sequence[Any]) -> Sizes:
    """The sums of `size`: by BFD's flags of each section that BFD makes one of.

    Sources: berkeley_or_gnu_sum in binutils/size.c; bfd_section_from_shdr and
    _bfd_elf_make_section_from_shdr in bfd/elf.c (2.40 and 2.44).
    """
    names = _names_index(header, sections)
    if names == 0:
        return Sizes(text=0, data=0, bss=0)  # BFD makes no sections without their names
    symbols = next((i for i, s in enumerate(sections) if s["sh_type"] == "SHT_SYMTAB"), 0)
    strings = sections[symbols]["sh_link"] if symbols else 0
    text = data = bss = 0
    for number, section in enumerate(sections):
        if number in (names, strings) or not _is_bfd_section(section, kind, symbols):
            continue
        flags, size = section["sh_flags"], section["sh_size"]
        if flags & _SHF_EXECINSTR or not flags & _SHF_WRITE:
            text += size
        elif section["sh_type"] == "SHT_NOBITS":
            bss += size
        else:
            data += size
    return Sizes(text=text, data=data, bss=bss)


def _is_bfd_section(section: Any, kind: FileType, symbols: int) -> bool:
    """Whether BFD allocates memory for *section*; *symbols* is the index of the symbol table."""
    if not section["sh_flags"] & _SHF_ALLOC:
        return False
    match section["sh_type"]:
        case "SHT_NULL" | "SHT_SHLIB" | "SHT_SYMTAB_SHNDX":
            return False
        case "SHT_SYMTAB":
            return kind is FileType.DYN
        case "SHT_REL" | "SHT_RELA" if kind is FileType.REL:
            # an object's relocations belong to the section they are for
            return symbols == 0 or section["sh_link"] != symbols or section["sh_info"] == 0
        case _:
            return True


def _core_sizes(programs: Sequence[Any]) -> Sizes:
    """As `_sizes`, of the sections that _bfd_elf_make_section_from_phdr makes of each segment."""
    text = data = bss = 0
    for each in (program for program in programs if program["p_type"] == "PT_LOAD"):
        kept, blank = each["p_filesz"], max(0, each["p_memsz"] - each["p_filesz"])
        if each["p_flags"] & _PF_X or not each["p_flags"] & _PF_W:
            text += kept + blank
        else:
            data, bss = data + kept, bss + blank
    return Sizes(text=text, data=data, bss=bss)
