"""Checks DSA signatures by itself, since OpenPGP libraries refuse that algorithm by policy.

An upstream that signs with nothing better is still better checked than not.

RFC 4880 names the layout of every packet; only what a version 4 signature of a binary document
needs is read, and anything unexpected is a reason to refuse. Not looked at: the key's self
signatures, and so its expiry (the fingerprint is pinned, and fixes the whole key).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DSA = 17  # RFC 4880 section 9.1
# Section 9.4. SHA-1 is here because it is what BusyBox is signed with: two files of the same SHA-1
# can be made by somebody who makes both, but none to match a given one; and the recipe pins the
# sha256 of the file as well. MD5 and RIPEMD-160 are nobody's excuse.
_HASHES = {2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}
_BINARY_DOCUMENT = 0x00  # section 5.2.1

# signature subpackets (section 5.2.3.1, and RFC 9580 section 5.2.3.35 for the fingerprint)
_CREATED = 2
_EXPIRES = 3
_ISSUER = 16
_SIGNERS_NAME = 28
_FINGERPRINT = 33
_CRITICAL = 0x80

_CLOCK_TOLERANCE = timedelta(days=1)


class _RefusedError(NiftyError):
    """Why a key or signature is not accepted, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """A version 4 DSA public key: its parameters and when it was made (seconds since 1970)."""

    fingerprint: str
    created: int
    p: int
    q: int
    g: int
    y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signature:
    """A version 4 DSA signature; `head` is the part of it that is hashed after the document."""

    algorithm: str
    head: bytes
    check: bytes
    created: int
    expires: int
    fingerprint: str
    r: int
    s: int


class _Reader:
    """Takes bytes off the front; past the end it refuses."""

    def __init__(self, content: bytes) -> None:
        self._rest = memoryview(content)

    def __bool__(self) -> bool:
        return bool(self._rest)

    def take(self, count: int) -> bytes:
        if count > len(self._rest):
            raise _RefusedError("a packet ends too early")
        taken, self._rest = bytes(self._rest[:count]), self._rest[count:]
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count))

    def mpi(self) -> int:
        """A multiprecision integer: its length in bits, then the bytes (section 3.2)."""
        return self.number((self.number(2) + 7) // 8)


def problem(path: Path, signature: bytes, key: bytes, fingerprint: str) -> str | None:
    """Why *signature* by *key* over the file *path* does not hold, in one line; None if it holds.

    *signature* and *key* are OpenPGP files, binary or armoured; *fingerprint* is the primary key's,
    in upper-case hex digits.
    """
    try:
        public = _key(key)
        if public.fingerprint != fingerprint:
            return f"the key file holds {public.fingerprint}, the recipe pins {fingerprint}"
        made = _signature(signature)
        if made.fingerprint != fingerprint:
            return f"signed by {made.fingerprint}, the recipe pins {fingerprint}"
        _check_times(made, public, datetime.now(UTC))
        return _verify(path, made, public)
    except _RefusedError as error:
        return error.message


def _packets(content: bytes) -> list[tuple[str, bytes]]:
    # by way of the whole, which waits for a thread that is importing that
    from pysequoia import packet  # noqa: PLC0415 (only a fetch needs it)

    try:
        return [(str(each.tag), each.body) for each in packet.PacketPile.from_bytes(content)]
    except (RuntimeError, ValueError) as error:
        raise _RefusedError(f"not OpenPGP: {str(error).splitlines()[0][:200]}") from error


def _key(content: bytes) -> _Key:
    packets = _packets(content)
    if not packets or packets[0][0] != "Tag.PublicKey":
        raise _RefusedError("the key file does not begin with a public key")
    body = packets[0][1]
    reader = _Reader(body)
    version, created, algorithm = reader.number(1), reader.number(4), reader.number(1)
    if (version, algorithm) != (4, _DSA):
        raise _RefusedError(
            f"a version {version} key of algorithm {algorithm} is not a DSA key of version 4: "
            "remove source.signature.dsa"
        )
    p, q, g, y = (reader.mpi() for _ in range(4))
    if reader:
        raise _RefusedError("the key packet is longer than its parts")
    # section 12.2: SHA-1 is what a version 4 fingerprint is, not a choice
    digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2) + body, usedforsecurity=False)
    return _Key(fingerprint=digest.hexdigest().upper(), created=created, p=p, q=q, g=g, y=y)


