"""What an ELF file says about itself, as frozen facts; the only user of pyelftools.

Everything is read the way the kernel and ld.so read it, through program headers and PT_DYNAMIC, so
a file without section headers tells as much. Sections serve for `Sizes` and the build id only.
Every count and offset is checked against the file before it is followed: a hostile or broken file
costs one `ElfError`, not a traceback, memory or time.
"""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from pipeline.elf.dynamic import (
    Dynamic,
    has_no_default_directories,
    is_marked_pie,
    is_pie,
    linkage_of,
    read_dynamic,
    read_versions_defined,
    read_versions_needed,
    relro_of,
    split_path,
)
from pipeline.elf.facts import (
    ElfError,
    ElfFacts,
    Endianness,
    FileType,
    Linkage,
    Relro,
    Segment,
    Sizes,
    as_json,
)
from pipeline.elf.headers import (
    as_segment,
    check_segments,
    has_executable_stack,
    is_hollow,
    machine_of,
    program_headers,
    read_interpreter,
    section_headers,
    type_of,
)
from pipeline.elf.image import Image, identify, library_errors
from pipeline.elf.sizes import core_sizes, read_build_id, section_sizes

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ElfError",
    "ElfFacts",
    "Endianness",
    "FileType",
    "Linkage",
    "Relro",
    "Segment",
    "Sizes",
    "as_json",
    "parse",
    "read",
]


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
    try:
        return _gather(identify(stream, size=size, name=name))
    except library_errors() as error:
        # Bounds are checked before the library reads, so this is a file that changes meanwhile,
        # or a value which the library did not expect.
        raise ElfError(f"{name}: broken ELF file: {type(error).__name__}: {error}") from error


def _gather(image: Image) -> ElfFacts:
    header, kind = image.header, type_of(image)
    sections, programs = section_headers(image), program_headers(image)
    hollow = is_hollow(sections)
    if not hollow:
        check_segments(image, programs)
    runs = kind in (FileType.EXEC, FileType.DYN) and not hollow
    interpreter = read_interpreter(image, programs) if runs else None
    dynamic = read_dynamic(image, programs) if runs else Dynamic(image=image)
    pie = kind is FileType.DYN and is_pie(dynamic, interpreter)
    endianness = Endianness.LITTLE if image.structs.little_endian else Endianness.BIG
    machine = machine_of(header["e_machine"], image.bits, endianness)
    return ElfFacts(
        bits=image.bits,
        endianness=endianness,
        machine=machine,
        type=kind,
        linkage=linkage_of(kind, dynamic, interpreter) if runs else Linkage.NONE,
        pie=pie,
        interpreter=interpreter,
        needed=dynamic.strings("DT_NEEDED"),
        soname=dynamic.string("DT_SONAME"),
        rpath=split_path(dynamic.string("DT_RPATH")),
        runpath=split_path(dynamic.string("DT_RUNPATH")),
        versions_needed=read_versions_needed(dynamic),
        versions_defined=read_versions_defined(dynamic),
        has_versions=dynamic.value("DT_VERDEF") is not None,
        no_default_directories=has_no_default_directories(dynamic),
        executable_stack=runs and has_executable_stack(programs, machine),
        relro=relro_of(programs, dynamic),
        build_id=read_build_id(image, programs, sections, hollow=hollow),
        sizes=core_sizes(programs)
        if kind is FileType.CORE
        else section_sizes(kind, header, sections),
        segments=tuple(as_segment(each) for each in programs if each["p_type"] == "PT_LOAD"),
        marked_pie=is_marked_pie(dynamic),
    )
