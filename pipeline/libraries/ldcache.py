"""ld.so.cache: which path ldconfig(8) wrote down for a soname.

The layout is glibc's sysdeps/generic/dl-cache.h, the choice among entries search_cache in its
elf/dl-cache.c. Entries of the older hwcap mechanism, which glibc 2.37 dropped, are passed over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline.elf import Endianness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.libraries.abi import Abi
    from pipeline.libraries.root import LibraryRoot

PATH = "/etc/ld.so.cache"

_OLD_MAGIC, _NEW_MAGIC = b"ld.so-1.7.0", b"glibc-ld.so.cache1.1"
_OLD_HEADER, _OLD_ENTRY, _NEW_HEADER, _NEW_ENTRY = 16, 12, 48, 24
_EXTENSION_MAGIC, _HWCAPS_SECTION = 0xEAA42174, 1
_IS_EXTENSION, _ISA_LEVELS = 1 << 30, 0x3FF  # of the upper half of an entry's hwcap field
_ELF = 1  # the flags of an entry from before there were flags

# (machine, bits) -> _DL_CACHE_DEFAULT_ID; where a machine has several ABIs, all of them: a file of
# the wrong one is passed over when it is opened.
_FLAGS: Mapping[tuple[str, int], tuple[int, ...]] = {
    ("x86_64", 64): (0x303,),
    ("x86_64", 32): (0x803,),
    ("i686", 32): (0x003,),
    ("aarch64", 64): (0xA03,),
    ("arm", 32): (0x903, 0xB03),
    ("ppc64le", 64): (0x503,),
    ("ppc64", 64): (0x503,),
    ("s390x", 64): (0x403,),
    ("riscv64", 64): (0x1003, 0xF03),
    ("loongarch64", 64): (0x1203, 0x1103),
}


class _BrokenError(Exception):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of `ldconfig -p`: *hwcap* is the glibc-hwcaps subdirectory it is in, or None."""

    path: str
    flags: int
    hwcap: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """What a cache holds, by soname, in its own order."""

    entries: Mapping[str, tuple[Entry, ...]] = field(hash=False)

    def lookup(self, name: str, abi: Abi, hwcaps: Sequence[str]) -> str | None:
        """The path for *name*: the best of *hwcaps*, or else the first plain entry."""
        allowed = _FLAGS.get((abi.machine, abi.bits))
        usable = [
            entry
            for entry in self.entries.get(name, ())
            if allowed is None or entry.flags == _ELF or entry.flags in allowed
        ]
        best = [entry for entry in usable if entry.hwcap in hwcaps]
        if best:
            return min(best, key=lambda entry: hwcaps.index(str(entry.hwcap))).path
        return next((entry.path for entry in usable if entry.hwcap is None), None)


def load(root: LibraryRoot, endianness: Endianness) -> Cache | None:
    """The cache of a root; None if there is none, or one that ld.so would not use either."""
    content = root.content(PATH)
    return None if content is None else parse(content, endianness)


def parse(content: bytes, endianness: Endianness) -> Cache | None:
    """A cache file in the format of glibc 2.2 and later, alone or behind the older one."""
    order = "<" if endianness is Endianness.LITTLE else ">"
    start = 0
    try:
        if content.startswith(_OLD_MAGIC):
            (count,) = _unpack(f"{order}I", content, 12)
            start = (_OLD_HEADER + count * _OLD_ENTRY + 7) // 8 * 8  # ALIGN_CACHE
        if not content.startswith(_NEW_MAGIC, start):
            return None
        written = content[start + 28 : start + 29]
        if written not in (b"\0", b"\2" if endianness is Endianness.LITTLE else b"\3"):
            return None
        return _parse_new(content, start, order)
    except _BrokenError:
        return None


def _unpack(layout: str, content: bytes, offset: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, content, offset)
    except struct.error as error:
        raise _BrokenError from error


def _text(content: bytes, offset: int) -> str:
    end = content.find(b"\0", offset)
    if end < 0:
        raise _BrokenError
    return content[offset:end].decode(errors="replace")


def _parse_new(content: bytes, start: int, order: str) -> Cache:
    (count,) = _unpack(f"{order}I", content, start + 20)
    if start + _NEW_HEADER + count * _NEW_ENTRY > len(content):
        raise _BrokenError
    names = _hwcaps(content, start, order)
    found: dict[str, list[Entry]] = {}
    for index in range(count):
        at = start + _NEW_HEADER + index * _NEW_ENTRY
        flags, key, value, _, hwcap = _unpack(f"{order}iIIIQ", content, at)
        high, low = divmod(hwcap, 1 << 32)
        is_extension = high & ~_ISA_LEVELS == _IS_EXTENSION
        if hwcap and not (is_extension and low < len(names)):
            continue
        entry = Entry(
            path=_text(content, start + value),
            flags=flags,
            hwcap=names[low] if is_extension else None,
        )
        found.setdefault(_text(content, start + key), []).append(entry)
    return Cache(entries=MappingProxyType({name: tuple(found[name]) for name in found}))


def _hwcaps(content: bytes, start: int, order: str) -> tuple[str, ...]:
    """The names of the glibc-hwcaps subdirectories, which entries refer to by number."""
    (directory,) = _unpack(f"{order}I", content, start + 32)
    if directory == 0:
        return ()
    magic, count = _unpack(f"{order}II", content, directory)
    if magic != _EXTENSION_MAGIC or directory + 8 + count * 16 > len(content):
        return ()
    for index in range(count):
        tag, _, offset, size = _unpack(f"{order}IIII", content, directory + 8 + index * 16)
        if tag == _HWCAPS_SECTION and offset + size <= len(content):
            places = _unpack(f"{order}{size // 4}I", content, offset)
            return tuple(_text(content, place) for place in places)
    return ()
