"""What `doit inspect` tells: an image's binaries, and the memory that N systems need for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import elf
from pipeline.image import inittab
from pipeline.image.rootfs import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.elf import ElfFacts
    from pipeline.image.rootfs import Rootfs

_PAGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """An ELF file of an image; *processes* is how many of it an idle system runs."""

    path: str
    size: int
    facts: ElfFacts
    processes: int

    @property
    def shareable(self) -> int:
        """Bytes of pages that all processes on one inode share: those never written."""
        return sum(_pages(s.memsz) for s in self.facts.segments if "w" not in s.flags)

    @property
    def private(self) -> int:
        """Bytes of writable pages, of which each process has its own once it writes to them."""
        return sum(_pages(s.memsz) for s in self.facts.segments if "w" in s.flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes that *count* idle systems need for their programs; stacks and heaps come on top."""

    count: int
    shared: int
    copies: int


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def binaries(rootfs: Rootfs) -> tuple[Binary, ...]:
    """Every ELF file of an image, in the order of its entries."""
    running = [entry.path for entry in _running(rootfs)]
    return tuple(
        Binary(
            path=entry.path,
            size=len(entry.content),
            facts=elf.parse(entry.content, entry.path),
            processes=running.count(entry.path),
        )
        for entry in rootfs
        if isinstance(entry, File) and entry.content.startswith(b"\x7fELF")
    )


def _running(rootfs: Rootfs) -> Iterator[File]:
    """The files that an idle system executes: init, and what its table keeps running."""
    table = rootfs.resolve(inittab.PATH)
    text = table.content.decode(errors="replace") if isinstance(table, File) else ""
    kept = [
        words[0].removeprefix("-")  # a dash asks for a login shell
        for action, words in inittab.processes(text)
        if action in ("respawn", "askfirst")
    ]
    for program in ("sbin/init", *kept):
        entry = rootfs.resolve(program)
        if isinstance(entry, File):
            yield entry


def memory(found: tuple[Binary, ...], *, count: int) -> Memory:
    """What *count* systems need with one shared copy of each binary, and with a copy each.

    A page of a file is in memory once for an inode, however many processes map it.
    """
    used = [binary for binary in found if binary.processes]
    text = sum(binary.shareable for binary in used)
    private = sum(binary.private * binary.processes for binary in used)
    return Memory(count=count, shared=text + count * private, copies=count * (text + private))
