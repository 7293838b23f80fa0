"""The secret that signs releases: where it comes from, and the files a new one is written to.

It stands in a file that only its owner may read, or in the environment; never on a command line,
which every user of the machine can read, nor in a log.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, readable, reason
from pipeline.release import material, openpgp
from pipeline.release.material import MaterialError
from pipeline.run import SECRETS
from pipeline.trust import keyring, packets
from pipeline.trust.packets import PacketError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pipeline.release.openpgp import Secret
    from pipeline.trust.keyring import Certificate, Key, Keyring

VARIABLE, PASSWORD = SECRETS
PRIMARY, SIGNING = "nifty-primary.pgp", "nifty-signing.pgp"
_SECRET_FILES = (PRIMARY, SIGNING)
WARNING_DAYS = 60


class SigningKeyError(NiftyError):
    """A signing key that is not there, cannot be used, or may not be used any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """A secret key that can sign: its *certificate*, its newest good *key*, and where it is from.

    Nothing of the secret is shown.
    """

    where: str
    certificate: Certificate
    key: Key
    secret: bytes = field(repr=False)
    password: str = field(repr=False)

    def sign(self, content: bytes) -> bytes:
        """A detached signature over *content*, binary. Raises SigningKeyError."""
        from pysequoia import SignatureMode, Tsk, sign  # noqa: PLC0415 (10 MB)

        try:
            signer = Tsk.from_bytes(self.secret).signer(self.password or None)
            return bytes(sign(signer, content, mode=SignatureMode.DETACHED, armor=False))
        except (RuntimeError, ValueError) as error:
            hint = f"is the password in {PASSWORD} the right one, or missing?"
            raise SigningKeyError(
                f"{self.where}: the key does not sign: {_first_line(error)}", hint=hint
            ) from None

    def ed25519(self) -> Ed25519PrivateKey | None:
        """The key without OpenPGP around it; None if it is not of that kind.

        Raises SigningKeyError if it cannot be opened.
        """
        if self.key.ed25519 is None:
            return None
        try:
            return material.ed25519(self.secret, self.key.ed25519, self.password)
        except NiftyError as error:
            hint = f"is the password in {PASSWORD} the right one, or missing?"
            raise SigningKeyError(f"{self.where}: {error.message}", hint=hint) from None

    def warning(self, now: datetime) -> str | None:
        """What to say of a key that is about to expire."""
        end = self.certificate.expiry(self.key)
        if end is None or (left := (end - now).days) >= WARNING_DAYS:
            return None
        return f"the signing key expires on {end:%Y-%m-%d}, in {left} days: doit key renew=yes"


def given(path: str, environment: Mapping[str, str]) -> tuple[str, bytes] | None:
    """Where the secret comes from and its bytes: the file *path*, else the environment.

    None if neither is given. Raises SigningKeyError for a file others may read.
    """
    if path:
        return path, _read(Path(path))
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return None
    if text.startswith("-----BEGIN"):
        return VARIABLE, text.encode() + b"\n"
    try:
        return VARIABLE, base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise SigningKeyError(
            f"{VARIABLE}: neither an armored key nor one in base64",
            hint=f"base64 -w0 {SIGNING}, or the text from -----BEGIN to the end",
        ) from None


def _read(path: Path) -> bytes:
    def look(state: os.stat_result) -> None:
        if stat.S_IMODE(state.st_mode) & 0o077:
            raise SigningKeyError(
                f"{path}: others may read it (mode {stat.S_IMODE(state.st_mode):04o})",
                hint=f"chmod 600 {path}; if others could read it for long, revoke it: "
                "doit key revoke=FINGERPRINT",
            )
        if state.st_uid not in (0, os.geteuid()):
            raise SigningKeyError(
                f"{path}: belongs to the user {state.st_uid}, neither to you nor to root",
                hint=f"as that user, or a copy of your own: install -m 600 {path} COPY",
            )

    try:
        return files.read(path.resolve(), limit=keyring.LIMIT, look=look)
    except OSError as error:
        hint = "doit key new=yes makes one" if error.errno == errno.ENOENT else readable(error)
        raise SigningKeyError(f"{path}: {error.strerror}", hint=hint) from error


