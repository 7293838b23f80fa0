"""The secret that signs releases: where it comes from, and the files a new one is written to.

It stands in a file that only its owner may read, or in the environment; never on a command line,
which every user of the machine can read, nor in a log.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, reason
from pipeline.trust import keyring, packets
from pipeline.trust.packets import PacketError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pipeline.release.openpgp import Made
    from pipeline.trust.keyring import Certificate, Key

VARIABLE, PASSWORD = "NIFTY_SIGNING_KEY", "NIFTY_SIGNING_PASSWORD"
PRIMARY, SIGNING = "nifty-primary.pgp", "nifty-signing.pgp"
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

    def warning(self, now: datetime) -> str | None:
        """What to say of a key that is about to expire."""
        end = self.certificate.expiry(self.key)
        if end is None or (left := (end - now).days) >= WARNING_DAYS:
            return None
        return f"the signing key expires on {end:%Y-%m-%d}, in {left} days: doit key new=yes"


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
    try:
        content = files.read(path.resolve(), limit=keyring.LIMIT)
        state = path.stat()
    except OSError as error:
        raise SigningKeyError(f"{path}: {error.strerror}") from error
    if stat.S_IMODE(state.st_mode) & 0o077:
        raise SigningKeyError(
            f"{path}: others may read it (mode {stat.S_IMODE(state.st_mode):04o})",
            hint=f"chmod 600 {path}; if others could read it for long, make a new one",
        )
    if state.st_uid not in (0, os.geteuid()):
        raise SigningKeyError(
            f"{path}: belongs to the user {state.st_uid}, neither to you nor to root"
        )
    return content


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


def load(where: str, secret: bytes, environment: Mapping[str, str], now: datetime) -> Signing:
    """The key in *secret*, if it may sign at *now*. Raises SigningKeyError."""
    certificate = public(where, secret)
    refusals = {key: certificate.refusal(key, now) for key in certificate.signers}
    good = [key for key, why in refusals.items() if why is None]
    if not good:
        why = next(iter(refusals.values()), None) or f"{certificate.title} has no signing key"
        raise SigningKeyError(f"{where}: {why}", hint="doit key new=yes makes one")
    return Signing(
        where=where,
        certificate=certificate,
        key=max(good, key=lambda key: key.created),
        secret=secret,
        password=environment.get(PASSWORD, ""),
    )


def armored(certificate: bytes) -> bytes:
    """*certificate*, or several, as text."""
    from pysequoia import ArmorKind, armor  # noqa: PLC0415 (10 MB)

    return armor(certificate, ArmorKind.PublicKey).encode()


def write(folder: Path, made: Made, public_names: tuple[str, str]) -> tuple[Path, ...]:
    """Put *made* into *folder*: primary and signing secret, keyring in binary and as text.

    No file is replaced. Raises SigningKeyError.
    """
    contents = {
        PRIMARY: (made.primary, 0o600),
        SIGNING: (made.signing, 0o600),
        public_names[0]: (made.certificate, 0o644),
        public_names[1]: (armored(made.certificate), 0o644),
    }
    there = [str(folder / name) for name in contents if (folder / name).exists()]
    if there:
        raise SigningKeyError(
            f"there already: {', '.join(there)}", hint="to=FOLDER for another place: none is lost"
        )
    written = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, (content, mode) in contents.items():
            files.write(folder / name, content, mode=mode, durable=True)
            written.append(folder / name)
        files.sync_folder(folder)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SigningKeyError(reason(error, folder)) from error
        raise
    return tuple(written)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
