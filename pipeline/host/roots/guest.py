"""An instance's root, changed from outside while its own root may tamper with it.

Every step is relative to an open directory and follows no link: see `trees`.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline import trees
from pipeline.host.roots.merge import Strange
from pipeline.image.rootfs import Directory, File, Symlink
from pipeline.trees import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.host.state.layout import Layout
    from pipeline.image.rootfs import Entry

BESIDE = ".nifty-new"
_PART = ".nifty-part"
# What of a file is read even if no version of it is as long: init's table, for merging.
_LEAST = 1 << 16


def is_root(layout: Layout, name: str) -> bool:
    """Whether the root of the instance *name* is there: a directory, and no link to one."""
    with trees.opened(layout.prefix) as prefix:
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=prefix, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False


def read(layout: Layout, name: str, path: str, *, limit: int) -> bytes:
    """All of the regular file *path* in the root of instance *name*.

    Raises OSError: ENOTDIR or ELOOP where a link is on the way, EINVAL for what is no regular file,
    EFBIG beyond *limit* bytes.
    """
    with (
        trees.opened(layout.prefix) as prefix,
        trees.opened(name, at=prefix) as top,
        trees.parent(top, path) as (above, last),
    ):
        return trees.read_file(above, last, limit=limit)


def told(error: OSError) -> str:
    """Why `read` failed, in the words of somebody who did not make that file."""
    if error.errno == errno.ELOOP:
        return "is a link, and no link of an instance is followed"
    if error.errno == errno.ENXIO:
        return "not a regular file"  # a socket (open(2))
    return error.strerror or str(error)


class GuestRoot:
    """The root open as directory *top*, whose user ids begin at *base*."""

    def __init__(self, top: int, base: int) -> None:
        self._top, self._base = top, base
        self._owns = os.geteuid() == 0

    def find(self, path: str, *versions: Entry | None) -> Entry | Strange | None:
        """What lies there; a file only as far as it could be equal to one of *versions*."""
        try:
            with trees.parent(self._top, path) as (above, name):
                facts = os.stat(name, dir_fd=above, follow_symlinks=False)
                found = self._seen(above, name, path, facts, limit=_limit(versions))
                return found if self._owns else _owned_alike(found, versions)
        except FileNotFoundError:
            return None
        except (NotADirectoryError, IsADirectoryError):
            return Strange.STRANGE  # a part of the path is a file or a link there

    def _seen(
        self, above: int, name: str, path: str, facts: os.stat_result, *, limit: int
    ) -> Entry | Strange:
        owner = {"uid": facts.st_uid - self._base, "gid": facts.st_gid - self._base}
        mode = stat.S_IMODE(facts.st_mode)
        if stat.S_ISDIR(facts.st_mode):
            return Directory(path=path, mode=mode, **owner)
        if stat.S_ISLNK(facts.st_mode):
            return Symlink(path=path, target=os.readlink(name, dir_fd=above), **owner)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > limit:
            return Strange.STRANGE
        content = trees.read_file(above, name, limit=limit)
        return File(path=path, content=content, mode=mode, **owner)

    def remove(self, path: str) -> None:
        """Remove what the image owned; a directory only when it is empty."""
        with trees.parent(self._top, path) as (above, name):
            _unlink(above, name)

    def put(self, entry: Entry) -> bool:
        """Make it so; no if what is in the way is not empty, or its parent is not there."""
        try:
            with trees.parent(self._top, entry.path) as (above, name):
                if isinstance(entry, Directory) and self._settle(above, name, entry):
                    return True
                part = f"{name[:200]}{_PART}"
                # one that was staged is on the disk already
                if not isinstance(entry, File) or self._staged(entry) != entry:
                    trees.remove(above, part)
                    self._make(above, part, entry)
                return _move(above, part, name)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _staged(self, entry: File) -> Entry | Strange | None:
        folder, slash, name = entry.path.rpartition("/")
        found = self.find(f"{folder}{slash}{name[:200]}{_PART}", entry)
        return replace(found, path=entry.path) if isinstance(found, File) else found

    def put_beside(self, entry: Entry, *, going_back: bool) -> bool:
        """Lay it beside what was kept or, *going_back*, take away what an upgrade laid there."""
        if isinstance(entry, Directory):
            return False
        if not going_back:
            return self.put(replace(entry, path=f"{entry.path}{BESIDE}"))
        with suppress(FileNotFoundError, NotADirectoryError):
            self.remove(f"{entry.path}{BESIDE}")
        return False

    def _make(self, above: int, name: str, entry: Entry, *, durable: bool = True) -> None:
        """Make it where nothing is: complete only at the end, so under a name of no meaning."""
        if isinstance(entry, Directory):
            os.mkdir(name, 0o700, dir_fd=above)
            self._settle(above, name, entry)
        elif isinstance(entry, Symlink):
            os.symlink(entry.target, name, dir_fd=above)
            if self._owns:
                uid, gid = self._base + entry.uid, self._base + entry.gid
                os.chown(name, uid, gid, dir_fd=above, follow_symlinks=False)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, 0o600, dir_fd=above)
            with open(file, "wb") as stream:  # noqa: PTH123 (a descriptor has no path)
                stream.write(entry.content)
                stream.flush()
                self._own(file, entry)
                os.fchmod(file, entry.mode)
                if durable:
                    os.fsync(file)

    def _settle(self, above: int, name: str, entry: Directory) -> bool:
        """Owner and mode of the directory that is there; no if none is."""
        try:
            folder = os.open(name, DIRECTORY, dir_fd=above)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            self._own(folder, entry)
            os.fchmod(folder, entry.mode)
        finally:
            os.close(folder)
        return True

    def _own(self, descriptor: int, entry: Entry) -> None:
        if self._owns:
            os.fchown(descriptor, self._base + entry.uid, self._base + entry.gid)


class Staging(GuestRoot):
    """The same root before it is changed: `put` only lays files ready, nothing is removed.

    One syncfs(2) for many roots then has all contents on the disk before a `GuestRoot` gives them
    their names, which would cost an fsync(2) each.
    """

    def remove(self, path: str) -> None:
        """Nothing yet."""

    def put(self, entry: Entry) -> bool:
        """Lay a file ready, if its directory is there already."""
        if isinstance(entry, File):
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                trees.parent(self._top, entry.path) as (above, name),
            ):
                part = f"{name[:200]}{_PART}"
                trees.remove(above, part)
                self._lay(above, part, entry)
        return True

    def _lay(self, above: int, part: str, entry: File) -> None:
        self._make(above, part, entry, durable=False)


class Unstaging(Staging):
    """The same root when it is not to be changed after all: `put` takes away what was laid."""

    def _lay(self, above: int, part: str, entry: File) -> None:
        """Nothing any more."""


def _owned_alike(found: Entry | Strange, versions: Iterable[Entry | None]) -> Entry | Strange:
    """*found* as the version that it equals but for the owner, which tells nothing without root."""
    if isinstance(found, Strange):
        return found
    for version in versions:
        if version is not None:
            alike = replace(found, uid=version.uid, gid=version.gid)
            if alike == version:
                return alike
    return replace(found, uid=0, gid=0)


def _limit(versions: Iterable[Entry | None]) -> int:
    sizes = [len(entry.content) for entry in versions if isinstance(entry, File)]
    return max([_LEAST, *sizes])


def _move(above: int, part: str, name: str) -> bool:
    """Give *part* its name; no, and it is gone, if a directory there is not empty."""
    try:
        os.rename(part, name, src_dir_fd=above, dst_dir_fd=above)
    except (IsADirectoryError, NotADirectoryError):
        if not _unlink(above, name):
            trees.remove(above, part)
            return False
        os.rename(part, name, src_dir_fd=above, dst_dir_fd=above)
    return True


def _unlink(above: int, name: str) -> bool:
    """Remove a file, link or empty directory; whether it is gone."""
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return trees.remove_if_empty(above, name)
    return True
