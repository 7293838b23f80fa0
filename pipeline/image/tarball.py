"""Reads the members of a tar, strictly: what is not plainly right is refused.

Python's own tarfile is lenient by design (a damaged header ends the archive without a word) and,
on hostile input, some versions of it loop or recurse without end (CVE-2024-6232, CVE-2025-8194).
Formats: POSIX.1-2001 ustar and pax, and GNU's long names (tar(5)).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAGIC = b"ustar"
BLOCK = 512
# Long names and pax records of one member; a path is at most 4 KiB.
MAX_HEADER = 1 << 20

_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ")
_OCTAL = re.compile(rb"[0-7]*")
_UTF8 = "ISO-IR 10646 2000 UTF-8"


class TarballError(Exception):
    """What is wrong with a tar, without its name."""


class Kind(Enum):
    """The members an image can hold."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member as the tar names it; nothing about *path* or *target* was checked."""

    kind: Kind
    path: str
    target: str
    content: bytes
    mode: int
    uid: int
    gid: int


@dataclass(slots=True)
class _Extra:
    """What headers ahead of a member say of it: pax records, GNU's long names."""

    records: dict[str, str] = field(default_factory=dict)
    names: dict[bytes, str] = field(default_factory=dict)
    seen: set[bytes] = field(default_factory=set)

    def take(self, flag: bytes, body: bytes) -> None:
        # one of each at most: a chain of them is nothing that a writer makes
        if flag in self.seen:
            raise TarballError("two headers of one kind for the same member")
        self.seen.add(flag)
        if flag == b"x":
            self.records |= _records(body)
        else:
            self.names[flag] = _string(body)


class Pieces:
    """A tar that comes piece by piece; *most* is how many bytes of it are read."""

    def __init__(self, unpacked: Iterable[bytes], *, most: int) -> None:
        self._pieces = iter(unpacked)
        self._left = b""
        self._at = 0
        self._most = most
        self._taken = 0

    def take(self, size: int) -> bytes:
        """The next *size* bytes; fewer at the end. Raises TarballError beyond *most*."""
        self._taken += size
        if self._taken > self._most:
            raise TarballError(
                f"{size} bytes of a member: more than {self._most} bytes when unpacked: refused"
            )
        end = self._at + size
        if end <= len(self._left):
            taken, self._at = self._left[self._at : end], end
            return taken
        # grows in place; joining a list would hold everything twice
        whole = io.BytesIO()
        todo = size
        while todo and (self._at < len(self._left) or self._more()):
            part = memoryview(self._left)[self._at : self._at + todo]
            self._at += len(part)
            todo -= whole.write(part)
        return whole.getvalue()

    def rest(self) -> Iterator[bytes]:
        """All that is left."""
        yield self._left[self._at :]
        yield from self._pieces

    def _more(self) -> bool:
        self._left, self._at = next(self._pieces, b""), 0
        while not self._left:
            try:
                self._left = next(self._pieces)
            except StopIteration:
                return False
        return True


def members(tar: Pieces) -> Iterator[Member]:
    """The members of *tar* in order.

    Raises TarballError for a damaged or truncated tar, for bytes after its end, and for members
    that are neither directory, file nor symbolic link.
    """
    shared: dict[str, str] = {}
    extra = _Extra()
    while (header := tar.take(BLOCK)).strip(b"\0"):
        flag = _check(header)
        size = _number(header[124:136], "size")
        if flag in (b"x", b"g", b"L", b"K"):
            if size > MAX_HEADER:
                raise TarballError(f"a header of {size} bytes, at most {MAX_HEADER} are read")
            body = _body(tar, size)
            if flag == b"g":
                shared |= _records(body)
            else:
                extra.take(flag, body)
        else:
            said = {**shared, **extra.records}
            size = _decimal(said["size"], "size") if "size" in said else size
            yield _member(header, flag, said, extra.names, _body(tar, size))
            extra = _Extra()
    mark = tar.take(BLOCK)
    if len(header) + len(mark) < 2 * BLOCK or extra.seen:
        raise TarballError("corrupt or truncated: the tar has no end mark")
    if mark.strip(b"\0") or any(piece.strip(b"\0") for piece in tar.rest()):
        raise TarballError("something follows the tar's end mark")


