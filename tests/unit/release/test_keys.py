"""The secret that signs: from a file nobody else may read or the environment, and never shown."""

from __future__ import annotations

import base64
import os
import stat
from datetime import timedelta
from typing import TYPE_CHECKING

import pysequoia
import pytest

from pipeline import settings as variables
from pipeline.commands import key as command
from pipeline.errors import UsageError
from pipeline.release import keys, openpgp
from pipeline.release.keys import SigningKeyError
from pipeline.trust import keyring
from pipeline.trust.verify import verify
from tests.support import signers

if TYPE_CHECKING:
    from pathlib import Path

BODY = b"what is signed"
OWNER = "Nifty <nifty@example.org>"


def doit_key(**given: str) -> None:
    command.run(variables.parse(given, images=["nifty"]))


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    monkeypatch.delenv(keys.PASSWORD, raising=False)


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    doit_key(new="yes", owner=OWNER, to=str(tmp_path / "keys"))
    capsys.readouterr()
    return tmp_path / "keys"


def test_new_keys_are_for_their_owner_alone(folder: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {
        "nifty-primary.pgp": 0o600,
        "nifty-signing.pgp": 0o600,
        "nifty-keyring.pgp": 0o644,
        "nifty-keyring.asc": 0o644,
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    binary = keyring.load(folder / "nifty-keyring.pgp")
    assert binary.certificates[0].users == (OWNER,)
    assert keyring.load(folder / "nifty-keyring.asc").certificates == binary.certificates


def test_the_signing_key_lives_thirteen_months_and_the_primary_five_years(folder: Path) -> None:
    (made,) = keyring.load(folder / "nifty-keyring.pgp").certificates
    assert made.primary.expires is not None
    assert made.primary.expires - made.primary.created == timedelta(days=1826)
    (signing,) = made.signers
    assert signing.expires is not None
    assert signing.expires - signing.created == timedelta(days=396)
    assert signing is made.subkeys[0]


def test_no_key_is_ever_replaced(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SigningKeyError, match=r"there already: .*nifty-primary\.pgp"):
        doit_key(new="yes", owner=OWNER, to=str(folder))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("form", ["file", "base64", "armored"])
def test_the_secret_signs_wherever_it_comes_from(folder: Path, form: str) -> None:
    secret = (folder / "nifty-signing.pgp").read_bytes()
    armored = pysequoia.armor(secret, pysequoia.ArmorKind.SecretKey)
    environment = {
        "file": {},
        "base64": {keys.VARIABLE: base64.b64encode(secret).decode() + "\n"},
        "armored": {keys.VARIABLE: armored},
    }[form]
    found = keys.given(str(folder / "nifty-signing.pgp") if form == "file" else "", environment)
    assert found is not None
    signing = keys.load(*found, environment, signers.NOW + timedelta(minutes=1))
    ring = keyring.load(folder / "nifty-keyring.pgp")
    signed = verify(BODY, signing.sign(BODY), ring, name="S")
    assert signed.key.fingerprint == signing.key.fingerprint
    assert secret not in repr(signing).encode()
    assert "secret=" not in repr(signing)


def test_the_signing_file_cannot_certify(folder: Path) -> None:
    secret = pysequoia.Tsk.from_bytes((folder / "nifty-signing.pgp").read_bytes())
    with pytest.raises(RuntimeError):
        secret.certifier()
    pysequoia.Tsk.from_bytes((folder / "nifty-primary.pgp").read_bytes()).certifier()


def test_a_secret_others_may_read_is_refused(folder: Path) -> None:
    path = folder / "nifty-signing.pgp"
    path.chmod(0o640)
    with pytest.raises(SigningKeyError, match=r"others may read it \(mode 0640\)"):
        keys.given(str(path), {})


def test_the_mode_is_that_of_what_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has the name a moment later: facts and bytes are of one open file."""
    path, other = folder / "nifty-signing.pgp", tmp_path / "other"
    other.write_bytes(b"of somebody")
    other.chmod(0o644)
    real = os.fstat

    def exchanged(file: int) -> os.stat_result:
        other.replace(path)
        monkeypatch.setattr(os, "fstat", real)
        return real(file)

    before = path.read_bytes()
    monkeypatch.setattr(os, "fstat", exchanged)
    assert keys.given(str(path), {}) == (str(path), before)
    with pytest.raises(SigningKeyError, match="others may read it"):
        keys.given(str(path), {})


def test_what_is_no_secret_key_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match="neither an armored key nor one in base64"):
        keys.given("", {keys.VARIABLE: "hello!"})
    ring = (folder / "nifty-keyring.pgp").read_bytes()
    for content in (ring, b"", b"hello"):
        with pytest.raises(SigningKeyError, match="no secret OpenPGP key"):
            keys.public("here", content)
    with pytest.raises(SigningKeyError, match="No such file"):
        keys.given(str(tmp_path / "nowhere"), {})
    assert keys.given("", {}) is None


def test_an_expired_key_signs_nothing_and_a_late_one_warns() -> None:
    made = signers.signer(age=timedelta(0)).made

    def load(days: int) -> keys.Signing:
        return keys.load("here", made.signing, {}, signers.NOW + timedelta(days=days))

    assert load(335).warning(signers.NOW + timedelta(days=335)) is None
    warning = load(337).warning(signers.NOW + timedelta(days=337))
    assert warning is not None
    assert "in 59 days" in warning
    with pytest.raises(SigningKeyError, match=r"expired on .*\nhint: doit key renew=yes"):
        load(396)


def test_a_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    made = openpgp.make("N", now=signers.NOW, days=9, signing_days=9, password="sesame")
    right = keys.load("here", made.signing, {keys.PASSWORD: "sesame"}, signers.NOW)
    ring = keyring.read(made.certificate, name="k")
    verify(BODY, right.sign(BODY), ring, name="S")
    for wrong in ({}, {keys.PASSWORD: "simsim"}):
        with pytest.raises(SigningKeyError, match="the key does not sign") as caught:
            keys.load("here", made.signing, wrong, signers.NOW).sign(BODY)
        assert "simsim" not in str(caught.value)
        assert keys.PASSWORD in str(caught.value)


def test_a_key_is_shown_with_its_days(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doit_key(key=str(folder / "nifty-signing.pgp"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[1], row[4]) for row in rows[1:]] == [("certify", "1825"), ("sign", "395")]
    doit_key(keyring=str(folder / "nifty-keyring.asc"))
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == rows


def test_what_is_missing_is_asked_for() -> None:
    with pytest.raises(UsageError, match="whose key"):
        doit_key(new="yes")
    with pytest.raises(UsageError, match="where to"):
        doit_key(new="yes", owner=OWNER)
    with pytest.raises(UsageError, match="which key"):
        doit_key()
