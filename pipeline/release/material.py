"""The bare ed25519 key inside an OpenPGP signing key, which signs provenance as well.

One secret, one lifetime, one revocation for both. OpenPGP signs a digest of 64 bytes (RFC 9580
section 5.2.4), DSSE a longer text that begins with its own name: neither's signature can be taken
for the other's.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.errors import NiftyError
from pipeline.trust import packets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# RFC 9580 sections 9.3 and 9.5: how long a cipher's key is, and hashes by their numbers
_KEY_SIZES = {7: 16, 8: 24, 9: 32}
_HASHES = {2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}
_PLAIN, _ENCRYPTED, _ITERATED = 0, 254, 3
_BLOCK = 16


class MaterialError(NiftyError):
    """A secret key packet that cannot be opened; one line without the file's name."""


def ed25519(secret: bytes, raw: bytes, password: str) -> Ed25519PrivateKey:
    """The private key of the public key *raw*, 32 bytes, in *secret*, an OpenPGP secret key.

    Raises MaterialError: not there, or encrypted otherwise than with AES and *password*.
    """
    for one in packets.packets(secret):
        if one.tag in (packets.SECRET_KEY, packets.SECRET_SUBKEY):
            if packets.ed25519(one.body) != raw:
                continue
            number = _opened(one.body[packets.ED25519_LENGTH :], password)
            key = Ed25519PrivateKey.from_private_bytes(number[2:].rjust(32, b"\0"))
            if key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) != raw:
                raise MaterialError("the secret half is of another key than the public one")
            return key
    raise MaterialError("the secret of its signing key is not there")


def _opened(body: bytes, password: str) -> bytes:
    """The number in *body*, the secret part of a key packet (RFC 9580 section 5.5.3)."""
    usage = body[:1]
    if usage == bytes([_PLAIN]):
        number, check = body[1:-2], body[-2:]
        if len(number) > 34 or sum(number) % 65536 != int.from_bytes(check):
            raise MaterialError("the secret key is damaged")
        return number
    if usage != bytes([_ENCRYPTED]) or len(body) < 13 + _BLOCK:
        raise MaterialError("the secret key is not in this file, or encrypted in an unknown way")
    cipher, kind, hashed, salt, count = body[1], body[2], body[3], body[4:12], body[12]
    if cipher not in _KEY_SIZES or kind != _ITERATED or hashed not in _HASHES:
        raise MaterialError("the secret key is encrypted in an unknown way")
    key = _stretched(password, salt, count, _HASHES[hashed], _KEY_SIZES[cipher])
    start = body[13 : 13 + _BLOCK]
    plain = b"".join(_deciphered(key, start, body[13 + _BLOCK :]))
    number, check = plain[:-20], plain[-20:]
    if len(number) > 34 or hashlib.sha1(number).digest() != check:  # noqa: S324 (RFC 9580)
        raise MaterialError("the password does not open the secret key")
    return number


def _stretched(password: str, salt: bytes, coded: int, name: str, size: int) -> bytes:
    """A key of *size* bytes made of *password* (RFC 9580 section 3.7.1.3)."""
    count = (16 + (coded & 15)) << ((coded >> 4) + 6)
    one = salt + password.encode()
    whole, rest = divmod(max(count, len(one)), len(one))
    made = b""
    zeros = 0
    while len(made) < size:
        made += hashlib.new(name, bytes(zeros) + one * whole + one[:rest]).digest()
        zeros += 1
    return made[:size]


def _deciphered(key: bytes, start: bytes, content: bytes) -> Iterator[bytes]:
    """*content*, of AES in CFB from *start* on."""
    encrypt: Callable[[bytes], bytes] = (
        Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 (the block alone: CFB is made of it)
        .encryptor()
        .update
    )
    last = start
    for at in range(0, len(content), _BLOCK):
        part = content[at : at + _BLOCK]
        yield bytes(a ^ b for a, b in zip(part, encrypt(last), strict=False))
        last = part
