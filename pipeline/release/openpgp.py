"""Makes OpenPGP keys: a primary key that only certifies, and a signing key of shorter life.

Version 4 and ed25519 (RFC 4880, and EdDSA as RFC 9580 section 5.5.5.5 keeps it), since GnuPG 2.2
and the systemd of that time must accept what they sign. Sequoia's own generator gives all keys of
a certificate one lifetime and an encryption key besides; hence these lines.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pipeline.release import material
from pipeline.release.material import MaterialError
from pipeline.trust import packets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pipeline.trust.keyring import Key

_EDDSA, _SHA256, _SHA512, _AES256 = 22, 8, 10, 9
_ED25519 = bytes.fromhex("092b06010401da470f01")  # its OID, with the length before
_CERTIFY, _SIGN = 0x01, 0x02
_POSITIVE, _BINDING, _BACK, _KEY_REVOKED, _SUBKEY_REVOKED = 0x13, 0x18, 0x19, 0x20, 0x28
_ABSENT = b"\xff\0\x65\0GNU\1"
_COUNT = 0xF0  # 25,165,824 bytes through the hash (RFC 4880 section 3.7.1.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """An ed25519 key and when it was made, in seconds since 1970."""

    key: Ed25519PrivateKey
    created: int

    @property
    def public(self) -> bytes:
        """The body of its public packet."""
        raw = self.key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        head = b"\4" + self.created.to_bytes(4) + bytes([_EDDSA])
        return head + _ED25519 + _number(b"\x40" + raw)

    @property
    def fingerprint(self) -> bytes:
        """20 bytes (RFC 4880 section 12.2)."""
        return hashlib.sha1(_hashed(self.public)).digest()  # noqa: S324 (as the RFC says)

    def body(self, password: str) -> bytes:
        """The body of its secret packet, encrypted if there is a *password*."""
        raw = self.key.private_bytes(
            serialization.Encoding.Raw,
            serialization.PrivateFormat.Raw,
            serialization.NoEncryption(),
        )
        number = _number(raw)
        if not password:
            return self.public + b"\0" + number + (sum(number) % 65536).to_bytes(2)
        salt, start = os.urandom(8), os.urandom(16)
        head = bytes([254, _AES256, 3, _SHA256]) + salt + bytes([_COUNT]) + start
        check = hashlib.sha1(number).digest()  # noqa: S324 (RFC 4880 section 5.5.3)
        return self.public + head + _cfb(_stretched(password, salt), start, number + check)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Three OpenPGP files, binary: *primary* with all secrets, *signing* without the primary's.

    *certificate* is public; *fingerprint* its name, in upper-case hex digits.
    """

    primary: bytes
    signing: bytes
    certificate: bytes
    fingerprint: str


def make(user: str, *, now: datetime, days: int, signing_days: int, password: str = "") -> Made:
    """A certificate of *user*, good for *days* from *now*, whose signing key is for *signing_days*.

    With a *password* both secrets are encrypted.
    """
    moment = int(now.timestamp())
    top, sub = generated(moment), generated(moment)
    certificate = (
        packet(packets.PUBLIC_KEY, top.public)
        + packet(packets.USER, user.encode())
        + certification(top, user.encode(), moment, end=moment + days * 86400)
        + subkey(top, sub, moment, end=moment + signing_days * 86400)
    )
    bodies = top.body(password), sub.body(password)
    return Made(
        primary=with_secrets(certificate, bodies),
        signing=with_secrets(certificate, bodies[1:]),
        certificate=certificate,
        fingerprint=top.fingerprint.hex().upper(),
    )


def generated(moment: int) -> Secret:
    """A new key, made at *moment*, in seconds since 1970 as everywhere here."""
    return Secret(key=Ed25519PrivateKey.generate(), created=moment)


def with_secrets(certificate: bytes, secrets: Sequence[bytes]) -> bytes:
    """*certificate* with *secrets*, the bodies of secret packets, in the places of its keys.

    A primary key without one gets GnuPG's mark of a secret that is elsewhere (its doc/DETAILS,
    "gnu-dummy"); subkeys without one are left out. Raises PacketError.
    """
    made, is_wanted = b"", True
    for one in packets.packets(certificate):
        is_primary = one.tag == packets.PUBLIC_KEY
        if is_primary or one.tag == packets.PUBLIC_SUBKEY:
            # a secret packet begins as the public one (RFC 4880 section 5.5.3)
            body = next((secret for secret in secrets if secret.startswith(one.body)), b"")
            is_wanted = is_primary or bool(body)
            if is_wanted:
                tag = packets.SECRET_KEY if is_primary else packets.SECRET_SUBKEY
                made += packet(tag, body or one.body + _ABSENT)
        elif is_wanted:
            made += one.raw
    return made


