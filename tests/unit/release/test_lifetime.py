"""A key over its whole life, and what strangers with the old and the new keyring then take.

Each is asked of Sequoia and of gpgv as `verify` uses them, and of gpgv by itself.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pysequoia
import pytest

from pipeline import settings as variables
from pipeline.commands import key as command
from pipeline.commands import publish
from pipeline.errors import NiftyError, UsageError
from pipeline.release import keys, lifetime, openpgp
from pipeline.run import run
from pipeline.trust import keyring, packets
from pipeline.trust.verify import SignatureError, verify
from tests.support import signers

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pipeline.trust.keyring import Certificate

BODY = b"what is released\n"
NOW = signers.NOW
YEAR = {"days": 1826, "signing_days": 396}


class Life:
    """A certificate, its primary key, and what each did to it."""

    def __init__(self, signer: signers.Signer) -> None:
        self.made = signer.made
        self.old = signer.certificate
        self.top = signer.secret(0)

    @property
    def certificate(self) -> Certificate:
        return read(self.old)

    def renewed(self, now: datetime = NOW) -> openpgp.Made:
        return lifetime.renewed(self.certificate, self.top, now=now, password="", **YEAR)

    def revoked(self, which: int) -> bytes:
        found = self.certificate
        key = (found.primary, *found.subkeys)[which]
        return lifetime.revoked(found, self.top, key, now=NOW)


def read(certificate: bytes) -> Certificate:
    (found,) = keyring.read(certificate, name="k").certificates
    return found


@pytest.fixture(scope="module")
def life() -> Life:
    return Life(signers.signer(age=timedelta(days=100)))


@pytest.fixture(params=["sequoia", "gpgv", "gpgv alone", "sequoia alone"])
def stranger(request: pytest.FixtureRequest, tmp_path: Path) -> Stranger:
    if "gpgv" in request.param:
        signers.require("gpgv")
    return Stranger(request.param, tmp_path)


class Stranger:
    """Somebody with a keyring, and one of the programs that check signatures."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder

    def takes(self, signature: bytes, ring: bytes) -> bool:
        """Whether they take *signature* of BODY by somebody in *ring*."""
        if self.program == "gpgv alone":
            for name, content in (("ring", ring), ("sig", signature), ("body", BODY)):
                (self.folder / name).write_bytes(content)
            words: list[str | Path] = [
                "gpgv",
                "--homedir",
                self.folder,
                "--keyring",
                self.folder / "ring",
            ]
            done = run([*words, self.folder / "sig", self.folder / "body"], check=False)
            return done.returncode == 0
        if self.program == "sequoia alone":
            known = [pysequoia.Cert.from_bytes(ring)]
            try:
                parsed = pysequoia.Sig.from_bytes(signature)
                pysequoia.verify(bytes=BODY, signature=parsed, store=lambda _ids: known)
            except RuntimeError:
                return False
            return True
        try:
            known_to_us = keyring.read(ring, name="k")
            verify(BODY, signature, known_to_us, name="S", program=self.program)
        except SignatureError:
            return False
        return True


def signed(secret: bytes) -> bytes:
    signer = pysequoia.Tsk.from_bytes(secret).signer()
    mode = pysequoia.SignatureMode.DETACHED
    return bytes(pysequoia.sign(signer, BODY, mode=mode, armor=False))


def test_a_new_signing_key_needs_the_new_keyring_and_the_old_one_stays_good(
    life: Life, stranger: Stranger
) -> None:
    made = life.renewed()
    before, after = signed(life.made.signing), signed(made.signing)
    assert stranger.takes(before, life.old)
    assert not stranger.takes(after, life.old)
    assert stranger.takes(before, made.certificate)
    assert stranger.takes(after, made.certificate)


@pytest.mark.parametrize("which", [0, 1])
def test_a_revocation_holds_for_who_has_it(life: Life, stranger: Stranger, which: int) -> None:
    made = signed(life.made.signing)
    revoked = life.revoked(which)
    assert stranger.takes(made, life.old)  # a revocation that nobody has is none
    # gpgv by itself, and so systemd-pull, heeds none: hence what is published is without the key
    assert stranger.takes(made, revoked) is (stranger.program == "gpgv alone")
    left = keyring.read(revoked, name="k").without_revoked
    assert left == b"" or not stranger.takes(made, left)


