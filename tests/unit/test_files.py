"""How small files get in place, and how far a file is trusted that is read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline import files

if TYPE_CHECKING:
    from collections.abc import Callable


def link(path: Path) -> None:
    path.with_name("other").write_text("x")
    path.symlink_to("other")


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 << 30)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (link, errno.ELOOP),
        (os.mkfifo, errno.EINVAL),
        (Path.mkdir, errno.EINVAL),
        (sparse, errno.EFBIG),
        (lambda path: path.write_bytes(b"123456789"), errno.EFBIG),
        (lambda _path: None, errno.ENOENT),
    ],
)
def test_all_but_small_regular_files_are_refused(
    tmp_path: Path, make: Callable[[Path], object], error: int
) -> None:
    make(tmp_path / "it")
    with pytest.raises(OSError) as caught:  # noqa: PT011 (its errno is looked at)
        files.read(tmp_path / "it", limit=8)
    assert (caught.value.errno, caught.value.filename) == (error, str(tmp_path / "it"))
    assert not files.holds(tmp_path / "it", b"12345678")


def test_a_device_is_refused() -> None:
    with pytest.raises(OSError, match="not a regular file"):
        files.read("/dev/zero", limit=8)


def test_what_fits_is_read(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"12345678")
    assert files.read(tmp_path / "it", limit=8) == b"12345678"
    assert files.holds(tmp_path / "it", b"12345678")


def test_what_a_file_system_gives_no_size_for_is_read_and_bounded() -> None:
    assert files.read("/proc/self/comm", limit=64) == Path("/proc/self/comm").read_bytes()
    with pytest.raises(OSError, match="more than 4 bytes"):
        files.read("/proc/self/status", limit=4)


def test_text_is_utf8_or_an_error(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes("é".encode())
    assert files.read_text(tmp_path / "it", limit=8) == "é"
    (tmp_path / "it").write_bytes(b"x\x80")
    with pytest.raises(OSError, match="not UTF-8") as caught:
        files.read_text(tmp_path / "it", limit=8)
    assert caught.value.errno == errno.EILSEQ


@pytest.mark.parametrize("before", [None, b"old and longer than the new one"])
def test_a_file_is_put_with_its_mode(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "it"
    if before is not None:
        path.write_bytes(before)
    was = os.umask(0o077)
    try:
        files.put(path, b"new", mode=0o644)
    finally:
        os.umask(was)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".it.part").write_bytes(b"half")
    files.put(tmp_path / "it", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "it"]


def test_a_link_is_neither_followed_nor_replaced(tmp_path: Path) -> None:
    link(tmp_path / "it")
    with pytest.raises(OSError, match="left as it is") as caught:
        files.put(tmp_path / "it", b"new")
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "other").read_text() == "x"
    assert (tmp_path / "it").is_symlink()


def test_a_directory_in_its_place_stays_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    with pytest.raises(IsADirectoryError):
        files.put(tmp_path / "it", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "it"]


def test_the_content_is_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    fsync, rename = os.fsync, os.replace

    def noted(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if is_folder else "content")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append("name")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", renamed)
    files.put(tmp_path / "it", b"new")
    assert done == ["content", "name", "folder"]


def test_a_file_system_is_synced_and_an_error_told(tmp_path: Path) -> None:
    files.sync(tmp_path)
    with pytest.raises(NotADirectoryError):
        files.sync(Path("/dev/null"))


def test_of_two_one_has_the_lock_and_the_other_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path) as file:
        os.pwrite(file, b"mine", 0)
        assert files.is_locked(path)
        told: list[bytes] = []

        def busy(other: int) -> None:
            told.append(os.pread(other, 20, 0))
            raise BlockingIOError

        with pytest.raises(BlockingIOError), files.locked(path, busy=busy):
            pass
        assert told == [b"mine"]
    assert not files.is_locked(path)


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = os.open(path, os.O_RDWR | os.O_CREAT)
    files.lock(other)
    with files.locked(path, busy=lambda _file: os.close(other)):
        assert files.is_locked(path)


def test_an_open_file_is_locked_once(tmp_path: Path) -> None:
    with (tmp_path / "draft").open("w") as one, (tmp_path / "draft").open() as other:
        assert (files.lock(one.fileno()), files.lock(other.fileno(), wait=False)) == (True, False)


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="Too many levels"), files.locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()
    assert not files.is_locked(tmp_path / "lock")


def test_what_is_streamed_is_there_at_the_end(tmp_path: Path) -> None:
    with files.stream(tmp_path / "file", overwrite=False) as sink:
        sink.write(b"pie")
        sink.write(b"ces")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"pieces"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def streamed(path: Path, meanwhile: Callable[[], object], *, overwrite: bool) -> None:
    with files.stream(path, overwrite=overwrite) as sink:
        sink.write(b"ours")
        meanwhile()


def test_what_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileExistsError) as caught:
        streamed(path, lambda: path.write_bytes(b"theirs"), overwrite=False)
    assert (caught.value.filename, path.read_bytes()) == (str(path), b"theirs")
    streamed(path, lambda: None, overwrite=True)
    assert path.read_bytes() == b"ours"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_stream_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streamed(tmp_path / "file", interrupted, overwrite=True)
    assert not [*tmp_path.iterdir()]
