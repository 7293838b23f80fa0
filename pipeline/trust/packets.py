"""OpenPGP files as packets: only what is needed to know who a key is and how long it is good.

No signature is checked here; that is `verify`'s business, with Sequoia or gpgv. RFC 4880 names the
layout of every packet (RFC 9580 kept it for version 4).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Tags (RFC 4880 section 4.3).
SIGNATURE, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY, USER, PUBLIC_SUBKEY = 2, 5, 6, 7, 13, 14

# Subpackets of a signature (section 5.2.3.1; RFC 9580 section 5.2.3.35 for the fingerprint).
CREATED, KEY_EXPIRES, ISSUER, FLAGS, EMBEDDED, FINGERPRINT = 2, 9, 16, 27, 32, 33

_MOST = 10_000


class PacketError(NiftyError):
    """Bytes that are no OpenPGP file; one line without the file's name."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: its *tag*, its *body*, and *raw*, the bytes of both as they stood."""

    tag: int
    body: bytes
    raw: bytes


_BEGIN = re.compile(rb"^-----BEGIN PGP [A-Z ]+-----[ \t]*\r?\n", re.MULTILINE)
_END = re.compile(rb"^-----END PGP [A-Z ]+-----", re.MULTILINE)


def dearmored(content: bytes) -> bytes:
    """*content* in binary, whether it is armored (RFC 4880 section 6.2) or binary already.

    Several armored blocks are one file. Raises PacketError.
    """
    if content[:1] and content[0] & 0x80:
        return content
    blocks, at = [], 0
    # one look for each end: a text of beginnings alone costs no more than its length
    while (begin := _BEGIN.search(content, at)) and (end := _END.search(content, begin.end())):
        blocks.append(content[begin.end() : end.start()])
        at = end.end()
    if not blocks:
        raise PacketError("neither binary nor armored OpenPGP")
    return b"".join(map(_block, blocks))


def _block(armored: bytes) -> bytes:
    lines = [line.strip() for line in armored.splitlines()]
    # headers end at the first empty line; "=XXXX" is the checksum, which RFC 9580 gave up
    body = lines[lines.index(b"") + 1 :] if b"" in lines else lines
    try:
        return base64.b64decode(
            b"".join(line for line in body if not line.startswith(b"=")), validate=True
        )
    except binascii.Error as error:
        raise PacketError(f"its armor is damaged: {error}") from error


def packets(content: bytes) -> tuple[Packet, ...]:
    """The packets of *content*, binary or armored. Raises PacketError."""
    found = tuple(_split(dearmored(content)))
    if not found:
        raise PacketError("empty")
    return found


# EdDSA's number and Ed25519's OID with the length before (RFC 9580 sections 9.1 and 9.2).
_EDDSA, _ED25519 = 22, bytes.fromhex("092b06010401da470f01")
# version, time and algorithm; the OID; the length in bits of 0x40 and 32 octets
_BEFORE_POINT = 6 + len(_ED25519) + 2
ED25519_LENGTH = _BEFORE_POINT + 33


def ed25519(body: bytes) -> bytes | None:
    """The 32 bytes of the Ed25519 key in the key packet *body*, None if it is of another kind."""
    if len(body) < ED25519_LENGTH or body[5] != _EDDSA or body[6:16] != _ED25519:
        return None
    point = body[_BEFORE_POINT:ED25519_LENGTH]
    return point[1:] if point[0] == 0x40 else None


def _split(content: bytes) -> Iterator[Packet]:
    at = count = 0
    while at < len(content):
        tag, begin, length = _header(content, at)
        end = begin + length
        count += 1
        if end > len(content):
            raise PacketError("a packet ends too early")
        if count > _MOST:
            raise PacketError(f"more than {_MOST} packets")
        yield Packet(tag, content[begin:end], content[at:end])
        at = end


def _header(content: bytes, at: int) -> tuple[int, int, int]:
    """Tag, begin and length of the packet at *at* (RFC 4880 sections 4.2.1 and 4.2.2)."""
    first = content[at]
    if not first & 0x80:
        raise PacketError("something that is no packet")
    if first & 0x40:
        begin, length = _length(content, at + 1)
        return first & 0x3F, begin, length
    size = (1, 2, 4, 0)[first & 3]
    if not size:
        raise PacketError("a packet of unknown length")
    begin = at + 1 + size
    return first >> 2 & 0x0F, begin, int.from_bytes(_taken(content, at + 1, size))


def _length(content: bytes, at: int) -> tuple[int, int]:
    """Where what begins with a length at *at* begins, and that length."""
    first = _taken(content, at, 1)[0]
    if first < 192:
        return at + 1, first
    if first < 224:
        return at + 2, ((first - 192) << 8) + _taken(content, at + 1, 1)[0] + 192
    if first < 255:
        raise PacketError("a packet in parts")
    return at + 5, int.from_bytes(_taken(content, at + 1, 4))


def _taken(content: bytes, at: int, size: int) -> bytes:
    taken = content[at : at + size]
    if len(taken) != size:
        raise PacketError("a packet ends too early")
    return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a version 4 signature packet says of itself; times in seconds since 1970.

    *kind* is its type (section 5.2.1), *issuer* the fingerprint or, of older ones, the key id of
    who made it, in upper-case hex digits, *embedded* the body of a signature within (5.2.3.26).
    """

    kind: int
    created: int = 0
    lifetime: int = 0
    flags: int = 0
    issuer: str = ""
    embedded: bytes = b""


def statement(body: bytes) -> Statement:
    """The signature packet with *body*. Raises PacketError for what is not version 4."""
    version = _taken(body, 0, 1)[0]
    if version != 4:
        raise PacketError(f"a signature of version {version}, only 4 is read")
    kind = _taken(body, 1, 1)[0]
    hashed_end = 6 + int.from_bytes(_taken(body, 4, 2))
    hashed = _taken(body, 6, hashed_end - 6)
    loose = _taken(body, hashed_end + 2, int.from_bytes(_taken(body, hashed_end, 2)))
    found = {**dict(_subpackets(loose)), **dict(_subpackets(hashed))}
    certain = dict(_subpackets(hashed))
    issuer = found.get(FINGERPRINT, b"\4")[1:] or found.get(ISSUER, b"")
    return Statement(
        kind=kind,
        created=_four_octets(certain.get(CREATED)),
        lifetime=_four_octets(certain.get(KEY_EXPIRES)),
        flags=certain.get(FLAGS, b"\0")[:1][0] if certain.get(FLAGS) else 0,
        issuer=issuer.hex().upper(),
        embedded=found.get(EMBEDDED, b""),
    )


def _four_octets(content: bytes | None) -> int:
    """A time field (RFC 4880 section 3.5); 0 if there is none."""
    if content is None:
        return 0
    if len(content) != 4:
        raise PacketError(f"a time of {len(content)} octets")
    return int.from_bytes(content)


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(area):
        first = area[at]
        if first < 192:
            begin, length = at + 1, first
        elif first < 255:  # no parts here: two octets up to 254 (section 5.2.3.1)
            begin = at + 2
            length = ((first - 192) << 8) + _taken(area, at + 1, 1)[0] + 192
        else:
            begin, length = at + 5, int.from_bytes(_taken(area, at + 1, 4))
        content = _taken(area, begin, length)
        if not content:
            raise PacketError("an empty subpacket")
        yield content[0] & 0x7F, content[1:]
        at = begin + length
