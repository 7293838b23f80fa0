"""OpenPGP keys and signatures for tests, made afresh."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pysequoia
import pytest

from pipeline.release import openpgp
from pipeline.trust import keyring, packets

if TYPE_CHECKING:
    from pipeline.release.openpgp import Made

NOW = datetime.now(UTC).replace(microsecond=0)


def require(*programs: str) -> None:
    """Skip without *programs*; where CI is set they are a must."""
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        told = f"not installed: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)


@dataclass(frozen=True)
class Signer:
    """A key and what it makes."""

    made: Made

    @property
    def certificate(self) -> bytes:
        return self.made.certificate

    @property
    def armored(self) -> bytes:
        return pysequoia.armor(self.certificate, pysequoia.ArmorKind.PublicKey).encode()

    def secret(self, number: int, password: str = "") -> openpgp.Secret:
        """Its primary key (0) or a subkey."""
        (found,) = keyring.read(self.certificate, name="k").certificates
        key = (found.primary, *found.subkeys)[number]
        return openpgp.secret(self.made.primary, key, password)

    def sign(self, content: bytes, *, armor: bool = False) -> bytes:
        signer = pysequoia.Tsk.from_bytes(self.made.signing).signer()
        mode = pysequoia.SignatureMode.DETACHED
        return pysequoia.sign(signer, content, mode=mode, armor=armor)

    def revoked(self) -> bytes:
        """Its certificate, revoked."""
        secret = pysequoia.Tsk.from_bytes(self.made.primary)
        revocation = secret.extract_certificate().revoke(secret.certifier())
        merged = pysequoia.Cert.from_bytes(self.certificate + bytes(revocation))
        return bytes(merged)


def signer(
    name: str = "Nifty <nifty@example.org>",
    *,
    age: timedelta = timedelta(seconds=2),
    days: int = 1826,
    signing_days: int = 396,
) -> Signer:
    """A key made *age* before NOW, whose parts live as many days."""
    return Signer(openpgp.make(name, now=NOW - age, days=days, signing_days=signing_days))


def expiring(seconds: int) -> Signer:
    """A key that is good for *seconds* from now on."""
    begin = datetime.now(UTC) - timedelta(days=1) + timedelta(seconds=seconds)
    return Signer(openpgp.make("Late <late@example.org>", now=begin, days=9, signing_days=1))


def signed_at(key: openpgp.Secret, content: bytes, moment: datetime) -> bytes:
    """A detached signature of *key* over *content*, made at *moment*."""
    body = openpgp._signature(key, 0, content, int(moment.timestamp()), b"")
    return openpgp.packet(packets.SIGNATURE, body)
