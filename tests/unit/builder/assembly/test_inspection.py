"""What `doit inspect` tells of an image: its binaries, who runs them, the memory they need."""

from __future__ import annotations

import struct

import pytest

from pipeline.builder.assembly import inspection
from pipeline.elf import ElfError
from pipeline.image.rootfs import Directory, File, Rootfs, Symlink

READ, WRITE = 5, 6


def elf(*segments: tuple[int, int]) -> bytes:
    """An ELF file with loadable segments of these (flags, bytes in memory)."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0x400000, 64, 0, 0, 64, 56, len(segments), 0, 0, 0
    )
    for number, (flags, memory) in enumerate(segments):
        address = 0x400000 + number * 0x1000000
        head += struct.pack("<IIQQQQQQ", 1, flags, 0, address, address, 64, memory, 4096)
    return head


BOX = elf((READ, 10000), (WRITE, 100))  # three pages shared, one private
BEAR = elf((READ, 4096), (WRITE, 4097))  # one and two


def image(inittab: str) -> Rootfs:
    return Rootfs.of(
        [
            Directory(path="cbin"),
            File(path="cbin/box", content=BOX),
            File(path="cbin/bear", content=BEAR),
            File(path="cbin/unused", content=elf((READ, 1))),
            File(path="cbin/script", content=b"#!/bin/sh\n"),
            Symlink(path="cbin/init", target="box"),
            Symlink(path="cbin/syslogd", target="box"),
            Symlink(path="sbin", target="cbin"),
            Directory(path="etc"),
            File(path="etc/inittab", content=inittab.encode()),
        ]
    )


INITTAB = """\
# comment:with:respawn:/sbin/bear
#::respawn:/sbin/bear
::respawn:/sbin/bear -F # ::
::respawn:/sbin/syslogd -n
::askfirst:-/cbin/box sh
::sysinit:/sbin/bear
::respawn:
::respawn:/sbin/absent
::respawn:/sbin/script
"""


def processes(inittab: str) -> dict[str, int]:
    return {item.path: item.processes for item in inspection.binaries(image(inittab))}


def test_every_elf_file_is_told_once() -> None:
    assert list(processes(INITTAB)) == ["cbin/bear", "cbin/box", "cbin/unused"]


def test_processes_of_an_idle_system() -> None:
    assert processes(INITTAB) == {"cbin/bear": 1, "cbin/box": 3, "cbin/unused": 0}


@pytest.mark.parametrize("inittab", ["", "::\n", "::respawn:", "\n:::\n"])
def test_init_alone(inittab: str) -> None:
    assert processes(inittab) == {"cbin/bear": 0, "cbin/box": 1, "cbin/unused": 0}


def test_an_image_without_inittab() -> None:
    rootfs = Rootfs.of([File(path="x", content=BOX)])
    assert [item.processes for item in inspection.binaries(rootfs)] == [0]


def test_pages_are_whole() -> None:
    bear, box, _unused = inspection.binaries(image(INITTAB))
    assert (box.shareable, box.private) == (3 * 4096, 4096)
    assert (bear.shareable, bear.private) == (4096, 2 * 4096)


def test_the_memory_of_many_systems() -> None:
    found = inspection.memory(inspection.binaries(image(INITTAB)), count=1000)
    private = (3 * 1 + 1 * 2) * 4096
    assert found.shared == 4 * 4096 + 1000 * private
    assert found.copies == 1000 * (4 * 4096 + private)


def test_one_system_needs_the_same_either_way() -> None:
    found = inspection.memory(inspection.binaries(image(INITTAB)), count=1)
    assert found.shared == found.copies


def test_a_binary_that_lies_is_one_error() -> None:
    with pytest.raises(ElfError, match="cbin/broken"):
        inspection.binaries(
            Rootfs.of([Directory(path="cbin"), File(path="cbin/broken", content=b"\x7fELF")])
        )
