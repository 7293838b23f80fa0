"""Walks below directories that others write to: no symbolic link is ever followed.

Root inside an instance may put anything in its root, at any moment: links, pipes, a thousand
levels of directories. So each step is relative to an open directory and refuses links (openat(2)).
On btrfs it may also make subvolumes, and make them and its root read-only: who owns them may.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pipeline import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# How many directories are open at once when a tree is removed; deeper ones are moved up.
_DEPTH = 64
# BTRFS_IOC_SUBVOL_SETFLAGS and the inode of every subvolume: linux/btrfs.h, linux/btrfs_tree.h
_SETFLAGS, SUBVOLUME = 0x4008941A, 256


@contextmanager
def opened(path: str | Path, *, at: int | None = None) -> Iterator[int]:
    """A descriptor of directory *path*, relative to *at*; a link in its place is ENOTDIR."""
    descriptor = os.open(path, DIRECTORY, dir_fd=at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def parent(root: int, path: str) -> Iterator[tuple[int, str]]:
    """The directory above *path* below *root*, and the last part of *path*.

    Raises OSError: ENOENT, or ENOTDIR where a part is no directory.
    """
    *parts, last = path.split("/")
    descriptor = os.dup(root)
    try:
        for part in parts:
            below = os.open(part, DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor, last
    finally:
        os.close(descriptor)


def read_file(at: int, name: str, *, limit: int) -> bytes:
    """All of the regular file *name* in directory *at*. Raises OSError as `files.read` does."""
    return files.read(name, limit=limit, at=at)


def remove(at: int, name: str) -> None:
    """Remove *name* in directory *at* with all that is in it; nothing happens if it is not there.

    Needs a bounded number of descriptors and no disk space, however deep the tree is. Raises
    OSError: EBUSY for a mount point.
    """
    try:
        os.unlink(name, dir_fd=at)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        # POSIX lets unlink(2) of a directory be EPERM
        if not stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise
    else:
        return
    while not remove_if_empty(at, name):
        with opened(name, at=at) as top:
            _unlock(top)
            _hollow(top, top, top, 0)


def unlock(at: int, name: str) -> None:
    """Have directory *name* in directory *at* written to again if it is a read-only subvolume."""
    with suppress(OSError), opened(name, at=at) as directory:
        _unlock(directory)


def _unlock(directory: int) -> None:
    if os.fstat(directory).st_ino == SUBVOLUME:
        with suppress(OSError):  # of another file system, which has no such request
            fcntl.ioctl(directory, _SETFLAGS, struct.pack("=Q", 0))


def remove_if_empty(at: int, name: str) -> bool:
    """Remove directory *name* in directory *at*; no if something is in it."""
    try:
        os.rmdir(name, dir_fd=at)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _hollow(outer: int, top: int, directory: int, depth: int) -> None:
    """Remove what is in *directory*; what cannot be yet is moved up, for the next round.

    What lies too deep goes to *top*, the root of its subvolume, which no directory can leave;
    subvolumes can, and go to *outer*. Elsewhere than on btrfs both are the same.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=directory)
            elif not remove_if_empty(directory, entry.name):
                with opened(entry.name, at=directory) as below:
                    moved = _below(outer, top, directory, below, depth)
                if moved is not None:
                    name = os.urandom(8).hex()
                    os.rename(entry.name, name, src_dir_fd=directory, dst_dir_fd=moved)
                else:
                    # not empty if something was too deep below it
                    remove_if_empty(directory, entry.name)


def _below(outer: int, top: int, directory: int, below: int, depth: int) -> int | None:
    """Remove what is in *below*, which lies in *directory*; or where it is to be moved first."""
    if _is_subvolume(below, directory):
        _unlock(below)
        if directory != outer:
            return outer
        _hollow(outer, below, below, 1)
    elif depth >= _DEPTH:
        return top
    else:
        _hollow(outer, top, below, depth + 1)
    return None


def _is_subvolume(directory: int, above: int) -> bool:
    facts = os.fstat(directory)
    return facts.st_ino == SUBVOLUME and facts.st_dev != os.fstat(above).st_dev


def empty(folder: Path) -> None:
    """Remove all that is in *folder*, a directory that only its owner can write to."""
    with opened(folder) as at:
        for path in tuple(folder.iterdir()):
            remove(at, path.name)


DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
