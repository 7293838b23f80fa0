"""Makes a root from the members of a backup, below a directory that nobody else can enter.

Members come with parents first and names in order, or are refused: so each is made by its bare name
in a directory that was just made and is still open, and no path is ever followed but a hard link's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import trees
from pipeline.host.backup import acl
from pipeline.host.backup.packing import DEPTH
from pipeline.host.backup.parcel import Kind, Member, ParcelError, shown
from pipeline.host.state.records import RANGE, Users
from pipeline.trees import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipeline.host.state.records import Instance

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Names that hard links may lead to are remembered; a root with more of them is not an instance's.
_MOST_LINKED = 1_000_000


class Order:
    """Checks that members of one root come as a walk gives them, and belong to somebody inside.

    Its methods raise ParcelError.
    """

    def __init__(self, one: Instance, prefix: bytes) -> None:
        self._prefix = prefix
        self._highest = RANGE - 1 if one.users is Users.PRIVATE else (1 << 32) - 2
        self._before: list[bytes] | None = None
        self._depth = 0  # parts of the directory that was met last, or that holds what was
        self._linked: set[bytes] = set()

    def check(self, member: Member) -> list[bytes]:
        """The parts of the member's path below the root; none for the root itself."""
        path = member.path
        if self._before is None:
            if path + b"/" != self._prefix or member.kind is not Kind.DIRECTORY:
                raise ParcelError(f"{shown(self._prefix)} is missing before {shown(path)}")
            parts: list[bytes] = []
        else:
            parts = self._below(path)
            parent = parts[:-1]
            if parts <= self._before or parent != self._before[: self._depth][: len(parent)]:
                raise ParcelError(
                    f"{shown(path)}: stands there twice, out of order or in no folder"
                )
            if len(parent) >= DEPTH:
                raise ParcelError(f"{shown(path)}: below {DEPTH} directories")
        self._before = parts
        self._depth = len(parts) if member.kind is Kind.DIRECTORY else max(len(parts) - 1, 0)
        if max(member.uid, member.gid) > self._highest:
            raise ParcelError(f"{shown(path)}: its owner is outside 0-{self._highest}")
        self._check_links(member)
        for name, value in member.attributes:
            _check_attribute(member.path, name, value, self._highest)
        return parts

    def _below(self, path: bytes) -> list[bytes]:
        if not path.startswith(self._prefix):
            raise ParcelError(f"{shown(path)}: expected below {shown(self._prefix)}")
        return path.removeprefix(self._prefix).split(b"/")

    def _check_links(self, member: Member) -> None:
        if member.linked:
            if len(self._linked) >= _MOST_LINKED:
                raise ParcelError(f"{shown(member.path)}: too many files with more than one name")
            self._linked.add(member.path)
        if member.kind is Kind.HARD_LINK and member.target not in self._linked:
            raise ParcelError(f"{shown(member.path)}: a hard link to what is no file before it")


def _check_attribute(path: bytes, name: bytes, value: bytes, highest: int) -> None:
    if name in acl.NAMES:
        try:
            acl.shifted(value, 0, highest=highest)
        except ValueError as error:
            raise ParcelError(f"{shown(path)}: {shown(name)}: {error}") from None
    elif not name.startswith(b"user.") or len(name) > 255 or b"\0" in name:
        raise ParcelError(f"{shown(path)}: an attribute {shown(name)}, which no backup holds")
    if len(value) > 1 << 16:
        raise ParcelError(f"{shown(path)}: {shown(name)}: an attribute of more than 64 KiB")


@dataclass(slots=True)
class _Open:
    """A directory that is being filled, and what it gets when nothing more is put into it."""

    descriptor: int
    member: Member


