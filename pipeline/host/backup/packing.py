"""A root read for a backup, while its own root may tamper with it: no link is ever followed.

Every step is relative to an open directory (see `trees`). A walk gives directories before what is
in them and names in the order of their bytes, so that a reader needs to remember nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.host.backup import acl
from pipeline.host.backup.parcel import (
    BLOCK,
    MAX_EXTENTS,
    MODE_MASK,
    Kind,
    Member,
    ParcelError,
    head,
    shown,
)
from pipeline.host.state.records import RANGE, Users
from pipeline.image.rootfs import PATH_MAX
from pipeline.trees import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.host.state.records import Instance

# Directories below each other that are looked into: each takes a descriptor.
DEPTH = 400
# Names of one directory: they are sorted in memory.
MOST_NAMES = 1_000_000
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE = 1 << 20
_PLAIN = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.PIPE,
}
_OTHERS = {
    stat.S_IFSOCK: "a socket: whoever listens on it makes it anew",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NAMED = 20


@dataclass(slots=True)
class Notes:
    """What a backup leaves out or changes: the first few by name, all counted."""

    lines: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, name: str, path: bytes, why: str) -> None:
        """*path* in the root of *name*: *why*."""
        self.count += 1
        if len(self.lines) < _NAMED:
            self.lines.append(f"{name}: /{shown(path)}: {why}")


@dataclass(frozen=True, slots=True)
class Seen:
    """*name* in the open directory *at*, whose path in the root is *path*; *below*: itself, open.

    Only directories have a *below*. *facts* are as they were when it was met.
    """

    path: bytes
    at: int
    name: bytes
    facts: os.stat_result
    below: int | None = None


def walk(top: int, tell: Callable[[bytes, str], None]) -> Iterator[Seen]:
    """All that is below the open directory *top*; what cannot be had is told with its path.

    What vanishes meanwhile is not there. Nothing that is mounted below is looked into.
    """
    device = os.fstat(top).st_dev
    stack: list[tuple[int, bytes, Iterator[bytes]]] = []
    try:
        stack.append((os.dup(top), b"", _names(top, b"", tell)))
        while stack:
            at, above, names = stack[-1]
            name = next(names, None)
            if name is None:
                os.close(stack.pop()[0])
                continue
            path = above + name
            try:
                facts = os.stat(name, dir_fd=at, follow_symlinks=False)
                if why := _refusal(facts, path, device, len(stack)):
                    tell(path, why)
                elif stat.S_ISDIR(facts.st_mode):
                    below = os.open(name, DIRECTORY, dir_fd=at)
                    stack.append((below, path + b"/", _names(below, path, tell)))
                    yield Seen(path, at, name, os.fstat(below), below)
                else:
                    yield Seen(path, at, name, facts)
            except OSError as error:
                if not vanished(error):
                    tell(path, f"left out: {error.strerror}")
    finally:
        for descriptor, *_ in stack:
            os.close(descriptor)


def vanished(error: OSError) -> bool:
    """Whether it is gone, or something else by now."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)


def _names(directory: int, path: bytes, tell: Callable[[bytes, str], None]) -> Iterator[bytes]:
    found: list[bytes] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if len(found) == MOST_NAMES:
                tell(path, f"more than {MOST_NAMES} names: the rest of them is left out")
                break
            found.append(os.fsencode(entry.name))
    return iter(sorted(found))


def _refusal(facts: os.stat_result, path: bytes, device: int, depth: int) -> str | None:
    kind = stat.S_IFMT(facts.st_mode)
    if kind not in _PLAIN:
        return f"left out: {_OTHERS.get(kind, 'of no kind that a backup holds')}"
    if facts.st_dev != device:
        return "left out: another file system is mounted there"
    if depth > DEPTH:
        return f"left out: below {DEPTH} directories"
    if len(path) > PATH_MAX:
        return f"left out: its path is longer than {PATH_MAX} bytes"
    return None


