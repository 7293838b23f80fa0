"""What binutils' `size` prints, and the build id."""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline.elf.facts import FileType, Sizes
from pipeline.elf.headers import names_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.elf.image import Image

_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 0x1, 0x2, 0x4
_PF_X, _PF_W = 0x1, 0x2
_NT_GNU_BUILD_ID = 3
_MOST_NOTES = 4096  # no honest file comes near


def read_build_id(
    image: Image, programs: Sequence[Any], sections: Sequence[Any], *, hollow: bool
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


def _notes(image: Image, areas: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes, bytes]]:
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


def section_sizes(kind: FileType, header: Any, sections: Sequence[Any]) -> Sizes:
    """The sums of `size`: by BFD's flags of each section that BFD makes one of.

    Sources: berkeley_or_gnu_sum in binutils/size.c; bfd_section_from_shdr and
    _bfd_elf_make_section_from_shdr in bfd/elf.c (2.40 and 2.44).
    """
    names = names_index(header, sections)
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


def core_sizes(programs: Sequence[Any]) -> Sizes:
    """As `section_sizes`, of what _bfd_elf_make_section_from_phdr makes of each segment."""
    text = data = bss = 0
    for each in (program for program in programs if program["p_type"] == "PT_LOAD"):
        kept, blank = each["p_filesz"], max(0, each["p_memsz"] - each["p_filesz"])
        if each["p_flags"] & _PF_X or not each["p_flags"] & _PF_W:
            text += kept + blank
        else:
            data, bss = data + kept, bss + blank
    return Sizes(text=text, data=data, bss=bss)
