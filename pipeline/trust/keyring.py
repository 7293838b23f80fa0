"""Who is trusted: the OpenPGP certificates of a keyring, binary or armored.

A keyring is the user's own word: what it says of its keys (how long they are good, whether they
are revoked) is read here; that a signature is theirs is for `verify` to check.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, readable, shown
from pipeline.trust import packets
from pipeline.trust.packets import PacketError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pipeline.trust.packets import Packet, Statement

LIMIT = 1 << 20

# Types of signatures (RFC 4880 section 5.2.1) and key flags (section 5.2.3.21).
_CERTIFICATIONS = (0x10, 0x11, 0x12, 0x13, 0x1F)
_BINDING, _KEY_REVOKED, _SUBKEY_REVOKED = 0x18, 0x20, 0x28
_MAY_SIGN = 0x02


class KeyringError(NiftyError):
    """A file that is no keyring, or one that holds what it should not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A primary key or a subkey; *fingerprint* in 40 upper-case hex digits.

    *expires* is None for one that does not; *ed25519* the 32 bytes of one of that kind.
    """

    fingerprint: str
    created: datetime
    ed25519: bytes | None = None
    expires: datetime | None = None
    may_sign: bool = False
    is_revoked: bool = False

    def is_issuer(self, issuer: str) -> bool:
        """Whether *issuer*, a fingerprint or a key id, is this key."""
        return len(issuer) in (16, 40) and self.fingerprint.endswith(issuer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A primary key, whose it is, its subkeys, and *binary*, all of it as it stood."""

    primary: Key
    users: tuple[str, ...]
    subkeys: tuple[Key, ...]
    binary: bytes

    @property
    def fingerprint(self) -> str:
        """That of the primary key, which names the certificate."""
        return self.primary.fingerprint

    @property
    def title(self) -> str:
        """Its first user and fingerprint, fit to be shown."""
        user = shown(self.users[0], most=80) if self.users else "nobody"
        return f"{user} ({self.fingerprint})"

    @property
    def signers(self) -> tuple[Key, ...]:
        """Its keys that may sign."""
        return tuple(key for key in (self.primary, *self.subkeys) if key.may_sign)

    def key_of(self, issuer: str) -> Key | None:
        """The key that *issuer*, a fingerprint or key id, names."""
        return next((k for k in (self.primary, *self.subkeys) if k.is_issuer(issuer)), None)

    def expiry(self, key: Key) -> datetime | None:
        """When *key* is no longer good: with its primary key at the latest."""
        ends = [end for end in (key.expires, self.primary.expires) if end is not None]
        return min(ends, default=None)

    def refusal(self, key: Key, now: datetime) -> str | None:
        """Why nothing that *key* signed is taken at *now*, in one line; None if it is good."""
        if self.primary.is_revoked:
            return f"{self.title} is revoked"
        if key.is_revoked:
            return f"the signing key {key.fingerprint} of {self.title} is revoked"
        end = self.expiry(key)
        if end is not None and now >= end:
            return f"the signing key {key.fingerprint} of {self.title} expired on {end:%Y-%m-%d}"
        if not key.may_sign:
            return f"the key {key.fingerprint} of {self.title} is not for signing"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Certificates that are trusted, and *name*, for messages."""

    name: str
    certificates: tuple[Certificate, ...]

    @property
    def binary(self) -> bytes:
        """All of them as gpgv and systemd-pull read them."""
        return b"".join(certificate.binary for certificate in self.certificates)

    @property
    def without_revoked(self) -> bytes:
        """As `binary`, without what is revoked: gpgv and systemd-pull heed no revocation.

        gpgv 2.2 says REVKEYSIG, "Good signature", and returns 0.
        """
        kept = (one for one in self.certificates if not one.primary.is_revoked)
        return b"".join(map(_without_revoked, kept))

    def find(self, issuer: str) -> tuple[Certificate, Key] | None:
        """Whose key *issuer* is, a fingerprint or key id in upper-case hex digits."""
        for certificate in self.certificates:
            if key := certificate.key_of(issuer):
                return certificate, key
        return None


def load(path: Path) -> Keyring:
    """The keyring in the file *path*, at most LIMIT bytes. Raises KeyringError."""
    try:
        content = files.read(path.resolve(), limit=LIMIT)
    except OSError as error:
        raise KeyringError(f"{path}: {error.strerror}", hint=readable(error)) from error
    return read(content, name=str(path))


def read(content: bytes, *, name: str) -> Keyring:
    """The certificates in *content*, binary or armored; *name* is for messages.

    Raises KeyringError: also for a secret key, which belongs into no keyring.
    """
    try:
        found = packets.packets(content)
        is_secret = any(one.tag in (packets.SECRET_KEY, packets.SECRET_SUBKEY) for one in found)
        certificates = () if is_secret else tuple(map(_certificate, _split(found)))
    except PacketError as error:
        raise KeyringError(f"{name}: no OpenPGP keyring: {error.message}") from error
    if is_secret:
        raise KeyringError(
            f"{name}: holds a secret key, which belongs into no keyring",
            hint="'gpg --export FINGERPRINT' exports the certificate alone",
        )
    return Keyring(name=name, certificates=certificates)


def _without_revoked(certificate: Certificate) -> bytes:
    revoked = {key.fingerprint for key in certificate.subkeys if key.is_revoked}
    made, is_kept = b"", True
    for one in packets.packets(certificate.binary):
        if one.tag == packets.PUBLIC_SUBKEY:
            is_kept = fingerprint(one.body) not in revoked
        made += one.raw if is_kept else b""
    return made


def _split(found: Iterable[Packet]) -> list[list[Packet]]:
    """The packets of each certificate; the first is its primary key."""
    groups: list[list[Packet]] = []
    for one in found:
        if one.tag == packets.PUBLIC_KEY:
            groups.append([])
        if not groups:
            raise PacketError("does not begin with a key")
        groups[-1].append(one)
    return groups


def _certificate(group: Iterable[Packet]) -> Certificate:
    """What *group*, the packets of one certificate, says. Raises PacketError."""
    keys: list[Key] = []
    users: list[str] = []
    said: list[list[Statement]] = []
    raw = []
    for one in group:
        raw.append(one.raw)
        match one.tag:
            case packets.PUBLIC_KEY | packets.PUBLIC_SUBKEY:
                keys.append(_key(one.body))
                said.append([])
            case packets.USER:
                users.append(one.body.decode(errors="surrogateescape"))
            case packets.SIGNATURE if one.body[:1] == b"\4":  # others bind no key of version 4
                said[-1].append(packets.statement(one.body))
    primary, *subkeys = keys
    return Certificate(
        primary=_settled(primary, said[0], primary, _CERTIFICATIONS),
        users=tuple(users),
        subkeys=tuple(
            _settled(key, statements, primary, (_BINDING,))
            for key, statements in zip(subkeys, said[1:], strict=True)
        ),
        binary=b"".join(raw),
    )


def fingerprint(body: bytes) -> str:
    """That of the key whose public packet has *body*: 40 upper-case hex digits."""
    hashed = b"\x99" + len(body).to_bytes(2) + body
    return hashlib.sha1(hashed).hexdigest().upper()  # noqa: S324 (RFC 4880 section 12.2 says so)


def _key(body: bytes) -> Key:
    if body[:1] != b"\4" or len(body) < 6:
        raise PacketError(f"a key of version {body[0] if body else '?'}, only 4 is read")
    if len(body) > 0xFFFF:  # its length is hashed in two octets
        raise PacketError(f"a key of {len(body)} bytes")
    return Key(
        fingerprint=fingerprint(body),
        created=_moment(int.from_bytes(body[1:5])),
        ed25519=packets.ed25519(body),
    )


def _settled(key: Key, said: list[Statement], primary: Key, kinds: tuple[int, ...]) -> Key:
    """*key* with what its owner said of it last."""
    own = [one for one in said if primary.is_issuer(one.issuer)]
    revoked = any(one.kind in (_KEY_REVOKED, _SUBKEY_REVOKED) for one in own)
    bindings = [one for one in own if one.kind in kinds]
    if not bindings:
        return replace(key, is_revoked=revoked)
    # of one second, what stands last: it was added to the others
    last = max(reversed(bindings), key=lambda one: one.created)
    flags = next((one.flags for one in bindings if one.flags), 0) if not last.flags else last.flags
    end = int(key.created.timestamp()) + last.lifetime if last.lifetime else None
    return replace(
        key,
        expires=None if end is None else _moment(end),
        may_sign=bool(flags & _MAY_SIGN),
        is_revoked=revoked,
    )


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