def test_after_a_revocation_another_signing_key_is_good(life: Life, stranger: Stranger) -> None:
    stolen = Life(signers.signer(age=timedelta(days=100)))
    before = signed(stolen.made.signing)
    stolen.old = stolen.revoked(1)
    made = stolen.renewed()
    published = keyring.read(made.certificate, name="k").without_revoked
    for ring in (published, made.certificate)[: 1 if stranger.program == "gpgv alone" else 2]:
        assert not stranger.takes(before, ring)
        assert stranger.takes(signed(made.signing), ring)
    assert not stranger.takes(signed(made.signing), stolen.old)


def test_an_expired_key_lives_again_when_it_is_extended(stranger: Stranger) -> None:
    """Signatures of before and after; gpgv by itself takes those of expired keys always."""
    signer = signers.signer(age=timedelta(days=400))
    late, sub = Life(signer), signer.secret(1)
    before = signers.signed_at(sub, BODY, NOW - timedelta(days=200))
    longer = lifetime.extended(late.certificate, late.top, now=NOW, **YEAR)
    after = signers.signed_at(sub, BODY, NOW)
    lenient = stranger.program.endswith("alone")
    assert stranger.takes(before, late.old) is lenient
    assert stranger.takes(after, late.old) is (stranger.program == "gpgv alone")
    assert stranger.takes(before, longer)
    assert stranger.takes(after, longer)


def test_anothers_signing_key_bound_to_nobody_is_refused(life: Life, stranger: Stranger) -> None:
    """Mallory's subkey in our certificate, with a binding that Mallory's primary key made."""
    mallory = Life(signers.signer("Mallory <m@example.org>"))
    stolen = b"".join(one.raw for one in packets.packets(mallory.old)[3:])
    assert not stranger.takes(signed(mallory.made.signing), life.old + stolen)


def test_nothing_becomes_shorter_and_what_is_revoked_stays_so(life: Life) -> None:
    short = lifetime.extended(life.certificate, life.top, now=NOW, days=1, signing_days=1)
    assert [key.expires for key in (read(short).primary, *read(short).subkeys)] == [
        key.expires for key in (life.certificate.primary, *life.certificate.subkeys)
    ]
    made = read(life.renewed().certificate)
    assert made.primary.expires == NOW + timedelta(days=1826)
    assert [key.expires for key in made.subkeys] == [
        life.certificate.subkeys[0].expires, NOW + timedelta(days=396),
    ]  # fmt: skip
    gone = read(life.revoked(0))
    for change in (
        lambda: lifetime.extended(gone, life.top, now=NOW, **YEAR),
        lambda: lifetime.renewed(gone, life.top, now=NOW, password="", **YEAR),
        lambda: lifetime.revoked(gone, life.top, gone.subkeys[0], now=NOW),
    ):
        with pytest.raises(lifetime.LifetimeError, match="is revoked, for ever"):
            change()
    without = read(life.revoked(1))
    with pytest.raises(lifetime.LifetimeError, match="no signing subkey that is not revoked"):
        lifetime.extended(without, life.top, now=NOW, **YEAR)
    with pytest.raises(lifetime.LifetimeError, match="is revoked already"):
        lifetime.revoked(without, life.top, without.subkeys[0], now=NOW)


# ----- doit key