def _check(header: bytes) -> bytes:
    """The type flag of a header that is one."""
    if len(header) < BLOCK:
        raise TarballError("corrupt or truncated: the tar has no end mark")
    if header[257:262] != MAGIC:
        raise TarballError("corrupt, or no tar: a header that is neither POSIX nor GNU")
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if _number(header[148:156], "checksum") != total:
        raise TarballError("corrupt: a header's checksum is wrong")
    return header[156:157]


def _body(tar: Pieces, size: int) -> bytes:
    """What a member holds, without what fills its last block."""
    body = tar.take(size)
    if len(body) < size or len(tar.take(-size % BLOCK)) < -size % BLOCK:
        raise TarballError(f"corrupt or truncated: {len(body)} of {size} bytes of a member")
    return body


def _member(
    header: bytes, flag: bytes, said: dict[str, str], names: dict[bytes, str], body: bytes
) -> Member:
    path = said.get("path") or names.get(b"L") or _name(header)
    target = said.get("linkpath") or names.get(b"K") or _string(header[157:257])
    kind = _KINDS.get(flag)
    if kind is None or any(key.startswith("GNU.sparse.") for key in said):
        what = _REFUSED.get(flag, f"a member of type {flag!r}") if kind is None else "a sparse file"
        raise TarballError(f"{path!r} is {what}, which an image does not hold")
    if body and kind is not Kind.FILE:
        raise TarballError(f"{path!r} is a {kind.value} with content")
    uid, gid = (
        _decimal(said[key], key) if key in said else _number(header[start : start + 8], key)
        for key, start in (("uid", 108), ("gid", 116))
    )
    # the type is in the flag: some writers have it in the mode too, as stat(2) does
    mode = _number(header[100:108], "mode") & 0o7777
    return Member(kind=kind, path=path, target=target, content=body, mode=mode, uid=uid, gid=gid)


_KINDS = {b"0": Kind.FILE, b"\0": Kind.FILE, b"2": Kind.SYMLINK, b"5": Kind.DIRECTORY}
_REFUSED = {
    b"1": "a hard link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"S": "a sparse file",
}


def _name(header: bytes) -> str:
    # GNU's header has other things where POSIX has the prefix
    prefix = _string(header[345:500]) if header[257:263] == b"ustar\0" else ""
    name = _string(header[:100])
    return f"{prefix}/{name}" if prefix else name


def _string(field_: bytes) -> str:
    text = field_.partition(b"\0")[0]
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise TarballError(f"a name that is not UTF-8: {text[:80]!r}") from None


def _number(field_: bytes, what: str) -> int:
    """Octal digits, or GNU's base 256 for what does not fit; never negative."""
    if field_[:1] == b"\x80":
        return int.from_bytes(field_[1:], "big")
    text = field_.strip(b" \0")
    if not _OCTAL.fullmatch(text):
        raise TarballError(f"{what}: {text!r} is not a number a tar can hold")
    return int(text or b"0", 8)


def _decimal(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise TarballError(f"{what}: {text[:40]!r} is not a number a tar can hold")
    return int(text)


def _records(body: bytes) -> dict[str, str]:
    """Pax records: each a line `LENGTH KEY=VALUE` with its own whole length in front (pax(1))."""
    found: dict[str, str] = {}
    at = 0
    while at < len(body):
        head = _RECORD.match(body, at)
        end = at + int(head[1]) if head else at
        if head is None or not head.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise TarballError("corrupt: a pax record's length is wrong")
        key, equals, value = body[head.end() : end - 1].partition(b"=")
        if not equals:
            raise TarballError("corrupt: a pax record without '='")
        at = end
        # others (times, user names, attributes) say nothing that an image keeps
        if key in _USED or key.startswith(b"GNU.sparse."):
            try:
                found[key.decode()] = value.decode()
            except UnicodeDecodeError:
                raise TarballError(f"a name that is not UTF-8: {value[:80]!r}") from None
    if found.pop("hdrcharset", _UTF8) != _UTF8:
        raise TarballError("names that are not UTF-8 (hdrcharset)")
    return found


_USED = (b"path", b"linkpath", b"size", b"uid", b"gid", b"hdrcharset")