def _signature(content: bytes) -> _Signature:
    """Section 5.2.3, with every field that is not as expected refused."""
    packets = _packets(content)
    if [tag for tag, _ in packets] != ["Tag.Signature"]:
        raise _RefusedError("the signature file does not hold exactly one signature")
    body = packets[0][1]
    reader = _Reader(body)
    version, kind, algorithm, hashing = (reader.number(1) for _ in range(4))
    if version != 4:
        raise _RefusedError(f"a version {version} signature, expected 4")
    if kind != _BINARY_DOCUMENT:
        raise _RefusedError(f"signature type 0x{kind:02x} is not that of a binary document")
    if algorithm != _DSA:
        raise _RefusedError(
            f"public-key algorithm {algorithm} is not DSA: remove source.signature.dsa"
        )
    if hashing not in _HASHES:
        raise _RefusedError(f"hash algorithm {hashing} is not accepted")
    length = reader.number(2)
    hashed = dict(_subpackets(reader.take(length)))
    reader.take(reader.number(2))  # unhashed: whoever passes the file on may change it
    check, r, s = reader.take(2), reader.mpi(), reader.mpi()
    if reader:
        raise _RefusedError("the signature packet is longer than its parts")
    if _CREATED not in hashed or _FINGERPRINT not in hashed:
        raise _RefusedError("the signed part names no time or no key")
    return _Signature(
        algorithm=_HASHES[hashing],
        head=body[: 6 + length],
        check=check,
        created=int.from_bytes(hashed[_CREATED]),
        expires=int.from_bytes(hashed.get(_EXPIRES, b"")),
        fingerprint=hashed[_FINGERPRINT][1:].hex().upper(),  # after one byte, the key's version
        r=r,
        s=s,
    )


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each subpacket (section 5.2.3.1); none may come twice."""
    reader = _Reader(area)
    seen: set[int] = set()
    while reader:
        length = reader.number(1)
        if length == 255:
            length = reader.number(4)
        elif length >= 192:
            length = ((length - 192) << 8) + reader.number(1) + 192
        if length == 0:
            raise _RefusedError("an empty subpacket")
        tag = reader.number(1)
        kind, content = tag & ~_CRITICAL, reader.take(length - 1)
        if kind in seen:
            raise _RefusedError(f"subpacket {kind} comes twice")
        if tag & _CRITICAL and kind not in (
            _CREATED,
            _EXPIRES,
            _ISSUER,
            _SIGNERS_NAME,
            _FINGERPRINT,
        ):
            raise _RefusedError(f"subpacket {kind} is critical and not understood")
        seen.add(kind)
        yield kind, content


def _check_times(made: _Signature, public: _Key, now: datetime) -> None:
    created = datetime.fromtimestamp(made.created, UTC)
    if made.created < public.created:
        raise _RefusedError(f"made on {created:%F}, before its key")
    if created > now + _CLOCK_TOLERANCE:
        raise _RefusedError(f"made on {created:%F}, which is still to come (is the clock right?)")
    if made.expires and created + timedelta(seconds=made.expires) < now:
        raise _RefusedError(f"made on {created:%F} for {made.expires} seconds, which are over")


def _verify(path: Path, made: _Signature, public: _Key) -> str | None:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 (only a fetch needs it)
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import dsa, utils  # noqa: PLC0415

    with path.open("rb") as file:
        document = hashlib.file_digest(file, made.algorithm)
    # section 5.2.4: the document, the hashed part, and a trailer with that part's length
    document.update(made.head + b"\x04\xff" + len(made.head).to_bytes(4))
    digest = document.digest()
    if not hmac.compare_digest(digest[:2], made.check):
        return "the file is not the signed one (left 16 bits of the hash)"
    parameters = dsa.DSAParameterNumbers(public.p, public.q, public.g)
    algorithms: dict[str, hashes.HashAlgorithm] = {
        "sha1": hashes.SHA1(),  # noqa: S303 (see _HASHES)
        "sha256": hashes.SHA256(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }
    try:
        key = dsa.DSAPublicNumbers(public.y, parameters).public_key()
        key.verify(
            utils.encode_dss_signature(made.r, made.s),
            digest,
            utils.Prehashed(algorithms[made.algorithm]),
        )
    except ValueError as error:
        return f"the DSA key cannot be used: {error}"
    except InvalidSignature:
        return "the DSA signature is wrong"
    return None