def public(where: str, secret: bytes) -> Certificate:
    """The certificate of *secret*, a secret key binary or armored. Raises SigningKeyError."""
    from pysequoia import Tsk  # noqa: PLC0415 (10 MB)

    try:
        if packets.packets(secret)[0].tag != packets.SECRET_KEY:
            raise SigningKeyError(
                f"{where}: no secret OpenPGP key: a public one, or something else"
            )
        certificate = bytes(Tsk.from_bytes(secret).extract_certificate())
    except PacketError as error:
        raise SigningKeyError(f"{where}: no secret OpenPGP key: {error.message}") from None
    except (RuntimeError, ValueError) as error:
        raise SigningKeyError(f"{where}: no secret OpenPGP key: {_first_line(error)}") from None
    return keyring.read(certificate, name=where).certificates[0]


def load(
    where: str,
    secret: bytes,
    environment: Mapping[str, str],
    now: datetime,
    *,
    ring: Keyring | None = None,
) -> Signing:
    """The key in *secret*, if it may sign at *now*; how long that is, the published *ring* says.

    Without one, the secret's own certificate does. Raises SigningKeyError.
    """
    own = public(where, secret)
    certificate = own if ring is None else _published(where, own, ring)
    here = {key.fingerprint for key in own.signers}
    refusals = {
        key: certificate.refusal(key, now) for key in certificate.signers if key.fingerprint in here
    }
    good = [key for key, why in refusals.items() if why is None]
    if not good:
        why = next(iter(refusals.values()), None) or f"{own.title} has no signing key"
        hint = "doit key renew=yes key=PRIMARY makes another"
        if certificate.primary.is_revoked:
            hint = "doit key new=yes makes one"
        elif not all(key.is_revoked for key in refusals):
            hint += ", extend=yes lets this one live longer"
        raise SigningKeyError(f"{where}: {why}", hint=hint)
    key = max(good, key=lambda key: key.created)
    return Signing(
        where=where,
        certificate=certificate,
        key=key,
        secret=openpgp.with_secrets(certificate.binary, _bodies(secret, key, certificate)),
        password=environment.get(PASSWORD, ""),
    )


def _bodies(secret: bytes, key: Key, certificate: Certificate) -> list[bytes]:
    """That of *key*'s packet in *secret*."""
    (public,) = (
        one.body
        for one in packets.packets(certificate.binary)
        if one.tag in (packets.PUBLIC_KEY, packets.PUBLIC_SUBKEY)
        if keyring.fingerprint(one.body) == key.fingerprint
    )
    tags = (packets.SECRET_KEY, packets.SECRET_SUBKEY)
    return [
        one.body
        for one in packets.packets(secret)
        if one.tag in tags and one.body.startswith(public)
    ]


def _published(where: str, own: Certificate, ring: Keyring) -> Certificate:
    """*own* as *ring* has it. Raises SigningKeyError if strangers would not know its keys."""
    found = next((one for one in ring.certificates if one.fingerprint == own.fingerprint), None)
    known = {key.fingerprint for key in found.signers} if found else set()
    if found is None or not any(key.fingerprint in known for key in own.signers):
        missing = own.title if found is None else f"the new signing key of {own.title}"
        raise SigningKeyError(
            f"{where}: {ring.name} does not hold {missing}",
            hint="nobody who has that keyring could verify what it signs: "
            "keyring=FILE publishes the one that was made with the key",
        )
    return found


def primary(
    where: str, secret: bytes, environment: Mapping[str, str]
) -> tuple[Certificate, Secret]:
    """The certificate of *secret* and its primary key, which changes it. Raises SigningKeyError."""
    certificate = public(where, secret)
    try:
        password = environment.get(PASSWORD, "")
        return certificate, openpgp.secret(secret, certificate.primary, password)
    except MaterialError as error:
        raise SigningKeyError(
            f"{where}: the primary key cannot be used: {error.message}",
            hint=f"key= the file {PRIMARY}, {PASSWORD} in the environment if it has a password",
        ) from None


def armored(certificate: bytes) -> bytes:
    """*certificate*, or several, as text."""
    from pysequoia import ArmorKind, armor  # noqa: PLC0415 (10 MB)

    return armor(certificate, ArmorKind.PublicKey).encode()


def write(folder: Path, contents: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Put *contents*, by name, into *folder*; secrets are for their owner alone.

    No file is replaced. Raises SigningKeyError.
    """
    there = [str(folder / name) for name in contents if (folder / name).exists()]
    if there:
        raise SigningKeyError(
            f"there already: {', '.join(there)}", hint="to=FOLDER for another place: none is lost"
        )
    written = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in contents.items():
            mode = 0o600 if name in _SECRET_FILES else 0o644
            files.write(folder / name, content, mode=mode, durable=True)
            written.append(folder / name)
        files.sync_folder(folder)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            hint = "to=FOLDER, one that you may write to"
            raise SigningKeyError(reason(error, folder), hint=hint) from error
        raise
    return tuple(written)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