def certification(
    top: Secret, user: bytes, moment: int, *, end: int | None, may_sign: bool = False
) -> bytes:
    """The packet that says that *top* is *user*'s, until *end* or without one."""
    signed = _hashed(top.public) + b"\xb4" + len(user).to_bytes(4) + user
    more = (
        _until(top.created, end)
        + _subpacket(packets.FLAGS, bytes([_CERTIFY | (_SIGN if may_sign else 0)]))
        + _subpacket(21, bytes([_SHA512, _SHA256]))  # preferred hashes
        + _subpacket(30, b"\1")  # features: a packet of encrypted data may prove its integrity
    )
    return packet(packets.SIGNATURE, _signature(top, _POSITIVE, signed, moment, more))


def subkey(top: Secret, sub: Secret, moment: int, *, end: int | None) -> bytes:
    """*sub* as a signing subkey of *top*'s until *end*: its packet, and the one that binds it."""
    both = _hashed(top.public) + _hashed(sub.public)
    back = _signature(sub, _BACK, both, moment, b"")
    bound = binding(top, sub.public, back, moment, end=end)
    return packet(packets.PUBLIC_SUBKEY, sub.public) + bound


def binding(top: Secret, public: bytes, back: bytes, moment: int, *, end: int | None) -> bytes:
    """The packet that binds the signing subkey *public*, a body, to *top*.

    *back* is the subkey's signature that it agrees (RFC 4880 section 5.2.3.26).
    """
    both = _hashed(top.public) + _hashed(public)
    more = (
        _until(int.from_bytes(public[1:5]), end)
        + _subpacket(packets.FLAGS, bytes([_SIGN]))
        + _subpacket(packets.EMBEDDED, back)
    )
    return packet(packets.SIGNATURE, _signature(top, _BINDING, both, moment, more))


def revocation(top: Secret, public: bytes, moment: int) -> bytes:
    """The packet that revokes *public*, the body of *top* itself or of a subkey of it.

    Its reason is that others may have the secret (section 5.2.3.23): what the key has ever signed
    counts no more, since whoever has it can write any date.
    """
    own = public == top.public
    signed = _hashed(top.public) + (b"" if own else _hashed(public))
    kind = _KEY_REVOKED if own else _SUBKEY_REVOKED
    return packet(packets.SIGNATURE, _signature(top, kind, signed, moment, _subpacket(29, b"\2")))


def secret(file: bytes, key: Key, password: str) -> Secret:
    """*key* as it is in *file*, an OpenPGP secret key. Raises MaterialError."""
    if key.ed25519 is None:
        raise MaterialError("no ed25519 key")
    found = material.ed25519(file, key.ed25519, password)
    return Secret(key=found, created=int(key.created.timestamp()))


def packet(tag: int, body: bytes) -> bytes:
    """A packet in the old form, which every program reads (RFC 4880 section 4.2.1)."""
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2) + body


def _hashed(public: bytes) -> bytes:
    return b"\x99" + len(public).to_bytes(2) + public


def _number(raw: bytes) -> bytes:
    """A multiprecision integer (section 3.2)."""
    raw = raw.lstrip(b"\0")
    return int.from_bytes(raw).bit_length().to_bytes(2) + raw


def _subpacket(kind: int, content: bytes) -> bytes:
    return bytes([len(content) + 1, kind]) + content


def _signature(by: Secret, kind: int, signed: bytes, moment: int, more: bytes) -> bytes:
    """The body of a signature over *signed* (section 5.2.3), with the subpackets *more*."""
    area = (
        _subpacket(packets.CREATED, moment.to_bytes(4))
        + more
        + _subpacket(packets.FINGERPRINT, b"\4" + by.fingerprint)
    )
    head = bytes([4, kind, _EDDSA, _SHA512]) + len(area).to_bytes(2) + area
    digest = hashlib.sha512(signed + head + b"\4\xff" + len(head).to_bytes(4)).digest()
    made = by.key.sign(digest)
    loose = _subpacket(packets.ISSUER, by.fingerprint[-8:])
    return (
        head + len(loose).to_bytes(2) + loose + digest[:2] + _number(made[:32]) + _number(made[32:])
    )


def _until(created: int, end: int | None) -> bytes:
    return b"" if end is None else _subpacket(packets.KEY_EXPIRES, (end - created).to_bytes(4))


def _stretched(password: str, salt: bytes) -> bytes:
    """32 bytes of key (section 3.7.1.3, with SHA-256)."""
    count = (16 + (_COUNT & 15)) << ((_COUNT >> 4) + 6)
    one = salt + password.encode()
    whole, rest = divmod(count, len(one))
    return hashlib.sha256(one * whole + one[:rest]).digest()


def _cfb(key: bytes, start: bytes, plain: bytes) -> bytes:
    mode = modes.ECB()  # noqa: S305 (the block alone: what follows makes CFB of it)
    encrypt = Cipher(algorithms.AES256(key), mode).encryptor().update
    last, made = start, b""
    for at in range(0, len(plain), 16):
        part = plain[at : at + 16]
        last = bytes(a ^ b for a, b in zip(part, encrypt(last), strict=False))
        made += last
    return made
