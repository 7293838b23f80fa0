"""Writes the same root over and over, as fast as system calls go.

What is the same for all instances is worked out once (`compile_entries`); `Writer.write` is then a
flat run of mkdir, open, write, close and symlink below the current directory. Most entries get
their owner by being made under the right file system user id (setfsuid(2)) instead of by a chown
each; the few that belong to others are made as root and handed over.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.image.rootfs import Directory, Entry, File, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FsUser:
    """The user and group that new files of this thread belong to (setfsuid(2), setfsgid(2)).

    Any but 0 also drops the capabilities to override permissions. Only root may use it.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        self._user, self._group = libc.setfsuid, libc.setfsgid
        for call in (self._user, self._group):
            call.argtypes, call.restype = (ctypes.c_uint,), ctypes.c_int

    def become(self, number: int) -> None:
        """User and group *number*; the calls cannot fail for root, and would not say so."""
        self._group(number)
        self._user(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Entries in the order in which they can be made; a file's content None is filled in.

    Each ends with its owner and group inside the instance.
    """

    directories: tuple[tuple[bytes, int, int, int], ...]
    links: tuple[tuple[bytes, bytes, int, int], ...]
    files: tuple[tuple[bytes, int, bytes | None, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A root, compiled: *plain* is root's and made first, *others* is handed to its owners.

    *personal* names the files whose contents `Writer.write` is given, in that order.
    """

    plain: _Part
    others: _Part
    personal: tuple[bytes, ...]


def compile_entries(entries: Sequence[Entry], personal: Sequence[str]) -> Template:
    """*entries* as a Template, parents first; *personal* are paths among them."""
    # without capabilities the range's root can make things only where it may write
    plain: set[str] = set()
    open_to_root = {""}
    for entry in entries:
        if entry.uid == entry.gid == 0 and entry.path.rpartition("/")[0] in open_to_root:
            plain.add(entry.path)
            if isinstance(entry, Directory) and entry.mode & 0o300 == 0o300:
                open_to_root.add(entry.path)
    return Template(
        plain=_part([entry for entry in entries if entry.path in plain], personal),
        others=_part([entry for entry in entries if entry.path not in plain], personal),
        personal=tuple(path.encode() for path in personal),
    )


def _part(entries: list[Entry], personal: Sequence[str]) -> _Part:
    return _Part(
        directories=tuple(
            (entry.path.encode(), entry.mode, entry.uid, entry.gid)
            for entry in entries
            if isinstance(entry, Directory)
        ),
        links=tuple(
            (entry.target.encode(), entry.path.encode(), entry.uid, entry.gid)
            for entry in entries
            if isinstance(entry, Symlink)
        ),
        files=tuple(
            (
                entry.path.encode(),
                entry.mode,
                None if entry.path in personal else entry.content,
                entry.uid,
                entry.gid,
            )
            for entry in entries
            if isinstance(entry, File)
        ),
    )


class Writer:
    """Writes roots of one template. Changes the process's umask: for a process of its own."""

    def __init__(self, template: Template) -> None:
        self._template = template
        # without root everything belongs to whoever runs this, as with tar(1)
        self._owns = os.geteuid() == 0
        self._user = FsUser()
        self._owners = tuple(_owners(template.others))
        os.umask(0)

    def write(self, contents: Sequence[bytes], base: int) -> None:
        """One root in the current directory, an empty one of *base*'s; *contents* as `personal`.

        Raises OSError; the file system user is root's again in any case.
        """
        personal = dict(zip(self._template.personal, contents, strict=True))
        switch = self._owns and base != 0
        if switch:
            self._user.become(base)
        try:
            _make(self._template.plain, personal)
        finally:
            if switch:
                self._user.become(0)
        _make(self._template.others, personal)
        if self._owns:
            for path, uid, gid in self._owners:
                os.chown(path, base + uid, base + gid, follow_symlinks=False)


def _make(part: _Part, personal: dict[bytes, bytes]) -> None:
    # the loop everything waits for: bound names, no calls of ours
    mkdir, symlink, opened, write, close = os.mkdir, os.symlink, os.open, os.write, os.close
    for path, mode, _uid, _gid in part.directories:
        mkdir(path, mode)
    for target, path, _uid, _gid in part.links:
        symlink(target, path)
    for path, mode, content, _uid, _gid in part.files:
        file = opened(path, _FLAGS, mode)
        try:
            if content is None:
                content = personal[path]  # noqa: PLW2901 (the loop everything waits for)
            # a full disk shows as a short write, then as an error
            while content:
                content = content[write(file, content) :]  # noqa: PLW2901 (as above)
        finally:
            close(file)


def _owners(part: _Part) -> Iterator[tuple[bytes, int, int]]:
    yield from ((path, uid, gid) for path, _mode, uid, gid in part.directories)
    yield from ((path, uid, gid) for _target, path, uid, gid in part.links)
    yield from ((path, uid, gid) for path, _mode, _content, uid, gid in part.files)
