"""Section and program headers, and what they alone tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.elf.facts import Endianness, FileType, Segment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.elf.image import Image

_SHF_WRITE, _SHF_ALLOC = 0x1, 0x2
_PF_X, _PF_W, _PF_R = 0x1, 0x2, 0x4
_LONGEST_STRING = 16384  # no honest file comes near
_PN_XNUM, _SHN_XINDEX = 0xFFFF, 0xFFFF

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


def type_of(image: Image) -> FileType:
    stated = str(image.header["e_type"]).removeprefix("ET_")
    if stated not in FileType.__members__:
        raise image.broken(f"type {stated}, expected one of {', '.join(FileType)}")
    return FileType[stated]


def machine_of(stated: str | int, bits: int, endianness: Endianness) -> str:
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


def _first_section(image: Image) -> Any:
    """Section 0 is no section: it holds the counts that do not fit the file header."""
    return image.record(image.structs.Elf_Shdr, image.header["e_shoff"], "section header 0")


def section_headers(image: Image) -> list[Any]:
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


def names_index(header: Any, sections: Sequence[Any]) -> int:
    stated: int = header["e_shstrndx"]
    return sections[0]["sh_link"] if stated == _SHN_XINDEX and sections else stated


def _check_names(image: Image, sections: Sequence[Any]) -> None:
    index = names_index(image.header, sections)
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


def _check_sections(image: Image, sections: Sequence[Any]) -> None:
    for number, section in enumerate(sections[1:], start=1):
        if section["sh_type"] in ("SHT_NULL", "SHT_NOBITS"):
            continue
        end = section["sh_offset"] + section["sh_size"]
        if end > image.size:
            raise image.broken(f"section {number} ends at byte {end}, the file at {image.size}")


def program_headers(image: Image) -> list[Any]:
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


def is_hollow(sections: Sequence[Any]) -> bool:
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


def check_segments(image: Image, programs: Sequence[Any]) -> None:
    for number, each in enumerate(programs):
        end = each["p_offset"] + each["p_filesz"]
        if each["p_type"] != "PT_NULL" and each["p_filesz"] and end > image.size:
            raise image.broken(f"segment {number} ends at byte {end}, the file at {image.size}")


def as_segment(program: Any) -> Segment:
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


def of_type(programs: Sequence[Any], wanted: str) -> Any | None:
    return next((each for each in programs if each["p_type"] == wanted), None)


def read_interpreter(image: Image, programs: Sequence[Any]) -> str | None:
    header = of_type(programs, "PT_INTERP")
    if header is None:
        return None
    length = min(header["p_filesz"], _LONGEST_STRING)
    path, end, _ = image.bytes_at(header["p_offset"], length, "PT_INTERP").partition(b"\0")
    if not end or not path:
        raise image.broken("PT_INTERP holds no path that ends")
    return printable(image, path, "PT_INTERP")


def printable(image: Image, raw: bytes, what: str) -> str:
    text = raw.decode(errors="replace")
    if "\ufffd" in text or not text.isprintable():  # would reach terminals and the manifest
        raise image.broken(f"{what} is not printable UTF-8: {raw[:40]!r}")
    return text


def has_executable_stack(programs: Sequence[Any], machine: str) -> bool:
    header = of_type(programs, "PT_GNU_STACK")
    if header is None:
        return machine not in _NO_STACK_HEADER_IS_SAFE
    return bool(header["p_flags"] & _PF_X)
