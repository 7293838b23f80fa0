"""Applet names read from a binary that is never run."""

from __future__ import annotations

import struct

import pytest

from pipeline.builder.components import applets
from pipeline.elf import ElfError


def busybox(names: list[str], *, before: bytes, order: str = "<") -> bytes:
    """The relevant bytes of a BusyBox, as applets/applet_tables.c lays them out."""
    parts = 8 if len(names) >= 128 else 4
    starts = [sum(len(name) + 1 for name in names[:count]) for count in range(len(names))]
    known = [starts[part * len(names) // parts] for part in range(1, parts)]
    table = struct.pack(f"{order}{len(known)}H", *known) if len(names) >= 32 else b""
    block = "".join(f"{name}\0" for name in names).encode() + b"\0"
    return b"\x7fELF...BusyBox v1.38.0\0%s\0" + table + before + block + b"aa\0bb\0cc\0"


MANY = sorted(["[", "[[", "add-shell", "ls", "mkfs.vfat", "sh", *(f"tool{i}" for i in range(150))])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("before", [b"\0", b"", b"A", b"\0A\0B\0", b"\xff\t"])
@pytest.mark.parametrize("count", [40, len(MANY)])
def test_applets_whatever_lies_before_them(before: bytes, order: str, count: int) -> None:
    names = [*MANY[:count], "zcat"]
    names[2] = "ash"
    assert applets.find(busybox(names, before=before, order=order)) == tuple(names)


def test_applets_of_a_small_busybox() -> None:
    assert applets.find(busybox(["cat", "init", "sh"], before=b"\0")) == ("cat", "init", "sh")


def test_no_applets_in_another_program() -> None:
    with pytest.raises(ElfError, match="no table of BusyBox applets"):
        applets.find(b"\x7fELF" + bytes(4096))
