"""Detached OpenPGP signatures: a pinned signature by a pinned key, over exactly one file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.paths import beneath

if TYPE_CHECKING:
    from pathlib import Path

    from pysequoia import Cert

    from pipeline.builder.recipes.component import Signature


class SignatureError(NiftyError):
    """A signature that does not hold, or a key or signature file that is not the pinned one."""


def verify(path: Path, signature: Signature, folder: Path) -> None:
    """Returns if the file *path* is signed as the recipe in *folder* says; else SignatureError.

    The signature file has the pinned sha256, the key file holds the certificate whose primary key
    has the pinned fingerprint, and the signature is made by it or by a signing subkey bound to it.
    A signature with `dsa` is checked by `sources.dsa` instead of Sequoia, see there.
    """
    signed = _read(folder, signature.file)
    digest = hashlib.sha256(signed).hexdigest()
    if digest != signature.sha256:
        raise SignatureError(
            f"{folder / signature.file}: has the sha256 {digest}, "
            f"the recipe pins {signature.sha256} (source.signature.sha256)"
        )
    key = _read(folder, signature.key)
    if signature.dsa:
        # only this one, deprecated case needs the primitives
        from pipeline.builder.sources import dsa  # noqa: PLC0415

        problem = dsa.problem(path, signed, key, signature.fingerprint)
    else:
        certificate = _certificate(folder / signature.key, key, signature.fingerprint)
        problem = _sequoia_problem(path, signed, certificate)
    if problem:
        raise SignatureError(
            f"{path.name}: the signature {folder / signature.file} does not hold: {problem}",
            hint="never build from it: ask upstream, or another source, before changing the recipe",
        )


def _read(folder: Path, name: str) -> bytes:
    path = beneath(folder, name)
    try:
        return path.read_bytes()
    except OSError as error:
        raise SignatureError(
            f"{path}: {error.strerror}", hint="this file belongs to the recipe: restore it"
        ) from error


def _certificate(path: Path, key: bytes, fingerprint: str) -> Cert:
    from pysequoia import Cert  # noqa: PLC0415 (10 MB that only a fetch needs)

    try:
        found = Cert.split_bytes(key)
    except (RuntimeError, ValueError) as error:
        raise SignatureError(f"{path}: not an OpenPGP certificate: {_first_line(error)}") from error
    for certificate in found:
        if certificate.fingerprint.upper() == fingerprint:
            return certificate
    names = ", ".join(certificate.fingerprint.upper() for certificate in found) or "no key"
    raise SignatureError(
        f"{path}: holds {names}, the recipe pins {fingerprint} (source.signature.fingerprint)"
    )


def _sequoia_problem(path: Path, signed: bytes, certificate: Cert) -> str | None:
    from pysequoia import Sig, verify  # noqa: PLC0415 (as above)

    try:
        signature = Sig.from_bytes(signed)
        found = verify(file=path, signature=signature, store=lambda _ids: [certificate])
    except (RuntimeError, ValueError) as error:
        return _first_line(error)
    by = {valid.certificate.upper() for valid in found.valid_sigs}
    if by != {certificate.fingerprint.upper()}:
        return f"signed by {', '.join(sorted(by)) or 'nobody'}"
    return None


def _first_line(error: Exception) -> str:
    # Sequoia's errors carry a stack backtrace in their text
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
