"""The bare key inside an OpenPGP one: with and without password, ours and GnuPG's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.release import keys, material, openpgp
from pipeline.release.keys import SigningKeyError
from pipeline.run import CLEAN_ENVIRONMENT, run
from tests.support import signers

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.release.keys import Signing

PASSWORD = "a pässword"


def loaded(secret: bytes, password: str = "") -> Signing:
    return keys.load("test", secret, {keys.PASSWORD: password}, signers.NOW)


def ours(password: str = "") -> bytes:
    made = openpgp.make(
        "A <a@example.org>", now=signers.NOW, days=9, signing_days=9, password=password
    )
    return made.signing


def opened(signing: Signing) -> bytes:
    key = signing.ed25519()
    assert key is not None
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


@pytest.mark.parametrize("password", ["", PASSWORD])
def test_it_is_the_signing_key_of_the_certificate(password: str) -> None:
    signing = loaded(ours(password), password)
    assert opened(signing) == signing.key.ed25519
    assert signing.key is not signing.certificate.primary


def test_a_wrong_password_and_a_damaged_key_are_told() -> None:
    with pytest.raises(SigningKeyError, match="the password does not open") as caught:
        loaded(ours(PASSWORD), "another").ed25519()
    assert keys.PASSWORD in str(caught.value.hint)
    secret = bytearray(ours())
    raw = loaded(bytes(secret)).key.ed25519
    assert raw is not None
    at = secret.index(raw) + len(raw) + 3  # into the number, behind usage and length
    secret[at] ^= 1
    with pytest.raises(material.MaterialError, match="damaged"):
        material.ed25519(bytes(secret), raw, "")
    with pytest.raises(material.MaterialError, match="is not there"):
        material.ed25519(ours(), raw, "")


@pytest.mark.parametrize(("kind", "password"), [("ed25519", PASSWORD), ("rsa2048", "")])
def test_a_subkey_that_gnupg_made_and_exported(tmp_path: Path, password: str, kind: str) -> None:
    signers.require("gpg")
    (tmp_path / "home").mkdir(mode=0o700)
    environment = {**CLEAN_ENVIRONMENT, "PATH": os.environ["PATH"]}
    gpg = ["gpg", "--homedir", str(tmp_path / "home"), "--batch", "--pinentry-mode", "loopback"]
    gpg += ["--passphrase", password]
    who = "G <g@example.org>"
    try:
        run([*gpg, "--quick-gen-key", who, kind, "cert", "1y"], env=environment)
        listed = run([*gpg, "--with-colons", "--list-keys"], env=environment).stdout
        name = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
        run([*gpg, "--quick-add-key", name, kind, "sign", "1y"], env=environment)
        path = tmp_path / "secret"
        run([*gpg, "--output", str(path), "--export-secret-subkeys", name], env=environment)
    finally:
        run(["gpgconf", "--homedir", str(tmp_path / "home"), "--kill", "all"], check=False)
    signing = loaded(path.read_bytes(), password)
    if kind == "rsa2048":
        assert signing.ed25519() is None
    else:
        assert opened(signing) == signing.key.ed25519
