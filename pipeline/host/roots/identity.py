"""What makes an instance itself: host key, machine-id, names and port in its own files."""

from __future__ import annotations

import base64
import os
import re
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.image import inittab
from pipeline.image.rootfs import File, Rootfs

if TYPE_CHECKING:
    from pipeline.image.manifest import Manifest

KEY_TYPE = b"ssh-ed25519"
HOSTNAME = "etc/hostname"
HOSTS = "etc/hosts"
MACHINE_ID = "etc/machine-id"


class IdentityError(NiftyError):
    """An image that cannot be made somebody's own."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """An ed25519 key: the *seed*, which is the secret (RFC 8032), and its *public* half.

    Its repr keeps the secret out of logs and tracebacks.
    """

    seed: bytes
    public: bytes

    def __repr__(self) -> str:
        """The public half alone."""
        return f"HostKey({public_line(self.public)!r})"

    @property
    def dropbear(self) -> bytes:
        """Dropbear's own format (dropbear, signkey.c): type, then seed and public as one string."""
        return _string(KEY_TYPE) + _string(self.seed + self.public)


def _string(content: bytes) -> bytes:
    """RFC 4251, section 5."""
    return struct.pack(">I", len(content)) + content


def new_host_key() -> HostKey:
    """A fresh key."""
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 (heavy)

    seed = os.urandom(32)
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    return HostKey(seed, key.public_key().public_bytes_raw())


def public_of(blob: bytes) -> str | None:
    """The public line of a key in Dropbear's own format; None if *blob* is no whole ed25519 key."""
    head = _string(KEY_TYPE) + struct.pack(">I", 64)
    seed, public = blob[len(head) : len(head) + 32], blob[len(head) + 32 :]
    is_key = blob.startswith(head) and len(public) == 32 and any(seed) and any(public)
    return public_line(public) if is_key else None


def public_line(public: bytes) -> str:
    """`ssh-ed25519 AAAA…` of 32 public bytes, without a comment (RFC 8709)."""
    blob = _string(KEY_TYPE) + _string(public)
    return f"{KEY_TYPE.decode()} {base64.b64encode(blob).decode()}"


def new_machine_id() -> str:
    """32 hex digits (machine-id(5))."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """The files of an image that deploy fills in, ready to be filled fast.

    Texts are cut where the instance's own part goes.
    """

    hosts: tuple[bytes, ...]
    inittab: tuple[bytes, bytes]
    inittab_path: str
    host_key_path: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that `fill` gives, in its order."""
        return (HOSTNAME, HOSTS, self.inittab_path, MACHINE_ID, self.host_key_path)

    def fill(self, name: str, port: int, machine_id: str, key: HostKey) -> tuple[bytes, ...]:
        """The contents of `paths`, for the instance *name*."""
        host = name.encode()
        return (
            host + b"\n",
            host.join(self.hosts),
            b"%b%d%b" % (self.inittab[0], port, self.inittab[1]),
            machine_id.encode() + b"\n",
            key.dropbear,
        )


def blank(rootfs: Rootfs, manifest: Manifest) -> Blank:
    """What is to be filled in. Raises IdentityError or InittabError if the image has no such place.

    The name takes the place of the image's own name in /etc/hosts or, if that is not there, a line
    of its own.
    """
    generic = _text(rootfs, HOSTNAME).strip()
    hosts = _text(rootfs, HOSTS)
    pieces = re.split(rf"(?<!\S){re.escape(generic)}(?!\S)", hosts) if generic else [hosts]
    if len(pieces) == 1:
        pieces = [f"{hosts}127.0.1.1 ", "\n"]
    return Blank(
        hosts=tuple(piece.encode() for piece in pieces),
        inittab=_cut(_text(rootfs, manifest.ssh.file), manifest.ssh.place),
        inittab_path=manifest.ssh.file,
        host_key_path=manifest.ssh.host_key,
    )


def _cut(table: str, place: inittab.PortPlace) -> tuple[bytes, bytes]:
    """*table* before and after the port: found by structure once, not once for each instance."""
    number = 10**9
    while str(number) in table:
        number += 1
    before, after = inittab.with_port(table, place, number).split(str(number))
    return before.encode(), after.encode()


def _text(rootfs: Rootfs, path: str) -> str:
    entry = rootfs.find(path)
    if not isinstance(entry, File):
        raise IdentityError(f"the image has no file /{path}")
    try:
        return entry.content.decode()
    except UnicodeDecodeError as error:
        raise IdentityError(f"/{path} of the image is not UTF-8: {error}") from error
