"""The dynamic section as ld.so reads it: through PT_DYNAMIC, without section headers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.elf.facts import FileType, Linkage, Relro
from pipeline.elf.headers import of_type, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.elf.image import Image

_DF_BIND_NOW, _DF_1_NOW, _DF_1_NODEFLIB, _DF_1_PIE = 0x8, 0x1, 0x800, 0x08000000
_VER_FLG_BASE, _VER_FLG_WEAK = 0x1, 0x2
# What no honest file comes near; a lying one must not cost more than this.
_MOST_DYNAMIC_ENTRIES = 4096
_MOST_VERSIONS = 8192
_LONGEST_STRING = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamic:
    """PT_DYNAMIC's entries up to DT_NULL, and the way from addresses to file offsets."""

    image: Image
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
    image: Image
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
                return printable(self.image, raw, what)
        raise self.image.broken(f"{what}'s string has no end")


def read_dynamic(image: Image, programs: Sequence[Any]) -> Dynamic:
    loads = tuple(each for each in programs if each["p_type"] == "PT_LOAD")
    header = of_type(programs, "PT_DYNAMIC")
    if header is None:
        return Dynamic(image=image, loads=loads)
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
    return Dynamic(image=image, tags=tuple(tags), loads=loads)


def split_path(path: str | None) -> tuple[str, ...]:
    return () if path is None else tuple(path.split(":"))


def has_no_default_directories(dynamic: Dynamic) -> bool:
    return bool(dynamic.flags("DT_FLAGS_1") & _DF_1_NODEFLIB)


def is_marked_pie(dynamic: Dynamic) -> bool:
    return bool(dynamic.flags("DT_FLAGS_1") & _DF_1_PIE)


def is_pie(dynamic: Dynamic, interpreter: str | None) -> bool:
    # Linkers before 2016 set no DF_1_PIE; a program has an interpreter and no soname then, either.
    return is_marked_pie(dynamic) or (
        interpreter is not None and dynamic.value("DT_SONAME") is None
    )


def linkage_of(kind: FileType, dynamic: Dynamic, interpreter: str | None) -> Linkage:
    needs = interpreter is not None or dynamic.value("DT_NEEDED") is not None
    if kind is FileType.EXEC:
        return Linkage.DYNAMIC if needs else Linkage.STATIC
    if dynamic.tags and not is_marked_pie(dynamic) and interpreter is None:
        return Linkage.SHARED
    return Linkage.DYNAMIC if needs else Linkage.STATIC_PIE


def relro_of(programs: Sequence[Any], dynamic: Dynamic) -> Relro:
    if of_type(programs, "PT_GNU_RELRO") is None:
        return Relro.NONE
    now = (
        dynamic.value("DT_BIND_NOW") is not None
        or dynamic.flags("DT_FLAGS") & _DF_BIND_NOW
        or dynamic.flags("DT_FLAGS_1") & _DF_1_NOW
    )
    return Relro.FULL if now else Relro.PARTIAL


def _chain(
    dynamic: Dynamic, layout: Any, *, offset: int, link: str, what: str
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


def _count_versions(dynamic: Dynamic, count: int) -> None:
    if count > _MOST_VERSIONS:
        raise dynamic.image.broken(f"more than {_MOST_VERSIONS} symbol versions")


def read_versions_needed(dynamic: Dynamic) -> Mapping[str, tuple[str, ...]]:
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


def read_versions_defined(dynamic: Dynamic) -> tuple[str, ...]:
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
