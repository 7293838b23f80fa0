"""A detached OpenPGP signature by somebody who is trusted, checked with Sequoia or with gpgv.

The same answer from both: the keyring alone decides who is trusted, and a key that has expired or
is revoked today signs nothing, whenever the signature was made.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, shown
from pipeline.run import ProgramError, run
from pipeline.trust import packets
from pipeline.trust.packets import PacketError

if TYPE_CHECKING:
    from pipeline.trust.keyring import Certificate, Key, Keyring

LIMIT = 1 << 16  # bytes of a signature
_BINARY_DOCUMENT = 0x00
_CLOCK_TOLERANCE = timedelta(days=1)
_GPGV_TIMEOUT = 60


class SignatureError(NiftyError):
    """A signature that does not hold, or that nobody who is trusted made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Who signed, with which of their keys, and when."""

    certificate: Certificate
    key: Key
    created: datetime


def verify(
    content: bytes,
    signature: bytes,
    keyring: Keyring,
    *,
    name: str,
    now: datetime | None = None,
    program: str = "",
) -> Signed:
    """Who of *keyring* signed *content*; *signature* is detached, binary or armored.

    *name* is what is signed, for messages; *program* is `sequoia` or `gpgv`, else what is there.
    Raises SignatureError in one line.
    """
    now = now or datetime.now(UTC)
    try:
        said, binary = _one(signature)
    except PacketError as error:
        raise SignatureError(f"{name}: its signature cannot be used: {error.message}") from error
    found = keyring.find(said.issuer)
    if found is None:
        there = ", ".join(one.title for one in keyring.certificates)
        raise SignatureError(
            f"{name}: signed by {said.issuer or 'somebody without a name'}, "
            f"which {shown(keyring.name)} does not hold; it holds {there}",
            hint="is it the keyring of these publishers? Ask them for it, not the same server",
        )
    certificate, key = found
    created = datetime.fromtimestamp(said.created, UTC)
    problem = certificate.refusal(key, now) or (
        f"the signature is of {created:%Y-%m-%d %H:%M} UTC, which is yet to come"
        if created > now + _CLOCK_TOLERANCE
        else None
    )
    if problem is None:
        check = _gpgv if program == "gpgv" or (not program and not _has_sequoia()) else _sequoia
        problem = check(content, binary, certificate, key)
    if problem:
        raise SignatureError(
            f"{name}: the signature does not hold: {problem}",
            hint="use nothing of this: ask the publisher, over another way",
        )
    return Signed(certificate=certificate, key=key, created=created)


def _one(signature: bytes) -> tuple[packets.Statement, bytes]:
    """What the one signature in the file says, and it in binary."""
    if len(signature) > LIMIT:
        raise PacketError(f"more than {LIMIT} bytes")
    found = packets.packets(signature)
    if len(found) != 1 or found[0].tag != packets.SIGNATURE:
        raise PacketError("not exactly one signature")
    said = packets.statement(found[0].body)
    if said.kind != _BINARY_DOCUMENT:
        raise PacketError(f"a signature of type {said.kind:#04x}, not of a file")
    return said, found[0].raw


def _has_sequoia() -> bool:
    try:
        import pysequoia  # noqa: F401, PLC0415 (10 MB that few commands need)
    except ImportError:
        return False
    return True


# What gpgv says besides "no" (GnuPG's doc/DETAILS).
_WORDS = {
    "BADSIG": "not what was signed",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key is revoked",
    "ERRSIG": "gpgv cannot check it",
}


def _sequoia(content: bytes, signature: bytes, certificate: Certificate, key: Key) -> str | None:
    from pysequoia import Cert, Sig, verify  # noqa: PLC0415 (as above)

    try:
        known = Cert.from_bytes(certificate.binary)
        found = verify(
            bytes=content, signature=Sig.from_bytes(signature), store=lambda _ids: [known]
        )
    except (RuntimeError, ValueError, TypeError) as error:
        # its text goes on with a stack backtrace
        told = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        return _WORDS["BADSIG"] if "no valid signatures" in told else shown(told, most=200)
    by = {valid.signing_key.upper() for valid in found.valid_sigs}
    return None if by == {key.fingerprint} else f"made by {', '.join(sorted(by)) or 'nobody'}"


def _gpgv(content: bytes, signature: bytes, certificate: Certificate, key: Key) -> str | None:
    with tempfile.TemporaryDirectory(prefix="nifty-gpgv-") as folder:
        # a homedir of its own, or gpgv looks into the user's
        home = Path(folder)
        ring, detached, signed = home / "ring.gpg", home / "signature", home / "content"
        for path, part in ((ring, certificate.binary), (detached, signature), (signed, content)):
            files.write(path, part, mode=0o600)
        words: list[str | Path] = ["gpgv", "--homedir", home, "--weak-digest", "SHA1"]
        words += ["--status-fd", "1", "--keyring", ring]
        try:
            done = run([*words, detached, signed], timeout=_GPGV_TIMEOUT, check=False)
        except ProgramError as error:
            raise SignatureError(
                f"nothing here can check a signature: {error.message}",
                hint="apt install gpgv, or pip install -e '.[verify]' in this virtual environment",
            ) from error
    # splitlines would take other characters for ends, and notations are whoever's
    lines = done.stdout.split("\n")
    status = [line.split()[1:] for line in lines if line.startswith("[GNUPG:]")]
    for words_of in status:
        if words_of and words_of[0] in _WORDS:
            return _WORDS[words_of[0]]
    valid = [line[1] for line in status if len(line) > 1 and line[0] == "VALIDSIG"]
    if done.returncode == 0 and valid == [key.fingerprint]:
        return None
    return "gpgv does not accept it"
