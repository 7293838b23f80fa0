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

from pipeline.trust import packets

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_EDDSA, _SHA256, _SHA512, _AES256 = 22, 8, 10, 9
_ED25519 = bytes.fromhex("092b06010401da470f01")  # its OID, with the length before
_CERTIFY, _SIGN = 0x01, 0x02
_POSITIVE, _BINDING, _BACK = 0x13, 0x18, 0x19
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


def make(
    user: str,
    *,
    now: datetime,
    days: int,
    signing_days: int,
    password: str = "",
    primary: Secret | None = None,
) -> Made:
    """A certificate of *user*, good for *days* from *now*, whose signing key is for *signing_days*.

    With *primary* it is that key's certificate, made anew.
    """
    moment = int(now.timestamp())
    top = primary or Secret(key=Ed25519PrivateKey.generate(), created=moment)
    sub = Secret(key=Ed25519PrivateKey.generate(), created=moment)
    name = user.encode()
    end = moment - top.created + days * 86400
    self_signed = _signature(
        top,
        _POSITIVE,
        _hashed(top.public) + b"\xb4" + len(name).to_bytes(4) + name,
        moment,
        _subpacket(packets.KEY_EXPIRES, end.to_bytes(4))
        + _subpacket(packets.FLAGS, bytes([_CERTIFY]))
        + _subpacket(21, bytes([_SHA512, _SHA256]))  # preferred hashes
        + _subpacket(30, b"\1"),  # features: a packet of encrypted data may prove its integrity
    )
    both = _hashed(top.public) + _hashed(sub.public)
    back = _signature(sub, _BACK, both, moment, b"")
    bound = _signature(
        top,
        _BINDING,
        both,
        moment,
        _subpacket(packets.KEY_EXPIRES, (signing_days * 86400).to_bytes(4))
        + _subpacket(packets.FLAGS, bytes([_SIGN]))
        + _subpacket(32, back),  # the signing key agrees (section 5.2.3.26)
    )
    middle = packet(packets.USER, name) + packet(packets.SIGNATURE, self_signed)
    last = packet(packets.SIGNATURE, bound)
    secret_sub = packet(packets.SECRET_SUBKEY, sub.body(password))
    # GnuPG's mark of a secret key that is elsewhere (its doc/DETAILS, "gnu-dummy")
    absent = top.public + b"\xff\0\x65\0GNU\1"
    return Made(
        primary=packet(packets.SECRET_KEY, top.body(password)) + middle + secret_sub + last,
        signing=packet(packets.SECRET_KEY, absent) + middle + secret_sub + last,
        certificate=packet(packets.PUBLIC_KEY, top.public)
        + middle
        + packet(packets.PUBLIC_SUBKEY, sub.public)
        + last,
        fingerprint=top.fingerprint.hex().upper(),
    )


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


def _stretched(password: str, salt: bytes) -> bytes:
    """32 bytes of key (section 3.7.1.3, with SHA-256)."""
    count = (16 + (_COUNT & 15)) << ((_COUNT >> 4) + 6)
    one = salt + password.encode()
    whole, rest = divmod(count, len(one))
    return hashlib.sha256(one * whole + one[:rest]).digest()


def _cfb(key: bytes, start: bytes, plain: bytes) -> bytes:
    encrypt: Callable[[bytes], bytes] = (
        Cipher(
            algorithms.AES256(key),
            modes.ECB(),  # noqa: S305 (the block alone: what follows makes CFB of it)
        )
        .encryptor()
        .update
    )
    last, made = start, b""
    for at in range(0, len(plain), 16):
        part = plain[at : at + 16]
        last = bytes(a ^ b for a, b in zip(part, encrypt(last), strict=False))
        made += last
    return made
