"""The one way a small file is put in place, the one bounded reader, and locks.

A name is durable before a content: after a power failure ext4 and xfs may have a file that was
written and renamed a moment before with 0 bytes. So the content is forced to the disk first, by
fsync(2) for one file or by syncfs(2) for many, and the file gets its name after that.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def read(
    path: str | Path,
    *,
    limit: int,
    at: int | None = None,
    look: Callable[[os.stat_result], None] | None = None,
) -> bytes:
    """All of the regular file *path*, relative to the open directory *at*.

    *look* is told of the open file before anything is read, and may raise: whatever has its name
    by then, those facts are of what is read.
    Raises OSError: ELOOP for a link, EINVAL for what is no regular file, EFBIG beyond *limit*
    bytes; whoever may write there can neither lead us elsewhere nor keep us waiting.
    """
    # without O_NONBLOCK a pipe put there would keep us for ever
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    file = os.open(path, flags, dir_fd=at)
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        if look is not None:
            look(facts)
        # a sparse one of terabytes is not read, nor is one that grows meanwhile
        content = b""
        if facts.st_size <= limit:
            with open(file, "rb", closefd=False) as stream:
                content = stream.read(limit + 1)
        if max(facts.st_size, len(content)) > limit:
            raise OSError(errno.EFBIG, f"more than {limit} bytes", os.fspath(path))
    finally:
        os.close(file)
    return content


def read_text(path: str | Path, *, limit: int, at: int | None = None) -> str:
    """As `read`, for UTF-8; raises OSError EILSEQ for what is none."""
    try:
        return read(path, limit=limit, at=at).decode()
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f"not UTF-8: {error}", os.fspath(path)) from error


def holds(path: Path, content: bytes) -> bool:
    """Whether the regular file *path* has exactly *content*; no for whatever cannot be read."""
    try:
        return read(path, limit=len(content)) == content
    except OSError:
        return False


def write(
    path: Path,
    content: bytes,
    *,
    mode: int = 0o644,
    owner: tuple[int, int] | None = None,
    durable: bool = False,
) -> None:
    """Make the file *path*, which is not there; it is gone again if that fails.

    *mode* holds whatever the umask, *owner* is user and group. *durable*: its content is on the
    disk. Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    try:
        try:
            with open(file, "wb", closefd=False) as stream:
                stream.write(content)
            if owner is not None:
                os.fchown(file, *owner)
            os.fchmod(file, mode)
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def put(
    path: Path, content: bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """Have the file *path* hold *content*, durably: at every moment the old or the new, whole.

    Made beside it as `.NAME.part` (which nobody reads), fsync(2), rename(2), fsync(2) of the
    directory. *owner*: user and group. Raises OSError: ELOOP for a link, EISDIR for a directory in
    its place.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link: left as it is", str(path))
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    write(part, content, mode=mode, owner=owner, durable=True)
    try:
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def stream(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """As `put`, of pieces that the block writes, for its owner alone; nothing is left if it fails.

    Raises OSError: without *overwrite*, FileExistsError for what has that name by the end.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(part, flags, 0o600)
    try:
        with os.fdopen(file, "wb") as sink:
            yield sink
            sink.flush()
            os.fsync(file)
        if overwrite:
            part.replace(path)
        else:
            _link(part, path)
            part.unlink()
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _link(part: Path, path: Path) -> None:
    try:
        path.hardlink_to(part)
    except OSError as error:
        # of its two names, the one that the caller knows
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Have the names in *folder* on the disk (fsync(2) of a directory). Raises OSError."""
    descriptor = os.open(folder, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(folder: Path) -> None:
    """Have all of the file system with *folder* on the disk (syncfs(2)). Raises OSError, as EIO."""
    call = ctypes.CDLL(None, use_errno=True).syncfs
    descriptor = os.open(folder, _FOLDER)
    try:
        if call(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def put_cached(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """As `put` for what can be made again: whole or not at all, but not forced to the disk.

    The umask has its say in *mode*. Raises OSError with the path.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as it:
            it.write(content)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # write(2) on a full disk names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def stamp(path: str) -> list[Any]:
    """What of a file tells cheaply that it was changed: size, and time in nanoseconds."""
    state = os.stat(path)  # noqa: PTH116 (a no-op build asks this of each target)
    return [state.st_size, state.st_mtime_ns]


def lock(file: int, *, wait: bool = True) -> bool:
    """Lock the open *file* against everybody else; no if another has it and we do not *wait*.

    The lock is the open file's (flock(2)): children inherit it, and it ends with the last of its
    holders, however that ends; a killed process leaves none.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(
    path: Path, *, busy: Callable[[int], None] | None = None, mode: int = 0o644
) -> Iterator[int]:
    """Alone with the file *path*, made if need be: its descriptor, which has the `lock`.

    Where another has it, *busy* is called with that descriptor, and may say so or raise; then this
    waits. Whoever may read the file may lock it: *mode* is that of a new one. Raises OSError: ELOOP
    for a link, EISDIR for a directory.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        if not lock(file, wait=False):
            if busy is not None:
                busy(file)
            lock(file)
        yield file
    finally:
        os.close(file)


def is_locked(path: Path) -> bool:
    """Whether somebody has the lock on the file *path* at this moment; no if we may not look."""
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # shared, so that two who look do not see each other
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
    return False


# linux/fs.h and linux/fcntl.h. File systems that do not know a flag say EINVAL, kernels before it
# ENOSYS.
_NOREPLACE, _EXCHANGE, _AT_FDCWD = 1, 2, -100
_UNKNOWN = (errno.EINVAL, errno.ENOSYS)


@cache
def _renameat2() -> Any:
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def _renamed(source: int, name: bytes, target: int, new_name: bytes, flag: int) -> bool:
    """Whether renameat2(2) did it; no where it does not know *flag*."""
    call = _renameat2()
    if call is None:
        return False
    if call(source, name, target, new_name, flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), new_name.decode(errors="replace"))


def exchanged(one: Path, other: Path) -> bool:
    """Have *one* and *other* change places in one step; no where the file system cannot do that.

    Raises OSError (renameat2(2), RENAME_EXCHANGE).
    """
    return _renamed(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE)


class Mover:
    """rename(2) that never replaces anything (renameat2(2), RENAME_NOREPLACE)."""

    def move(self, source: int, name: bytes, target: int, new_name: bytes) -> None:
        """Move *name* in directory *source* to *new_name* in *target*, on the same file system.

        Raises FileExistsError if something has that name: plain rename would replace an empty
        directory.
        """
        if _renamed(source, name, target, new_name, _NOREPLACE):
            return
        try:
            os.stat(new_name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        else:
            raise FileExistsError(
                errno.EEXIST, os.strerror(errno.EEXIST), new_name.decode(errors="replace")
            )
