"""Reads the tar of a backup, strictly: what `parcel` would not have written is refused.

Each member is read within limits and then written once more; bytes that differ are an error. So
there is one description of the format, and no second way to say a thing that a reader could take
for something else.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pipeline.host.backup.parcel import (
    ATTRIBUTE,
    BLOCK,
    MAX_EXTENTS,
    MAX_HEADER,
    MODE_MASK,
    Kind,
    Member,
    ParcelError,
    head,
    shown,
)
from pipeline.image.rootfs import NAME_MAX, PATH_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 20
_MAX_SIZE = (1 << 63) - 1  # of a file on Linux
_MAX_ID = (1 << 32) - 2  # the one above means "none"
_TIME = re.compile(rb"(-?)([0-9]{1,11})\.([0-9]{9})")
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\n]+)=")
_OCTAL = re.compile(rb"[0-7]+\0")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_STRANGE = "damaged, or not written by this program"
_REFUSED = {b"3": "a character device", b"4": "a block device"}
_ATTRIBUTED = (Kind.FILE, Kind.DIRECTORY)
_LINKS = (Kind.SYMLINK, Kind.HARD_LINK)


class Source(Protocol):
    """Where bytes come from: at most that many, none at the end."""

    def read(self, most: int, /) -> bytes: ...


class Reader:
    """Reads members one after the other from *source*. Its methods raise ParcelError."""

    def __init__(self, source: Source) -> None:
        self._source, self._sum = source, hashlib.sha256()
        self._left = self._padding = 0
        self._before = ""

    @property
    def digest_before(self) -> str:
        """Hex sha256 of all that came before the member that `next` gave."""
        return self._before

    def next(self) -> Member | None:
        """The next member, its content not yet read; None at the end of the archive."""
        for _piece in self.content():
            pass
        self._before = self._sum.hexdigest()
        first = self._exactly(BLOCK)
        if not any(first):
            self._end()
            return None
        size = _octal(first, 124, 136)
        if first[156:157] != b"x" or size > MAX_HEADER:
            raise ParcelError(f"a member without its records: {_STRANGE}")
        records = self._exactly(size + -size % BLOCK)
        header = self._exactly(BLOCK)
        said = _records(records[:size])
        member = _member(header, said)
        table = b""
        if b"GNU.sparse.realsize" in said:
            member, table = self._sparse(member, said[b"GNU.sparse.realsize"])
        if head(member) != first + records + header + table:
            raise ParcelError(f"{shown(member.path)}: {_STRANGE}")
        self._left, self._padding = member.size, -member.size % BLOCK
        return member

    def content(self) -> Iterator[bytes]:
        """What is left of the member's content, in pieces of at most 1 MiB."""
        while self._left:
            piece = self._exactly(min(self._left, _PIECE))
            self._left -= len(piece)
            yield piece
        padding, self._padding = self._padding, 0
        if any(self._exactly(padding)):
            raise ParcelError(f"bytes between two members: {_STRANGE}")

    def _sparse(self, member: Member, length: bytes) -> tuple[Member, bytes]:
        """The member as its map has it, and the bytes of that."""
        text = bytearray()
        wanted, newlines = 1, 0
        # a number is at most 19 digits and a newline
        while newlines < wanted and len(text) <= 20 * wanted + BLOCK:
            block = self._exactly(BLOCK)
            text += block
            newlines += block.count(b"\n")
            if wanted == 1 and newlines:
                wanted += 2 * _decimal(bytes(text).partition(b"\n")[0], MAX_EXTENTS + 1)
        numbers = [_decimal(line, _MAX_SIZE) for line in bytes(text).split(b"\n")[1:wanted]]
        if len(numbers) != wanted - 1:
            raise ParcelError(f"{shown(member.path)}: a sparse file without its map")
        pairs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        whole = _decimal(length, _MAX_SIZE)
        end = 0
        for offset, size in pairs:
            if offset < end or offset + size > whole:
                raise ParcelError(f"{shown(member.path)}: parts that overlap, or pass its end")
            end = offset + size
        extents = pairs[:-1] if pairs and pairs[-1] == (whole, 0) else pairs
        sizes = sum(size for _offset, size in extents)
        if sizes != member.size - len(text):
            raise ParcelError(f"{shown(member.path)}: its parts are not its content")
        return replace(member, size=sizes, extents=extents, length=whole), bytes(text)

    def _end(self) -> None:
        if any(self._exactly(BLOCK)) or self._source.read(1):
            raise ParcelError("something follows its end")

    def _exactly(self, size: int) -> bytes:
        pieces = []
        left = size
        while left:
            piece = self._source.read(left)
            if not piece:
                raise ParcelError("it ends too early: the rest is missing")
            pieces.append(piece)
            left -= len(piece)
        whole = b"".join(pieces)
        self._sum.update(whole)
        return whole


