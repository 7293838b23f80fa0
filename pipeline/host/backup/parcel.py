"""The tar of a backup: its members, and how they are written. `unparcel` reads them back.

POSIX.1-2001 pax (pax(1)), so that `tar --zstd -tf` of any system lists it; sparse files as GNU tar
1.0 writes them, extended attributes as star and GNU tar do. Unlike an image's tar it is written as
a stream, keeps times to the nanosecond and names of any bytes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from pipeline import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 512
# The mode bits that a member may have: no setuid, no setgid, as in an image.
MODE_MASK = 0o1777
MAX_HEADER = 1 << 20  # bytes of one member's pax records: its attributes, above all
MAX_EXTENTS = 1 << 17  # of a sparse file
_BILLION = 10**9
ATTRIBUTE = b"SCHILY.xattr."


class ParcelError(Exception):
    """What is wrong with the bytes of a backup, without its name."""


class Kind(Enum):
    """What a member is, by tar's type flag."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    DIRECTORY = b"5"
    PIPE = b"6"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member.

    *mtime* is in ns since 1970, *size* the bytes of content that are in the archive. A sparse file
    has its content at *extents* (offset, bytes) and is *length* bytes long with its holes. *target*
    is a link's, a hard link's the path of a member before it. *attributes* are name and value of
    each extended one. *linked*: a file to which hard links may follow.
    """

    kind: Kind
    path: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""
    attributes: tuple[tuple[bytes, bytes], ...] = ()
    extents: tuple[tuple[int, int], ...] | None = None
    length: int = 0
    linked: bool = False


class Sink(Protocol):
    """Where bytes go."""

    def write(self, piece: bytes, /) -> object: ...


def shown(name: bytes) -> str:
    """A name of any bytes as it may stand in a message, its first 200 characters."""
    return errors.shown(os.fsdecode(name), most=200)


class Writer:
    """Writes members one after the other to *sink*."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._sum = sink, hashlib.sha256()

    @property
    def digest(self) -> str:
        """Hex sha256 of all bytes so far."""
        return self._sum.hexdigest()

    def add(self, member: Member, content: Iterable[bytes] = ()) -> None:
        """Write *member* with *content*, which must have as many bytes as it says.

        Raises ParcelError before anything is written if its names and attributes are too long.
        """
        self._write(head(member))
        for piece in content:
            self._write(piece)
        self._write(b"\0" * (-member.size % BLOCK))

    def end(self) -> None:
        """Write tar's end mark."""
        self._write(b"\0" * (2 * BLOCK))

    def _write(self, piece: bytes) -> None:
        self._sum.update(piece)
        self._sink.write(piece)


def head(member: Member) -> bytes:
    """All that is written ahead of the member's content: records, header, and a sparse file's map.

    Raises ParcelError if it is too long.
    """
    path = member.path + (b"/" if member.kind is Kind.DIRECTORY else b"")
    table = b"" if member.extents is None else _table(member.extents, member.length)
    size = len(table) + member.size
    body = _records(member, path, size)
    if len(body) > MAX_HEADER:
        raise ParcelError(f"{len(body)} bytes of names and attributes, at most {MAX_HEADER}")
    owner = (member.uid, member.gid)
    return b"".join(
        (
            _header(b"x", b"pax", 0o600, (0, 0), len(body), b""),
            body + b"\0" * (-len(body) % BLOCK),
            _header(member.kind.value, path, member.mode, owner, size, member.target),
            table,
        )
    )


def _records(member: Member, path: bytes, size: int) -> bytes:
    """The pax records: the time, and what does not fit into the header."""
    found = [(b"mtime", _time(member.mtime))]
    for key, name in ((b"path", path), (b"linkpath", member.target)):
        if len(name) > 100 or not name.isascii():
            found.append((key, name))
    for key, number, limit in (
        (b"size", size, 8**11),
        (b"uid", member.uid, 8**7),
        (b"gid", member.gid, 8**7),
    ):
        if number >= limit:
            found.append((key, b"%d" % number))
    if member.extents is not None:
        found += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
        found += [(b"GNU.sparse.name", path), (b"GNU.sparse.realsize", b"%d" % member.length)]
    if member.linked:
        found.append((b"NIFTY.linked", b"1"))
    if not all(_is_utf8(value) for _key, value in found):
        found.insert(0, (b"hdrcharset", b"BINARY"))
    found += [(ATTRIBUTE + quoted(name), value) for name, value in member.attributes]
    return b"".join(_record(key, value) for key, value in found)


def _header(
    flag: bytes, path: bytes, mode: int, owner: tuple[int, int], size: int, target: bytes
) -> bytes:
    """A ustar header (POSIX.1-1988); what does not fit is cut, and stands in the records."""
    uid, gid = (number % 8**7 for number in owner)
    before = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        *(path[:100].ljust(100, b"\0"), mode, uid, gid, size % 8**11, 0),
    )
    after = (flag + target[:100].ljust(100, b"\0") + b"ustar\x0000").ljust(BLOCK - 156, b"\0")
    total = sum(before) + sum(after) + 8 * ord(" ")
    return before + b"%06o\0 " % total + after


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE` and a newline; the length counts its own digits (pax(1))."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _time(time: int) -> bytes:
    seconds, rest = divmod(abs(time), _BILLION)
    return b"%b%d.%09d" % (b"-" if time < 0 else b"", seconds, rest)


def quoted(name: bytes) -> bytes:
    """An attribute's name as a record's key, as GNU tar does: an equals sign would end it."""
    return name.replace(b"%", b"%25").replace(b"=", b"%3D").replace(b"\n", b"%0A")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _table(extents: tuple[tuple[int, int], ...], length: int) -> bytes:
    """The map in front of a sparse file's content: numbers in lines, padded to a block."""
    pairs = list(extents)
    if not pairs or sum(pairs[-1]) != length:
        pairs.append((length, 0))  # a hole at the end
    text = b"%d\n" % len(pairs) + b"".join(b"%d\n%d\n" % pair for pair in pairs)
    return text + b"\0" * (-len(text) % BLOCK)
