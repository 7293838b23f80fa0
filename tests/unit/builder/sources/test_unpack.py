"""Unpacking of sources: inside its folder, the same everywhere, or not at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from typing import TYPE_CHECKING

import pytest

from pipeline.builder.sources import unpack as unpacking
from pipeline.builder.sources.unpack import SourceError
from pipeline.image.archive import ArchiveError
from tests.support.images import file, header, padded, tarball

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOP = header(b"top-1/", flag=b"5")
GOOD = (
    TOP
    + header(b"top-1/configure", size=3, mode=b"0000775\0")
    + padded(b"#!\n")
    + header(b"top-1/data", size=1, mode=b"0000666\0")
    + padded(b"x")
    + header(b"top-1/d/", flag=b"5", mode=b"0000700\0")
    + header(b"top-1/d/up", flag=b"2", link=b"../data")
)


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[[bytes], Path]:
    into = tmp_path / "into"
    into.mkdir()

    def run(packed: bytes) -> Path:
        (tmp_path / "source.tar.bz2").write_bytes(packed)
        return unpacking.unpack(tmp_path / "source.tar.bz2", into, epoch=86400)

    return run


@pytest.fixture(params=[0o022, 0o077, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress, lzma.compress, bytes])
def test_the_top_folder_is_returned(
    unpack: Callable[[bytes], Path], pack: Callable[[bytes], bytes]
) -> None:
    top = unpack(pack(tarball(GOOD)))
    assert top.name == "top-1"
    assert (top / "d/up").read_bytes() == b"x"


@pytest.mark.usefixtures("umask")
def test_modes_are_the_same_for_every_umask(unpack: Callable[[bytes], Path]) -> None:
    top = unpack(tarball(GOOD))
    found = {name: oct((top / name).stat().st_mode) for name in (".", "configure", "data", "d")}
    assert found == {".": "0o40755", "configure": "0o100755", "data": "0o100644", "d": "0o40755"}


def test_every_time_is_the_recipe_s(unpack: Callable[[bytes], Path]) -> None:
    top = unpack(tarball(GOOD))
    assert {path.lstat().st_mtime for path in (top, *top.rglob("*"))} == {86400}


@pytest.mark.parametrize(
    ("tar", "why"),
    [
        (tarball(TOP, header(b"top-1/x", flag=b"2", link=b"/etc/passwd")), "links to /etc/passwd"),
        (tarball(TOP, header(b"other/", flag=b"5")), "expected a single top folder, found other"),
        (tarball(TOP, file(b"file")), "expected a single top folder"),
        (tarball(file(b"file")), "expected a single top folder, found file"),
        (tarball(header(b"top", flag=b"2", link=b"x")), "expected a single top folder"),
        (tarball(header(b"./", flag=b"5")), "found nothing"),
    ],
)
def test_a_source_that_is_none(
    unpack: Callable[[bytes], Path], tmp_path: Path, tar: bytes, why: str
) -> None:
    with pytest.raises(SourceError, match=why):
        unpack(gzip.compress(tar))
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize(
    "part",
    [
        file(b"/etc/x"),
        file(b"../x"),
        file(b"top-1/../../x"),
        header(b"top-1/x", flag=b"2", link=b"../../x"),
        header(b"top-1/x", flag=b"1", link=b"top-1/data"),
        header(b"top-1/x", flag=b"3"),
        header(b"top-1/x", flag=b"2", link=b"d") + file(b"top-1/x/y"),
    ],
)
def test_a_hostile_member_leaves_nothing_behind(
    unpack: Callable[[bytes], Path], tmp_path: Path, part: bytes
) -> None:
    with pytest.raises(ArchiveError, match=r"source\.tar\.bz2: "):
        unpack(gzip.compress(tarball(GOOD, part)))
    assert list((tmp_path / "into").iterdir()) == []


# --- Debian binary packages ----------------------------------------------------------------------


def member(name: bytes, body: bytes, *, size: bytes | None = None) -> bytes:
    head = name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8)
    return head + (size or b"%d" % len(body)).ljust(10) + b"`\n" + body + b"\n" * (len(body) % 2)


ROOT = header(b"./", flag=b"5")
USR = header(b"./usr/", flag=b"5") + header(b"./usr/bin/", flag=b"5")
BOX = file(b"./usr/bin/busybox", b"\x7fELF")
DATA = tarball(ROOT, USR, BOX, header(b"./bin", flag=b"2", link=b"usr/bin"))
START = b"!<arch>\n" + member(b"debian-binary", b"2.0\n") + member(b"control.tar.gz", b"odd")


@pytest.fixture
def package(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        (tmp_path / "x.deb").write_bytes(content)
        return tmp_path / "x.deb"

    return write


@pytest.mark.parametrize("name", [b"data.tar.xz", b"data.tar.xz/"])
@pytest.mark.parametrize("path", ["usr/bin/busybox", "bin/busybox"])
def test_a_member_of_a_package(package: Callable[[bytes], Path], name: bytes, path: str) -> None:
    content = START + member(name, lzma.compress(DATA))
    assert unpacking.deb_member(package(content), path) == b"\x7fELF"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no ar magic"),
        (b"\x7fELF", "no ar magic"),
        (b"!<arch>\n", r"has no data\.tar"),
        (START, r"has no data\.tar"),
        (START + member(b"data.tar", DATA)[:40], r"has no data\.tar"),
        (START + member(b"data.tar", DATA)[:900], "cut short: 840 of"),
        (START + member(b"data.tar", b"", size=b"-5"), "no ar header"),
        (START + member(b"data.tar", b"", size=b"9999999999"), "cut short: 0 of 9999999999"),
        (START + member(b"data.tar", b"", size=b"x"), "no ar header"),
        (START + b"x" * 99, "no ar header"),
        (START + member(b"data.tar.xz", b"no xz"), r"data\.tar: "),
        (START + member(b"data.tar.xz", lzma.compress(DATA)[:-9]), r"data\.tar: "),
        (START + member(b"data.tar", tarball(ROOT)), "has no file usr/bin/busybox"),
        (START + member(b"data.tar", tarball(ROOT, USR, header(b"./usr/bin/busybox/", flag=b"5"))),
         "has no file usr/bin/busybox"),
    ],
)  # fmt: skip
def test_a_damaged_package(package: Callable[[bytes], Path], content: bytes, why: str) -> None:
    with pytest.raises(SourceError, match=why) as caught:
        unpacking.deb_member(package(content), "usr/bin/busybox")
    assert caught.value.message.startswith("x.deb: ")
