"""Archives: what is written is read back, the same everywhere; what is hostile is one error."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import sys
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.image import archive, compressed
from pipeline.image.archive import ArchiveError, Limits
from pipeline.image.rootfs import Directory, File, Rootfs, Symlink
from pipeline.paths import PROJECT
from pipeline.run import run
from tests.support.images import file, header, padded, pax, record, rootfses, tarball

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Packer = Callable[[bytes], bytes]

SMALL = Rootfs.of(
    [
        Directory(path="etc", mode=0o755),
        File(path="etc/shadow", content=b"root:*::\n", mode=0o600),
        File(path="etc/words", content=bytes(range(256)) * 9 + b"end", uid=7, gid=9),
        Symlink(path="bin", target="etc"),
    ]
)
PACKERS: dict[str, Packer] = {
    "plain": bytes,
    "zstd": archive.write_zstd,
    "xz": archive.write_xz,
    "gzip": lambda tar: gzip.compress(tar, mtime=0),
    "bzip2": bz2.compress,
}


@pytest.fixture(params=PACKERS)
def packer(request: pytest.FixtureRequest) -> Packer:
    return PACKERS[request.param]


def fast_zstd(tar: bytes) -> bytes:
    return zstandard.compress(tar, 1)


def fast_xz(tar: bytes) -> bytes:
    return lzma.compress(tar, preset=0)


@pytest.mark.parametrize("compress", [bytes, fast_zstd, fast_xz], ids=["plain", "zstd", "xz"])
@given(rootfs=rootfses(), mtime=st.integers(0, 2**33 - 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_read_back(compress: Packer, rootfs: Rootfs, mtime: int) -> None:
    assume(len(rootfs) or compress is not bytes)  # an empty tar has no header to know it by
    assert archive.read(compress(archive.write_tar(rootfs, mtime=mtime))) == rootfs


@given(rootfs=rootfses())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_other_tars_read_the_same(rootfs: Rootfs) -> None:
    tar = archive.write_tar(rootfs, mtime=0)
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        found = [(member.name, member.linkname, member.mode) for member in members]
    assert found == [
        (entry.path, entry.target if isinstance(entry, Symlink) else "", entry.mode)
        for entry in rootfs
    ]


def test_the_packers_of_a_build_are_read_back(packer: Packer) -> None:
    assert archive.read(packer(archive.write_tar(SMALL, mtime=5))) == SMALL


def test_a_file_is_read_like_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(archive.write_zstd(archive.write_tar(SMALL, mtime=5)))
    assert archive.read(path) == SMALL


@given(rootfs=rootfses(), chance=st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_order_of_entries_does_not_matter(rootfs: Rootfs, chance: random.Random) -> None:
    mixed = list(rootfs)
    chance.shuffle(mixed)
    once, again = (archive.write_tar(one, mtime=1) for one in (rootfs, Rootfs.of(mixed)))
    assert once == again


def test_umask_locale_and_time_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    once = archive.write_zstd(archive.write_tar(SMALL, mtime=1))
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setattr("time.time", lambda: 2e9)
    before = os.umask(0o077)
    try:
        again = archive.write_zstd(archive.write_tar(SMALL, mtime=1))
    finally:
        os.umask(before)
    assert once == again


def test_no_user_of_the_machine_is_named() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive.write_tar(SMALL, mtime=1))) as members:
        assert {(member.uname, member.gname, member.mtime) for member in members} == {("", "", 1)}


# --- files that are none -------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"absent: No such file"):
        archive.read(tmp_path / "absent")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="directory"):
        archive.read(tmp_path)


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArchiveError, match="not a regular file"):
        archive.read(tmp_path / "pipe")


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as sink:
        sink.truncate(1 << 40)
    with pytest.raises(ArchiveError, match="at most"):
        archive.read(path)


@pytest.mark.parametrize("content", [b"", b"x", b"not an archive" * 90, b"\x7fELF" + bytes(900)])
def test_no_archive(content: bytes) -> None:
    with pytest.raises(ArchiveError, match="not an image archive") as caught:
        archive.read(content)
    assert "a build made" in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"", b"no tar at all", b"x" * 5000])
def test_no_tar_inside(packer: Packer, content: bytes) -> None:
    with pytest.raises(ArchiveError):
        archive.read(packer(content))


# --- damage --------------------------------------------------------------------------------------


def test_truncation_anywhere_is_noticed(packer: Packer) -> None:
    packed = packer(archive.write_tar(SMALL, mtime=5))
    # the last bytes of a plain tar are padding beyond its end mark
    end = len(packed.rstrip(b"\0")) + 1023 if packer is bytes else len(packed)
    for size in {*range(0, end, 61), *range(12), *range(max(end - 24, 0), end)}:
        with pytest.raises(ArchiveError):
            archive.read(packed[:size])


def test_a_bit_flip_is_an_error_or_another_image(packer: Packer) -> None:
    packed = packer(archive.write_tar(SMALL, mtime=5))
    chance = random.Random(2)  # noqa: S311 (the same flips each time)
    for _round in range(400):
        damaged = bytearray(packed)
        damaged[chance.randrange(len(packed))] ^= 1 << chance.randrange(8)
        with suppress(ArchiveError):
            assert isinstance(archive.read(bytes(damaged)), Rootfs)


@pytest.mark.parametrize("kind", ["zstd", "xz", "gzip", "bzip2"])
def test_a_flip_in_the_content_does_not_pass(kind: str) -> None:
    packed = bytearray(PACKERS[kind](archive.write_tar(SMALL, mtime=5)))
    packed[len(packed) // 2] ^= 1
    with pytest.raises(ArchiveError):
        archive.read(bytes(packed))


def test_a_damaged_header_does_not_end_the_image_early() -> None:
    tar = bytearray(archive.write_tar(SMALL, mtime=5))
    tar[1024] ^= 1  # the second file's name
    with pytest.raises(ArchiveError, match="checksum"):
        archive.read(bytes(tar))


@pytest.mark.parametrize("rest", [b"x", b"\0" * 700 + b"x", b"second"])
def test_garbage_after_the_end(packer: Packer, rest: bytes) -> None:
    with pytest.raises(ArchiveError, match="follow"):
        archive.read(packer(archive.write_tar(SMALL, mtime=5)) + rest)


def test_a_second_image_after_the_first(packer: Packer) -> None:
    packed = packer(archive.write_tar(SMALL, mtime=5))
    with pytest.raises(ArchiveError, match="follow"):
        archive.read(packed + packed)


def test_a_second_tar_inside_one_compression(packer: Packer) -> None:
    with pytest.raises(ArchiveError, match="follows the tar's end mark"):
        archive.read(packer(tarball(file(b"a")) + tarball(file(b"b"))))


@given(st.binary(max_size=600))
@settings(max_examples=200, deadline=None)
def test_nothing_but_an_archive_error_comes_out(content: bytes) -> None:
    for start in (b"", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"\x1f\x8b\x08", b"BZh9"):
        with pytest.raises(ArchiveError):
            archive.read(start + content)


@given(st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=9))
@settings(max_examples=300, deadline=None)
def test_any_header_is_an_entry_or_an_archive_error(changes: list[tuple[int, int]]) -> None:
    block = bytearray(header(b"name", size=7))
    for place, value in changes:
        block[place] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with suppress(ArchiveError):
        assert len(archive.read(tarball(bytes(block), padded(b"content")))) == 1


# --- more than one frame -------------------------------------------------------------------------

SKIPPABLE = b"\x5a\x2a\x4d\x18\x04\x00\x00\x00\x00\x01\x02\x03"
COMPRESSED = {name: pack for name, pack in PACKERS.items() if name != "plain"}


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("count", [2, 3, 40])
def test_several_frames_are_one_archive(kind: str, count: int) -> None:
    tar = archive.write_tar(SMALL, mtime=5)
    step = -(-len(tar) // count)
    parts = (tar[at : at + step] for at in range(0, len(tar), step))
    assert archive.read(b"".join(map(COMPRESSED[kind], parts))) == SMALL


@pytest.mark.parametrize("kind", COMPRESSED)
def test_zeros_may_pad_the_end(kind: str) -> None:
    packed = COMPRESSED[kind](archive.write_tar(SMALL, mtime=5))
    assert archive.read(packed + bytes(600_000)) == SMALL


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("cut", [1, 3, 9, 20])
def test_a_second_frame_that_is_cut_short(kind: str, cut: int) -> None:
    tar = archive.write_tar(SMALL, mtime=5)
    packed = COMPRESSED[kind](tar[:1024]) + COMPRESSED[kind](tar[1024:])
    with pytest.raises(ArchiveError, match=r"corrupt or truncated|end mark|follow"):
        archive.read(packed[:-cut])


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_frame_of_another_kind_is_something_else(kind: str) -> None:
    tar = archive.write_tar(SMALL, mtime=5)
    other = COMPRESSED["gzip" if kind != "gzip" else "zstd"]
    with pytest.raises(ArchiveError, match="other bytes follow the end of the compressed stream"):
        archive.read(COMPRESSED[kind](tar[:1024]) + other(tar[1024:]))


def test_skippable_frames_of_zstd() -> None:
    tar = archive.write_tar(SMALL, mtime=5)
    halves = archive.write_zstd(tar[:1024]), archive.write_zstd(tar[1024:])
    assert archive.read(SKIPPABLE.join([b"", *halves, b""])) == SMALL
    with pytest.raises(ArchiveError, match="corrupt or truncated"):
        archive.read(SKIPPABLE)


def test_frames_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "MOST_FRAMES", 50)
    with pytest.raises(ArchiveError, match="more than 50 frames"):
        archive.read(gzip.compress(b"") * 51 + gzip.compress(archive.write_tar(SMALL, mtime=5)))


def test_the_limit_holds_for_all_frames_together(packer: Packer) -> None:
    tar = tarball(*(file(b"%d" % number, bytes(300_000)) for number in range(4)))
    packed = packer(tar[:600_000]) + packer(tar[600_000:])
    with pytest.raises(ArchiveError, match="more than 1048576 bytes"):
        archive.read(packed, limits=Limits(max_bytes=1 << 20))


# --- bombs ---------------------------------------------------------------------------------------


def test_a_bomb_stops_at_the_limit(packer: Packer) -> None:
    bomb = packer(bytes(header(b"zeros", size=50 << 20)) + bytes(50 << 20) + bytes(1024))
    with pytest.raises(ArchiveError, match="more than 1048576 bytes"):
        archive.read(bomb, limits=Limits(max_bytes=1 << 20))


def test_a_zstd_frame_that_lies_about_its_size() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(ArchiveError, match="more than"):
        archive.read(compressor.compress(bytes(9 << 20)), limits=Limits(max_bytes=1 << 20))


def test_a_zstd_window_larger_than_the_memory() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = stream.compress(tarball(file(b"a"))) + stream.flush()
    with pytest.raises(ArchiveError, match="a window of more than 128 MiB") as caught:
        archive.read(packed)
    assert "zstd -d --long" in (caught.value.hint or "")


def test_a_member_larger_than_the_limit_is_not_even_begun() -> None:
    tar = tarball(header(b"x", size=500 << 20), bytes(1 << 20))
    with pytest.raises(ArchiveError, match="524288000 bytes of a member: more than 1048576 bytes"):
        archive.read(tar, limits=Limits(max_bytes=1 << 20))


# VmHWM, not ru_maxrss: that one begins with the memory of who forked
MEASURE = """
import sys
from pathlib import Path
from pipeline.image import archive
found = archive.read(Path(sys.argv[1]))
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(len(found.find("zeros").content), int(peak.split()[1]) << 10)
"""
QUICK = {**PACKERS, "zstd": fast_zstd, "xz": fast_xz}


@pytest.mark.parametrize("kind", QUICK)
def test_the_memory_to_read_an_archive_is_below_its_own_limit(tmp_path: Path, kind: str) -> None:
    """That of the files in it and 40 MiB at most; it was twice as much when all was joined."""
    size = 200_000_000
    path = tmp_path / "large"
    path.write_bytes(QUICK[kind](tarball(file(b"zeros", bytes(size)))))
    words = [sys.executable, "-c", MEASURE, str(path)]
    read, memory = map(int, run(words, cwd=PROJECT).stdout.split())
    assert read == size
    assert memory < size + (40 << 20)


def test_more_entries_than_the_limit() -> None:
    tar = tarball(*(file(b"%d" % number, b"") for number in range(9)))
    with pytest.raises(ArchiveError, match="more than 8 entries"):
        archive.read(tar, limits=Limits(max_entries=8))


def test_as_many_entries_as_the_limit() -> None:
    tar = tarball(*(file(b"%d" % number, b"") for number in range(8)))
    assert len(archive.read(tar, limits=Limits(max_entries=8))) == 8


# --- hostile members -----------------------------------------------------------------------------

FOLDER = header(b"d/", flag=b"5")
HOSTILE = {
    "absolute path": (file(b"/etc/passwd"), "clean relative path"),
    "parent": (file(b"../etc/passwd"), "clean relative path"),
    "parent in the middle": (FOLDER + file(b"d/../../x"), "clean relative path"),
    "only the parent": (header(b"..", flag=b"5"), "clean relative path"),
    "double slash": (FOLDER + file(b"d//x"), "clean relative path"),
    "dot slash slash": (file(b".//etc"), "clean relative path"),
    "dot in the middle": (FOLDER + file(b"d/./x"), "clean relative path"),
    "file with a slash at the end": (file(b"x/"), "clean relative path"),
    "folder with two": (header(b"x//", flag=b"5"), "clean relative path"),
    "root itself, absolute": (header(b"/", flag=b"5"), "clean relative path"),
    "root as a file": (file(b"."), "clean relative path"),
    "root as a link": (header(b"./", flag=b"2", link=b"x"), "clean relative path"),
    "no name": (file(b""), "clean relative path"),
    "prefix that climbs": (header(b"x", prefix=b".."), "clean relative path"),
    "link out": (header(b"x", flag=b"2", link=b"../y"), "leaves the root"),
    "link out by a detour": (header(b"x", flag=b"2", link=b"a/../../y"), "leaves the root"),
    "absolute link out": (header(b"x", flag=b"2", link=b"/../y"), "leaves the root"),
    "link nowhere": (header(b"x", flag=b"2"), "is empty"),
    "hard link": (file(b"y") + header(b"x", flag=b"1", link=b"y"), "is a hard link"),
    "character device": (header(b"x", flag=b"3"), "is a character device"),
    "block device": (header(b"x", flag=b"4"), "is a block device"),
    "named pipe": (header(b"x", flag=b"6"), "is a named pipe"),
    "contiguous file": (header(b"x", flag=b"7"), "type b'7'"),
    "old GNU sparse file": (header(b"x", flag=b"S"), "is a sparse file"),
    "pax sparse file": (pax({"GNU.sparse.major": "1", "GNU.sparse.name": "y"}) + file(b"x"),
                        "is a sparse file"),
    "GNU multi-volume": (header(b"x", flag=b"M"), "type b'M'"),
    "twice": (file(b"x") + file(b"x"), "stands there twice"),
    "twice once normal": (file(b"x") + file(b"./x"), "stands there twice"),
    "file and folder": (file(b"x") + header(b"x/", flag=b"5"), "stands there twice"),
    "below a file": (file(b"x") + file(b"x/y"), "is not a directory"),
    "below a link": (
        FOLDER + header(b"x", flag=b"2", link=b"d") + file(b"x/y"), "is not a directory"
    ),
    "no parent": (file(b"x/y"), "parent x is missing"),
    "setuid": (header(b"x", mode=b"0004755\0"), "setuid"),
    "setgid folder": (header(b"x/", flag=b"5", mode=b"0002755\0"), "setuid"),
    "mode beyond all": (header(b"x", mode=b"\x80" + b"\xff" * 7), "bits outside"),
    "owner beyond the range": (header(b"x", owner=b"0200000\0"), "owner 65536:65536"),
    "owner in base 256": (header(b"x", owner=b"\x80" + b"\xff" * 7), "owner"),
    "negative owner": (header(b"x", owner=b"\xff" * 8), "not a number"),
    "owner in letters": (header(b"x", owner=b"root"), "not a number"),
    "negative size": (header(b"x", size=b"\xff" * 11 + b"\0"), "not a number"),
    "size beyond the end": (header(b"x", size=b"\x80" + b"\xff" * 11), "of a member"),
    "folder with content": (header(b"x/", flag=b"5", size=5) + padded(b"12345"), "with content"),
    "not UTF-8": (file(b"\xff\xfe"), "not UTF-8"),
    "target not UTF-8": (header(b"x", flag=b"2", link=b"\xff"), "not UTF-8"),
    "newline": (file(b"a\nb"), "cannot be printed"),
    "escape sequence": (file(b"a\x1b[2J"), "cannot be printed"),
    "right to left": (file("a\u202eb".encode()), "cannot be printed"),
    "name too long for Linux": (pax({"path": "n" * 256}) + file(b"x"), "longer than 255"),
    "path too long for Linux": (pax({"path": "n/" * 2048 + "n"}) + file(b"x"), "4095 in all"),
    "no header": (b"x" * 512, "neither POSIX nor GNU"),
    "V7 header": (header(b"x", magic=b""), "neither POSIX nor GNU"),
}  # fmt: skip
PAX = {
    "absolute path": (pax({"path": "/etc/passwd"}), "clean relative path"),
    "parent": (pax({"path": "../x"}), "clean relative path"),
    "NUL": (pax({"path": "a\0b"}), "clean relative path"),
    "slash at the end": (pax({"path": "a/"}), "clean relative path"),
    "huge size": (pax({"size": "99999999999999"}), "of a member"),
    "size of many digits": (pax({"size": "9" * 5000}), "not a number"),
    "negative size": (pax({"size": "-512"}), "not a number"),
    "size in another script": (pax({"size": "٣"}), "not a number"),
    "smaller size": (pax({"size": "0"}) + header(b"x", size=512) + b"y" * 512, "neither POSIX"),
    "negative owner": (pax({"uid": "-1"}), "not a number"),
    "huge owner": (pax({"gid": "4294967295"}), "owner 0:4294967295"),
    "binary names": (pax({"hdrcharset": "BINARY"}), "not UTF-8"),
    "two headers": (pax({"path": "a"}) + pax({"path": "b"}), "two headers"),
    "path for all": (pax({"path": "../x"}, flag=b"g"), "clean relative path"),
    "no member": (pax({"path": "a"}) + bytes(1024), "no end mark"),
    "no length": (header(b"p", flag=b"x", size=9) + padded(b"path=abc\n"), "record's length"),
    "length too long": (header(b"p", flag=b"x", size=9) + padded(b"99 path=a"), "record's length"),
    "length zero": (header(b"p", flag=b"x", size=9) + padded(b"0 path=a\n"), "record's length"),
    "endless length": (header(b"p", flag=b"x", size=9000) + padded(b"1" * 9000), "record's length"),
    "no equals": (header(b"p", flag=b"x", size=9) + padded(b"9 pathab\n"), "without '='"),
    "not UTF-8": (header(b"p", flag=b"x", size=10) + padded(record(b"path", b"\xff")), "not UTF-8"),
    "huge header": (header(b"p", flag=b"x", size=2 << 20) + bytes(2 << 20), "a header of"),
    "huge header, no bytes": (header(b"p", flag=b"x", size=7 << 30), "a header of"),
    "negative header": (header(b"p", flag=b"x", size=b"\xff" * 12), "not a number"),
    "GNU parent": (header(b"L", flag=b"L", size=5) + padded(b"../x\0"), "clean relative path"),
    "GNU, two names": (2 * (header(b"L", flag=b"L", size=2) + padded(b"x\0")), "two headers"),
    "chain of headers": (pax({"comment": "x"}) * 3000, "two headers"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_refused(case: str) -> None:
    parts, why = HOSTILE[case]
    with pytest.raises(ArchiveError, match=why):
        archive.read(fast_zstd(tarball(parts)))


@pytest.mark.parametrize("case", PAX)
def test_a_lying_header_is_refused(case: str) -> None:
    parts, why = PAX[case]
    with pytest.raises(ArchiveError, match=why):
        archive.read(fast_zstd(tarball(parts, b"" if "no member" in case else file(b"x"))))


def test_a_way_out_over_another_link() -> None:
    """`a/up` leads to the top, so `x` would lead above it, though no name in it says so."""
    tar = tarball(
        header(b"a/", flag=b"5"),
        header(b"a/b/", flag=b"5"),
        header(b"a/b/up", flag=b"2", link=b"../.."),
        header(b"x", flag=b"2", link=b"a/b/up/../y"),
    )
    with pytest.raises(ArchiveError, match="leaves the root, or may"):
        archive.read(tar)


def test_an_error_is_of_the_file_and_all_problems_are_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(tarball(file(b"/a"), file(b"../b"), header(b"c", flag=b"2", link=b"..")))
    with pytest.raises(ArchiveError) as caught:
        archive.read(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert len(caught.value.message.splitlines()) >= 4


# --- what other writers do and may do ------------------------------------------------------------


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_python_s_own_formats_are_read(style: int) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=style) as tar:
        for entry in SMALL:
            info = tarfile.TarInfo(f"./{entry.path}")
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            info.type = {Directory: tarfile.DIRTYPE, Symlink: tarfile.SYMTYPE}.get(
                type(entry), tarfile.REGTYPE
            )
            info.linkname = entry.target if isinstance(entry, Symlink) else ""
            content = entry.content if isinstance(entry, File) else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert archive.read(sink.getvalue()) == SMALL


def test_the_type_s_bits_in_a_mode_say_nothing() -> None:
    """As Go before 1.9 wrote them: the type is in the flag."""
    tar = tarball(
        header(b"d/", flag=b"5", mode=b"0040755\0"),
        header(b"d/f", mode=b"0100644\0"),
        header(b"d/l", flag=b"2", link=b"f", mode=b"0120777\0"),
        header(b"d/t", mode=b"7101644\0"),
    )
    assert archive.read(tar) == Rootfs.of(
        [
            Directory(path="d", mode=0o755),
            File(path="d/f", content=b"", mode=0o644),
            Symlink(path="d/l", target="f"),
            File(path="d/t", content=b"", mode=0o1644),
        ]
    )


@pytest.mark.parametrize("mode", [b"0104755\0", b"0102755\0", b"0006755\0"])
def test_setuid_stays_refused(mode: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"x: mode \d755 has bits outside 1777 \(setuid"):
        archive.read(tarball(header(b"x", mode=mode)))


@pytest.mark.parametrize("name", [b".", b"./"])
def test_the_root_itself_is_no_entry(name: bytes) -> None:
    assert archive.read(tarball(header(name, flag=b"5"), file(b"./x", b""))) == Rootfs.of(
        [File(path="x", content=b"")]
    )


@pytest.mark.parametrize("name", ["n" * 150, "é" * 90])
def test_gnu_long_names(name: str) -> None:
    raw = name.encode() + b"\0"
    long_name = header(b"././@LongLink", flag=b"L", size=len(raw), magic=b"ustar  \0")
    long_link = header(b"././@LongLink", flag=b"K", size=len(raw), magic=b"ustar  \0")
    member = header(raw[:100], flag=b"2", link=raw[:100], magic=b"ustar  \0")
    found = archive.read(tarball(long_link, padded(raw), long_name, padded(raw), member))
    assert list(found) == [Symlink(path=name, target=name)]


def test_times_and_names_of_users_do_not_matter() -> None:
    said = pax({"mtime": "-5", "atime": "1e400", "uname": "eve", "comment": "\x1b", "ctime": "x"})
    assert list(archive.read(tarball(said, file(b"x", b"")))) == [File(path="x", content=b"")]


def test_a_pax_header_speaks_of_one_member_only() -> None:
    found = archive.read(tarball(pax({"path": "a", "uid": "5"}), file(b"x", b""), file(b"y", b"")))
    assert [(entry.path, entry.uid) for entry in found] == [("a", 5), ("y", 0)]


def test_a_name_ends_at_its_nul() -> None:
    assert [entry.path for entry in archive.read(tarball(file(b"a\0/../b")))] == ["a"]