class Packer:
    """Makes members of what `walk` finds in the root of *one*; *prefix* goes ahead of their paths.

    Owners are told from the beginning of its user range on, so that any other will do.
    """

    def __init__(self, one: Instance, prefix: bytes, tell: Callable[[bytes, str], None]) -> None:
        self._base, self._prefix, self._tell = one.base, prefix, tell
        self._highest = RANGE - 1 if one.users is Users.PRIVATE else (1 << 32) - 2
        # without root everything is the user's who runs this, and tells nothing
        self._owns = os.geteuid() == 0
        self._linked: dict[tuple[int, int], tuple[bytes, int]] = {}

    def stranger(self, facts: os.stat_result) -> str | None:
        """Whose it is, if nobody's inside: it would be somebody else's on another host."""
        if not self._owns:
            return None
        uid, gid = facts.st_uid - self._base, facts.st_gid - self._base
        if 0 <= uid <= self._highest and 0 <= gid <= self._highest:
            return None
        return (
            f"belongs to {facts.st_uid}:{facts.st_gid} of the host, not to a user of the instance"
        )

    def add(self, seen: Seen, put: Callable[[Member, Iterator[bytes]], None]) -> None:
        """Give *put* the member of what was met, and its content."""
        kind = _PLAIN[stat.S_IFMT(seen.facts.st_mode)]
        if kind is Kind.FILE:
            self._file(seen, put)
            return
        member = self._member(seen.path, kind, seen.facts)
        if kind is Kind.SYMLINK:
            member = replace(member, target=os.readlink(seen.name, dir_fd=seen.at))
        elif seen.below is not None:
            member = self._with_attributes(member, seen.below)
        put(member, iter(()))

    def top(self, root: int) -> Member:
        """The member of the root itself."""
        return self._with_attributes(self._member(b"", Kind.DIRECTORY, os.fstat(root)), root)

    def _member(self, path: bytes, kind: Kind, facts: os.stat_result) -> Member:
        if why := self.stranger(facts):
            raise ParcelError(f"/{shown(path)} {why}")
        mode = stat.S_IMODE(facts.st_mode)
        if kind is Kind.SYMLINK:
            mode = 0o777
        elif mode & ~MODE_MASK:
            self._tell(path, f"mode {mode:04o} becomes {mode & MODE_MASK:04o}")
        return Member(
            kind=kind,
            path=(self._prefix + path).removesuffix(b"/"),
            mode=mode & MODE_MASK,
            uid=facts.st_uid - self._base if self._owns else 0,
            gid=facts.st_gid - self._base if self._owns else 0,
            mtime=facts.st_mtime_ns,
        )

    def _file(self, seen: Seen, put: Callable[[Member, Iterator[bytes]], None]) -> None:
        file = os.open(seen.name, _FILE, dir_fd=seen.at)
        try:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode):
                return  # it was one a moment ago
            member = self._member(seen.path, Kind.FILE, facts)
            if facts.st_nlink > 1:
                key, now = (facts.st_dev, facts.st_ino), (member.path, facts.st_mtime_ns)
                first, then = self._linked.setdefault(key, now)
                # another time: it was written to, or its number is another file's by now
                if first != member.path and then == facts.st_mtime_ns:
                    put(replace(member, kind=Kind.HARD_LINK, target=first), iter(()))
                    return
                member = replace(member, linked=first == member.path)
            member = self._with_attributes(member, file)
            extents = _extents(file, facts)
            if extents is None:
                extents = ((0, facts.st_size),)
                member = replace(member, size=facts.st_size)
            else:
                size = sum(size for _offset, size in extents)
                member = replace(member, size=size, extents=extents, length=facts.st_size)
            put(member, _content(file, extents, seen.path))
        except _TooManyPartsError:
            self._tell(seen.path, f"left out: a sparse file of more than {MAX_EXTENTS} parts")
        finally:
            os.close(file)

    def _with_attributes(self, member: Member, descriptor: int) -> Member:
        found = []
        path = member.path.removeprefix(self._prefix)
        try:
            names = os.listxattr(descriptor)
        except OSError:
            return member  # a file system without
        for name in sorted(map(os.fsencode, names)):
            with suppress(OSError):  # gone since
                value = os.getxattr(descriptor, name)
                if name.startswith(b"user."):
                    found.append((name, value))
                elif name in acl.NAMES:
                    try:
                        found.append((name, self._list(value)))
                    except ValueError as error:
                        self._tell(path, f"its access control list is left out: {error}")
                elif name != b"security.selinux":  # a label of this host's policy
                    self._tell(path, f"its attribute {shown(name)} is left out")
        try:
            whole = replace(member, attributes=tuple(found))
            head(whole)
        except ParcelError as error:
            self._tell(path, f"its attributes are left out: {error}")
            return member
        return whole

    def _list(self, value: bytes) -> bytes:
        by = -self._base if self._owns else 0
        return acl.shifted(value, by, highest=self._highest)


class _TooManyPartsError(Exception):
    pass


def _extents(file: int, facts: os.stat_result) -> tuple[tuple[int, int], ...] | None:
    """Where a file with holes has content (lseek(2), SEEK_DATA); None for one without."""
    length = facts.st_size
    if facts.st_blocks * 512 >= length:
        return None
    found: list[tuple[int, int]] = []
    end = 0
    while end < length:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        # GNU tar begins a block of its own for each; only the last may end within one
        end = min(start + -(-(end - start) // BLOCK) * BLOCK, length)
        if start >= end:
            break  # it was cut meanwhile
        if found and sum(found[-1]) == start:
            start = found.pop()[0]
        found.append((start, end - start))
        if len(found) > MAX_EXTENTS:
            raise _TooManyPartsError
    return None if found == [(0, length)] else tuple(found)


def _content(file: int, extents: tuple[tuple[int, int], ...], path: bytes) -> Iterator[bytes]:
    """Exactly that much, with zeros for what was cut off meanwhile."""
    for offset, size in extents:
        at, end = offset, offset + size
        while at < end:
            most = min(_PIECE, end - at)
            try:
                piece = os.pread(file, most, at) or bytes(most)
            except OSError as error:
                # its header is written: it cannot be left out any more
                raise ParcelError(f"/{shown(path)}: {error.strerror}") from error
            yield piece
            at += len(piece)
