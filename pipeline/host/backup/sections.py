"""Reads a backup from end to end and gives each part of it to whom it concerns.

Nothing is taken for granted: the parts come in their order and are sealed by a digest at the end,
or ParcelError says what is not so.
"""

from __future__ import annotations

import io
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import NiftyError
from pipeline.host.backup import inventory
from pipeline.host.backup.parcel import Kind, Member, ParcelError, shown
from pipeline.host.backup.save import WINDOW
from pipeline.host.backup.unpacking import Order
from pipeline.host.backup.unparcel import Reader
from pipeline.image.archive import DEFAULT_LIMITS
from pipeline.progress import bar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from pipeline.host.backup.inventory import Inventory
    from pipeline.host.state.records import Instance
    from pipeline.progress import Step

_BUFFER = 1 << 20
_MAGIC = b"\x28\xb5\x2f\xfd"
_HINT = "fetch the file once more, or make another backup: sha256sum tells whether it is the same"


class RestoreError(NiftyError):
    """A file that is no backup, is damaged, or not safe to restore; nothing was changed."""


class Visitor(Protocol):
    """Whom the parts of a backup are given to, in the order of these methods."""

    def image(self, digest: str, archive: bytes) -> None:
        """The archive of an image; nobody has looked into it."""

    def key(self, text: bytes) -> None:
        """The fleet's private key."""

    def begin(self, one: Instance) -> None:
        """The root of *one* begins."""

    def member(self, member: Member, parts: list[bytes], content: Iterator[bytes]) -> None:
        """Something in that root, with the parts of its path; the root itself has none."""

    def end(self, one: Instance) -> None:
        """The root of *one* is complete."""


@dataclass(frozen=True, slots=True)
class Backup:
    """The backup in the open *stream*, called *name*; it can be read as often as one likes."""

    stream: BinaryIO
    name: str

    def inventory(self) -> Inventory:
        """What it says it holds. Raises RestoreError."""
        with self._reading(None) as reader:
            return inventory.decode(_whole(reader, inventory.NAME, inventory.MAX_BYTES))

    def read(self, visitor: Visitor, title: str) -> str:
        """Give everything to *visitor*; the digest it is sealed with. Raises RestoreError.

        *title* is the progress bar's.
        """
        size = os.fstat(self.stream.fileno()).st_size
        with bar(title, size, unit="bytes") as step, self._reading(step) as reader:
            listed = inventory.decode(_whole(reader, inventory.NAME, inventory.MAX_BYTES))
            return _follow(reader, listed, visitor)

    @contextmanager
    def _reading(self, step: Step | None) -> Iterator[Reader]:
        import zstandard  # noqa: PLC0415 (as in archive)

        self.stream.seek(0)
        try:
            _check_magic(self.stream)
            decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW)
            source: Any = _Watched(self.stream, step)  # all of a file that is asked for
            with decompressor.stream_reader(source, read_across_frames=True, closefd=False) as raw:
                yield Reader(io.BufferedReader(raw, _BUFFER))
        except (ParcelError, zstandard.ZstdError) as error:
            raise RestoreError(f"{self.name}: {error}", hint=_HINT) from None


@contextmanager
def opened(path: Path) -> Iterator[Backup]:
    """The backup *path*; other files may get its name meanwhile. Raises RestoreError."""
    # without O_NONBLOCK a pipe would keep us for ever
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        file = os.open(path, flags)
    except OSError as error:
        raise RestoreError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise RestoreError(f"{path}: not a regular file; it is read twice, so give one")
    with open(file, "rb") as stream:  # noqa: PTH123 (a descriptor has no path)
        yield Backup(stream, str(path))


class _Watched:
    """A file whose reader is told how far it has come."""

    def __init__(self, stream: BinaryIO, step: Step | None) -> None:
        self._stream, self._step = stream, step

    def read(self, most: int = -1) -> bytes:
        piece = self._stream.read(most)
        if self._step:
            self._step(len(piece))
        return piece


def _check_magic(stream: BinaryIO) -> None:
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise ParcelError("not a backup of this program")
    stream.seek(0)


def _follow(reader: Reader, listed: Inventory, visitor: Visitor) -> str:
    for digest in listed.images:
        path = inventory.image_path(digest)
        visitor.image(digest, _whole(reader, path, DEFAULT_LIMITS.max_bytes))
    if listed.fleet_key:
        visitor.key(_whole(reader, inventory.FLEET_KEY, inventory.MAX_KEY))
    member = reader.next()
    for one in listed.instances:
        prefix = inventory.root_path(one.name)
        order = Order(one, prefix)
        if member is None or member.path + b"/" != prefix:
            raise ParcelError(f"the root of {one.name} is missing")
        visitor.begin(one)
        while member is not None and (member.path + b"/").startswith(prefix):
            visitor.member(member, order.check(member), reader.content())
            member = reader.next()
        visitor.end(one)
    return _seal(reader, member)


def _seal(reader: Reader, member: Member | None) -> str:
    digest = reader.digest_before
    if member is None or member.path != inventory.SEAL or member.size != len(digest) + 1:
        found = "its end" if member is None else shown(member.path)
        raise ParcelError(f"{found} where its digest should be")
    if b"".join(reader.content()) != f"{digest}\n".encode():
        raise ParcelError("damaged: its digest is not that of its content")
    if reader.next() is not None:
        raise ParcelError("something follows its digest")
    return digest


def _whole(reader: Reader, path: bytes, limit: int) -> bytes:
    member = reader.next()
    if member is None or member.path != path or member.kind is not Kind.FILE:
        found = "its end" if member is None else shown(member.path)
        raise ParcelError(f"{found} where {shown(path)} should be")
    if member.size > limit or member.extents is not None:
        raise ParcelError(f"{shown(path)}: {member.size} bytes, at most {limit} are read")
    return b"".join(reader.content())
