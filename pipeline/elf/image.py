"""An ELF file's bytes, read through pyelftools with every bound checked first."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.elf.facts import ElfError

if TYPE_CHECKING:
    from elftools.elf.structs import ELFStructs


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
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
        from elftools.common.utils import struct_parse  # noqa: PLC0415 (lazy; the door)

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


def library_errors() -> tuple[type[Exception], ...]:
    """What pyelftools may raise for a file that is not what it expects."""
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 (lazy; the door)

    return (
        *(ELFError, struct.error, OSError, ArithmeticError),
        *(AssertionError, LookupError, TypeError, ValueError),
    )


def identify(stream: BinaryIO, *, size: int, name: str) -> Image:
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 (lazy; the door)

    start = stream.read(20)
    if start[:4] != b"\x7fELF":
        raise ElfError(f"{name}: not an ELF file: {_appearance(start)}")
    wanted = {1: 52, 2: 64}.get(start[4] if len(start) > 4 else 0, 64)
    if size < wanted:
        raise ElfError(f"{name}: broken ELF file: {size} bytes, the header alone has {wanted}")
    if start[6] != 1:
        raise ElfError(f"{name}: broken ELF file: version {start[6]}, expected 1")
    file = ELFFile(stream)
    return Image(stream=stream, size=size, name=name, header=file.header, structs=file.structs)


def _appearance(start: bytes) -> str:
    if not start:
        return "is empty"
    line = start.split(b"\n")[0]
    if line and all(0x20 <= byte < 0x7F for byte in line):
        return f"starts with {line.decode('ascii')!r}"
    return f"starts with the bytes {start[:8].hex(' ')}"