def _records(body: bytes) -> dict[bytes, bytes]:
    """Key and value of each pax record; of two of one kind the last, which is refused later."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        start = _RECORD.match(body, at)
        end = at + int(start[1]) if start else at
        if start is None or not start.end() < end <= len(body):
            raise ParcelError(f"a record's length is wrong: {_STRANGE}")
        found[start[2]] = body[start.end() : end - 1]
        at = end
    return found


def _member(header: bytes, said: dict[bytes, bytes]) -> Member:
    """What a header and its records say, within what a member may be."""
    path = said.get(b"path", header[:100].rstrip(b"\0"))
    try:
        kind = Kind(header[156:157])
    except ValueError:
        what = _REFUSED.get(header[156:157], f"of the type {shown(header[156:157])}")
        raise ParcelError(f"{shown(path)} is {what}, which no backup holds") from None
    path = path.removesuffix(b"/") if kind is Kind.DIRECTORY else path
    size = _decimal(said.get(b"size"), _MAX_SIZE, _octal(header, 124, 136))
    mode = _octal(header, 100, 108)
    target = said.get(b"linkpath", header[157:257].rstrip(b"\0"))
    attributes = tuple(
        (_unquoted(key.removeprefix(ATTRIBUTE)), value)
        for key, value in said.items()
        if key.startswith(ATTRIBUTE)
    )
    _check_path(path)
    for is_so, why in (
        (mode & ~MODE_MASK, f"mode {mode:o} has bits outside {MODE_MASK:o} (setuid?)"),
        (size and kind is not Kind.FILE, "has content and is no file"),
        (bool(target) != (kind in _LINKS), "a link without a target, or a target without a link"),
        (len(target) > PATH_MAX + NAME_MAX or b"\0" in target, "a target that no link can have"),
        (attributes and kind not in _ATTRIBUTED, "attributes of what can have none"),
    ):
        if is_so:
            raise ParcelError(f"{shown(path)}: {why}")
    return Member(
        kind=kind,
        path=path,
        mode=mode,
        uid=_decimal(said.get(b"uid"), _MAX_ID, _octal(header, 108, 116)),
        gid=_decimal(said.get(b"gid"), _MAX_ID, _octal(header, 116, 124)),
        mtime=_time(said),
        size=size,
        target=target,
        attributes=attributes,
        linked=b"NIFTY.linked" in said,
    )


def _check_path(path: bytes) -> None:
    parts = path.split(b"/")
    if b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise ParcelError(f"{shown(path)!r} is not a clean relative path")
    if len(path) > PATH_MAX + NAME_MAX or any(len(part) > NAME_MAX for part in parts):
        raise ParcelError(f"{shown(path)}: longer than {NAME_MAX} bytes a name, {PATH_MAX} in all")


def _octal(header: bytes, start: int, end: int) -> int:
    if not _OCTAL.fullmatch(header, start, end):
        raise ParcelError(f"a header that is none: {_STRANGE}")
    return int(header[start : end - 1], 8)


def _decimal(text: bytes | None, most: int, without: int = 0) -> int:
    if text is None:
        return without
    if not _DECIMAL.fullmatch(text) or int(text) > most:
        raise ParcelError(f"{shown(text[:40])!r} where a number up to {most} should be")
    return int(text)


def _time(said: dict[bytes, bytes]) -> int:
    found = _TIME.fullmatch(said.get(b"mtime", b""))
    if found is None:
        raise ParcelError(f"a member without its time: {_STRANGE}")
    time = int(found[2]) * 10**9 + int(found[3])
    return -time if found[1] else time


def _unquoted(name: bytes) -> bytes:
    return name.replace(b"%0A", b"\n").replace(b"%3D", b"=").replace(b"%25", b"%")