class Unpacker:
    """Makes the root of *one*, whose range begins at *base*, as *name* in the open directory *at*.

    Members are given to `put` once `Order` has passed them, in the same order. To be closed. The
    root itself is made by *make*, of the directory it goes to and its name.
    """

    def __init__(
        self,
        at: int,
        name: str,
        base: int,
        prefix: bytes,
        make: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._at, self._name, self._base, self._prefix = at, name, base, prefix
        self._make = make or _make
        # without root everything belongs to whoever runs this, as with tar(1)
        self._owns = os.geteuid() == 0
        self._open: list[_Open] = []

    def put(self, member: Member, parts: list[bytes], content: Iterable[bytes]) -> None:
        """Make it. Raises OSError."""
        if not parts:
            self._directory(self._at, os.fsencode(self._name), member, self._make)
            return
        while len(self._open) > len(parts):
            self._finish(self._open.pop())
        at, name = self._open[-1].descriptor, parts[-1]
        match member.kind:
            case Kind.DIRECTORY:
                self._directory(at, name, member, _make)
            case Kind.FILE:
                self._file(at, name, member, content)
            case Kind.HARD_LINK:
                self._link(at, name, member)
            case Kind.SYMLINK:
                os.symlink(member.target, name, dir_fd=at)
                self._own(at, name, member)
            case Kind.PIPE:
                os.mkfifo(name, 0o600, dir_fd=at)
                self._own(at, name, member)
                os.chmod(name, member.mode, dir_fd=at)
                _stamp(at, name, member)

    def end(self) -> None:
        """Nothing more comes: directories get their owners, modes and times. Raises OSError."""
        while self._open:
            self._finish(self._open.pop())

    def close(self) -> None:
        """Let go of it, finished or not."""
        for one in self._open:
            os.close(one.descriptor)
        self._open.clear()

    def _directory(
        self, at: int, name: bytes, member: Member, make: Callable[[int, bytes], None]
    ) -> None:
        make(at, name)
        self._open.append(_Open(os.open(name, DIRECTORY, dir_fd=at), member))

    def _finish(self, one: _Open) -> None:
        try:
            self._settle(one.descriptor, one.member)
        finally:
            os.close(one.descriptor)

    def _file(self, at: int, name: bytes, member: Member, content: Iterable[bytes]) -> None:
        file = os.open(name, _NEW, 0o600, dir_fd=at)
        try:
            if member.extents is None:
                for piece in content:
                    _write(file, piece)
            else:
                os.ftruncate(file, member.length)
                _fill(file, member.extents, content)
            self._settle(file, member)
        finally:
            os.close(file)

    def _link(self, at: int, name: bytes, member: Member) -> None:
        path = os.fsdecode(member.target.removeprefix(self._prefix))
        with trees.parent(self._open[0].descriptor, path) as (above, first):
            os.link(first, name, src_dir_fd=above, dst_dir_fd=at, follow_symlinks=False)

    def _own(self, at: int, name: bytes, member: Member) -> None:
        if self._owns:
            uid, gid = self._base + member.uid, self._base + member.gid
            os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)
        if member.kind is Kind.SYMLINK:
            _stamp(at, name, member)

    def _settle(self, descriptor: int, member: Member) -> None:
        if self._owns:
            os.fchown(descriptor, self._base + member.uid, self._base + member.gid)
        os.fchmod(descriptor, member.mode)
        for name, value in member.attributes:
            moved = value
            if name in acl.NAMES and self._owns:
                moved = acl.shifted(value, self._base, highest=(1 << 32) - 2)
            os.setxattr(descriptor, name, moved)
        os.utime(descriptor, ns=(member.mtime, member.mtime))


def _make(at: int, name: bytes) -> None:
    os.mkdir(name, 0o700, dir_fd=at)


def _stamp(at: int, name: bytes, member: Member) -> None:
    os.utime(name, ns=(member.mtime, member.mtime), dir_fd=at, follow_symlinks=False)


def _write(file: int, piece: bytes) -> None:
    # a full disk shows as a short write, then as an error
    while piece:
        piece = piece[os.write(file, piece) :]


def _fill(file: int, extents: Iterable[tuple[int, int]], content: Iterable[bytes]) -> None:
    """Write *content* to where a sparse file has it."""
    pieces = iter(content)
    piece = b""
    for offset, size in extents:
        at, end = offset, offset + size
        while at < end:
            piece = piece or next(pieces)
            done = os.pwrite(file, piece[: end - at], at)
            piece, at = piece[done:], at + done
