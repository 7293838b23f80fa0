"""A DSSE envelope: a statement and signatures over it, of ed25519.

https://github.com/secure-systems-lab/dsse/blob/master/protocol.md and, for what lies in it,
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.errors import NiftyError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAYLOAD = "application/vnd.in-toto+json"
LIMIT = 16 << 20  # bytes of one that is read
_MOST = 100  # signatures of one that is read


class EnvelopeError(NiftyError):
    """Bytes that are no envelope with a statement; one line without the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What *payload* states, bytes, and its *signatures*: key id and signature of each."""

    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    def signed_by(self, keys: Iterable[Ed25519PublicKey]) -> tuple[Ed25519PublicKey, ...]:
        """Those of *keys* of which one of the signatures is; a key id is no more than a hint."""
        signed = pae(self.payload)
        made = [signature for _name, signature in self.signatures]
        return tuple(key for key in keys if any(_is_of(key, one, signed) for one in made))


def pae(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of *payload* and its type."""
    kind = PAYLOAD.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def key_id(key: Ed25519PublicKey) -> str:
    """The name of *key* in an envelope: hex sha256 of its SubjectPublicKeyInfo (RFC 8410)."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def envelope(
    payload: bytes, keys: Iterable[Ed25519PrivateKey], others: Mapping[str, bytes] | None = None
) -> bytes:
    """*payload*, a statement, with a signature of each of *keys*: the same bytes each time.

    *others* are signatures over it by key id that exist already.
    """
    signed = pae(payload)
    signatures = {**(others or {}), **{key_id(key.public_key()): key.sign(signed) for key in keys}}
    table = {
        "payload": _base64(payload),
        "payloadType": PAYLOAD,
        "signatures": [
            {"keyid": name, "sig": _base64(made)} for name, made in sorted(signatures.items())
        ],
    }
    return (json.dumps(table, indent=1, sort_keys=True) + "\n").encode()


def read(content: bytes) -> Envelope:
    """The envelope in *content*; whose signatures are good is not looked at.

    Raises EnvelopeError.
    """
    try:
        table = json.loads(content)
        kind, payload = table["payloadType"], base64.b64decode(table["payload"], validate=True)
        signatures = tuple(
            (str(one.get("keyid", "")), base64.b64decode(one["sig"], validate=True))
            for one in table["signatures"][: _MOST + 1]
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = shown(str(error), most=100)
        raise EnvelopeError(f"no DSSE envelope: {told}") from error
    if kind != PAYLOAD or len(signatures) > _MOST:
        raise EnvelopeError(f"no DSSE envelope of {PAYLOAD} with at most {_MOST} signatures")
    return Envelope(payload=payload, signatures=signatures)


def subjects(payload: bytes) -> dict[str, str]:
    """The sha256 of each file by its name that the statement *payload* is about.

    Raises EnvelopeError.
    """
    try:
        table = json.loads(payload)
        found = {one["name"]: one["digest"]["sha256"] for one in table["subject"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        told = shown(str(error), most=100)
        raise EnvelopeError(f"no in-toto statement: {told}") from error
    if not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise EnvelopeError("no in-toto statement: a name or digest that is no text")
    return found


def public(raw: bytes) -> Ed25519PublicKey:
    """The key of 32 bytes (RFC 8032)."""
    return Ed25519PublicKey.from_public_bytes(raw)


def pem(key: Ed25519PublicKey) -> bytes:
    """*key* as other programs read it (RFC 8410)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _is_of(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
