"""Backups made by hand, member by member: right ones, and such as nobody should make."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import zstandard

from pipeline.host.backup import inventory
from pipeline.host.backup.parcel import Kind, Member, Writer
from pipeline.host.roots import identity
from pipeline.host.state import records
from pipeline.host.state.records import Instance, Users, base_of
from tests.support.host_image import HOST_KEY, make_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE = make_image()
PUBLIC = bytes(range(32))


def instance(suffix: str = "1", *, users: Users = Users.PRIVATE, port: int = 20001) -> Instance:
    """An instance that a deploy could have made."""
    return Instance(
        suffix=suffix,
        number=1,
        port=port,
        image=IMAGE.digest,
        users=users,
        base=base_of(1, users),
        host_key=identity.public_line(PUBLIC),
        machine_id="0123456789abcdef" * 2,
        login="luser",
    )


def directory(path: str | bytes, **fields: Any) -> tuple[Member, bytes]:
    """A directory below the root of nifty1."""
    return _member(Kind.DIRECTORY, path, {"mode": 0o755, **fields}), b""


def file(path: str | bytes, content: bytes = b"", **fields: Any) -> tuple[Member, bytes]:
    """A file below the root of nifty1."""
    return _member(Kind.FILE, path, {"size": len(content), **fields}), content


def link(path: str | bytes, target: bytes, **fields: Any) -> tuple[Member, bytes]:
    """A symbolic link below the root of nifty1."""
    return _member(Kind.SYMLINK, path, {"target": target, "mode": 0o777, **fields}), b""


def hard(path: str | bytes, target: bytes) -> tuple[Member, bytes]:
    """A hard link below the root of nifty1; the target is as it stands in the archive."""
    return _member(Kind.HARD_LINK, path, {"target": target}), b""


def _member(kind: Kind, path: str | bytes, fields: dict[str, Any]) -> Member:
    below = path.encode() if isinstance(path, str) else path
    return Member(kind=kind, path=b"roots/nifty1/" + below, **fields)


ROOT = (Member(kind=Kind.DIRECTORY, path=b"roots/nifty1", mode=0o755), b"")
PLAIN = (
    ROOT,
    directory("etc"),
    directory("etc/dropbear"),
    file(HOST_KEY, b"key", mode=0o600),
    directory("home"),
    file("home/notes", b"mine\n", uid=1000, gid=1000),
)


@dataclass
class Crafted:
    """A backup of one instance; change what is to be wrong."""

    members: tuple[tuple[Member, bytes], ...] = PLAIN
    instances: tuple[Instance, ...] = (instance(),)
    table: Callable[[dict[str, Any]], object] = field(default=lambda _table: None)
    text: bytes | None = None
    images: tuple[tuple[str, bytes], ...] = ((IMAGE.digest, IMAGE.archive),)
    key: bytes | None = None
    tar: Callable[[bytes], bytes] = field(default=lambda tar: tar)

    def unpacked(self) -> bytes:
        """The tar, as *tar* changes it once it is sealed."""
        sink = io.BytesIO()
        writer = Writer(sink)
        put(writer, inventory.NAME, self._inventory())
        for digest, archive in self.images:
            put(writer, inventory.image_path(digest), archive)
        if self.key is not None:
            put(writer, inventory.FLEET_KEY, self.key)
        for member, content in self.members:
            writer.add(member, [content])
        put(writer, inventory.SEAL, f"{writer.digest}\n".encode())
        writer.end()
        return self.tar(sink.getvalue())

    def write(self, folder: Path) -> Path:
        """The file, in *folder*."""
        path = folder / "crafted.tar.zst"
        path.write_bytes(zstandard.compress(self.unpacked()))
        return path

    def _inventory(self) -> bytes:
        if self.text is not None:
            return self.text
        table = {
            "format": 1,
            "program": "nifty",
            "images": sorted(digest for digest, _archive in self.images),
            "fleet_key": self.key is not None,
            "live": [],
            "instances": [json.loads(records.encode(one)) for one in self.instances],
        }
        self.table(table)
        return json.dumps(table).encode()


def put(writer: Writer, path: bytes, content: bytes) -> None:
    """Add a plain file of the archive itself."""
    writer.add(Member(kind=Kind.FILE, path=path, mode=0o600, size=len(content)), [content])
