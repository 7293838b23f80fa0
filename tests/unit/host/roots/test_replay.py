"""A root that is replayed is the image's, entry by entry."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from pipeline.host.roots.replay import Writer, compile_entries
from pipeline.image.rootfs import Directory, File, Rootfs
from tests.support.host_image import ENTRIES
from tests.support.host_tree import expected, seen
from tests.support.images import rootfses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.image.rootfs import Entry

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def replayed(
    root: Path, entries: Sequence[Entry], base: int, personal: dict[str, bytes]
) -> str | None:
    """Write *entries* into *root* in a process of its own; what went wrong there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            writer = Writer(compile_entries(entries, tuple(personal)))
            root.mkdir(mode=0o755)
            if os.geteuid() == 0:
                os.chown(root, base, base)
            os.chdir(root)
            writer.write(tuple(personal.values()), base)
        except BaseException as error:  # noqa: BLE001 (there is nobody above, only the other process)
            os.write(writing, repr(error).encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 (a descriptor has no path)
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told or None


@ROOT
@settings(max_examples=60, deadline=None)
@given(rootfses())
def test_every_root_there_can_be_is_written(rootfs: Rootfs) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        told = replayed(root, rootfs.entries, 589824, {})
        assert (told, seen(root)) == (None, expected(rootfs, 589824))


def test_without_a_range_owners_are_the_images(tmp_path: Path) -> None:
    replayed(tmp_path / "root", ENTRIES, 0, {})
    assert seen(tmp_path / "root") == expected(ENTRIES, 0)


def test_personal_files_are_filled_in(tmp_path: Path) -> None:
    replayed(tmp_path / "root", ENTRIES, 0, {"etc/hostname": b"nifty7\n", "etc/motd": b""})
    assert (tmp_path / "root/etc/hostname").read_bytes() == b"nifty7\n"
    assert (tmp_path / "root/etc/motd").read_bytes() == b""


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    entries = (File(path="a", content=b"new"),)
    replayed(tmp_path / "root", entries, 0, {})
    (tmp_path / "root/a").write_text("old")
    told = replayed(tmp_path / "root", entries, 0, {})
    assert told is not None
    assert (tmp_path / "root/a").read_text() == "old"


@ROOT
def test_what_lies_below_a_closed_directory_is_written(tmp_path: Path) -> None:
    entries = Rootfs.of(
        [
            Directory(path="closed", mode=0o500),
            Directory(path="closed/open", mode=0o700),
            File(path="closed/open/file", content=b"x"),
        ]
    ).entries
    assert replayed(tmp_path / "root", entries, 589824, {}) is None
    assert seen(tmp_path / "root") == expected(entries, 589824)