def doit_key(**given: str) -> None:
    command.run(variables.parse(given, images=["nifty"]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    monkeypatch.delenv(keys.PASSWORD, raising=False)
    doit_key(new="yes", owner="Nifty <n@example.org>", to=str(tmp_path / "1"))
    return tmp_path


def test_a_key_is_renewed_extended_and_revoked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    primary = str(folder / "1/nifty-primary.pgp")
    ring = folder / "1/nifty-keyring.pgp"
    other = signers.signer("Other <o@example.org>").certificate
    ring.write_bytes(ring.read_bytes() + other)
    doit_key(renew="yes", key=primary, keyring=str(ring), to=str(folder / "2"), years="9")
    assert sorted(path.name for path in (folder / "2").iterdir()) == [
        "nifty-keyring.asc", "nifty-keyring.pgp", "nifty-signing.pgp",
    ]  # fmt: skip
    mine, theirs = keyring.load(folder / "2/nifty-keyring.asc").certificates
    assert theirs.binary == other
    old, new = mine.subkeys
    assert mine.primary.expires is not None
    assert mine.primary.expires - mine.primary.created >= timedelta(days=9 * 365)

    revoke = {"revoke": old.fingerprint, "key": primary}
    doit_key(**revoke, keyring=str(folder / "2/nifty-keyring.pgp"), to=str(folder / "3"))
    last = keyring.load(folder / "3/nifty-keyring.pgp")
    assert [key.is_revoked for key in last.certificates[0].subkeys] == [True, False]
    doit_key(extend="yes", key=primary, keyring=str(folder / "3/nifty-keyring.pgp"),
             to=str(folder / "4"))  # fmt: skip
    assert sorted(path.name for path in (folder / "4").iterdir()) == [
        "nifty-keyring.asc", "nifty-keyring.pgp",
    ]  # fmt: skip
    capsys.readouterr()

    def load(number: int) -> keys.Signing:
        secret = (folder / f"{number}/nifty-signing.pgp").read_bytes()
        return keys.load("F", secret, {}, NOW + timedelta(minutes=5), ring=last)

    assert load(2).key.fingerprint == new.fingerprint
    verify(BODY, load(2).sign(BODY), last, name="S")
    with pytest.raises(keys.SigningKeyError, match=rf"F: .*{old.fingerprint}.* is revoked"):
        load(1)


def test_what_a_change_needs_is_asked_for(folder: Path) -> None:
    primary, signing = (str(folder / f"1/nifty-{name}.pgp") for name in ("primary", "signing"))
    ring, to = str(folder / "1/nifty-keyring.pgp"), str(folder / "2")
    with pytest.raises(UsageError, match="renew= and extend= are different things"):
        doit_key(renew="yes", extend="yes")
    with pytest.raises(UsageError, match="which key, and in which keyring"):
        doit_key(renew="yes", key=primary, to=to)
    with pytest.raises(UsageError, match="where to"):
        doit_key(renew="yes", key=primary, keyring=ring)
    with pytest.raises(keys.SigningKeyError, match="the secret key is not in this file") as caught:
        doit_key(renew="yes", key=signing, keyring=ring, to=to)
    assert "nifty-primary.pgp" in str(caught.value)
    with pytest.raises(UsageError, match=r"no key of Nifty .*\nhint: it has"):
        doit_key(revoke="A" * 40, key=primary, keyring=ring, to=to)
    (folder / "other").write_bytes(signers.signer().certificate)
    with pytest.raises(NiftyError, match="does not hold"):
        doit_key(renew="yes", key=primary, keyring=str(folder / "other"), to=to)
    assert not (folder / "2").exists()


def test_a_key_that_strangers_do_not_know_signs_nothing(life: Life) -> None:
    ring = keyring.read(life.old, name="published.pgp")
    with pytest.raises(keys.SigningKeyError, match="does not hold the new signing key") as caught:
        keys.load("F", life.renewed().signing, {}, NOW, ring=ring)
    assert "keyring=FILE" in str(caught.value)
    with pytest.raises(keys.SigningKeyError, match=r"published\.pgp does not hold Mallory"):
        keys.load("F", signers.signer("Mallory").made.signing, {}, NOW, ring=ring)


def test_a_secret_lives_as_long_as_the_published_keyring_says() -> None:
    late = Life(signers.signer(age=timedelta(days=400)))
    with pytest.raises(keys.SigningKeyError, match=r"expired on .*\nhint: doit key renew=yes"):
        keys.load("F", late.made.signing, {}, NOW)
    longer = lifetime.extended(late.certificate, late.top, now=NOW, **YEAR)
    ring = keyring.read(longer, name="k")
    signing = keys.load("F", late.made.signing, {}, NOW, ring=ring)
    verify(BODY, signing.sign(BODY), ring, name="S")


def test_what_is_published_takes_no_revocation_back(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "RELEASE", tmp_path)
    (tmp_path / "old.pgp").write_bytes(life.old)
    asked = variables.parse({"keyring": str(tmp_path / "old.pgp")}, images=["nifty"])
    plain = variables.parse({}, images=["nifty"])
    assert publish._keyring(plain) is None
    assert publish._keyring(asked) == keyring.load(tmp_path / "old.pgp")
    (tmp_path / "nifty-keyring.asc").write_bytes(keys.armored(life.revoked(1)))
    assert publish._keyring(plain) == keyring.load(tmp_path / "nifty-keyring.asc")
    with pytest.raises(NiftyError, match=r"old\.pgp: older than .* is revoked"):
        publish._keyring(asked)
