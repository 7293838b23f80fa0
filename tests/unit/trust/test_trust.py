"""Signatures by who is trusted, sums, and what was seen: strict, and refused in one line each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pysequoia
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import NiftyError
from pipeline.release import openpgp
from pipeline.run import CLEAN_ENVIRONMENT, run
from pipeline.trust import keyring, memory, packets, sums
from pipeline.trust.keyring import KeyringError
from pipeline.trust.memory import OlderError, Seen
from pipeline.trust.packets import PacketError
from pipeline.trust.sums import SumsError
from pipeline.trust.verify import SignatureError, verify
from tests.support import signers

if TYPE_CHECKING:
    from pathlib import Path

BODY = b"what is released\n"


@pytest.fixture(scope="module")
def ours() -> signers.Signer:
    return signers.signer()


@pytest.fixture(scope="module")
def theirs() -> signers.Signer:
    return signers.signer("Mallory <mallory@example.org>")


@pytest.fixture(params=["sequoia", "gpgv"])
def program(request: pytest.FixtureRequest) -> str:
    if request.param == "gpgv":
        signers.require("gpgv")
    return str(request.param)


def problem(content: bytes, signature: bytes, ring: bytes, program: str, **more: datetime) -> str:
    with pytest.raises(SignatureError) as caught:
        verify(content, signature, keyring.read(ring, name="k"), name="S", program=program, **more)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("form", ["binary", "armored"])
def test_a_good_signature_names_who_made_it(
    ours: signers.Signer, theirs: signers.Signer, program: str, form: str
) -> None:
    ring = theirs.certificate + ours.certificate
    made = ours.sign(BODY, armor=form == "armored")
    signed = verify(BODY, made, keyring.read(ring, name="k"), name="S", program=program)
    assert signed.certificate.fingerprint == ours.made.fingerprint
    assert signed.certificate.users == ("Nifty <nifty@example.org>",)
    assert signed.key == signed.certificate.subkeys[0]
    assert abs(signed.created - datetime.now(UTC)) < timedelta(minutes=5)


def test_other_bytes_are_refused(ours: signers.Signer, program: str) -> None:
    made = ours.sign(BODY)
    told = problem(BODY + b"x", made, ours.certificate, program)
    assert told == "S: the signature does not hold: not what was signed"
    broken = made[:-1] + bytes([made[-1] ^ 1])
    told = problem(BODY, broken, ours.certificate, program)
    assert told == "S: the signature does not hold: not what was signed"


def test_anothers_signature_is_refused(
    ours: signers.Signer, theirs: signers.Signer, program: str
) -> None:
    told = problem(BODY, theirs.sign(BODY), ours.certificate, program)
    title = f"Nifty <nifty@example.org> ({ours.made.fingerprint})"
    assert told.endswith(f", which k does not hold; it holds {title}")
    assert told.startswith("S: signed by ")


def test_an_expired_key_signs_nothing(program: str) -> None:
    gone = signers.signer(age=timedelta(days=3), signing_days=4)
    made = gone.sign(BODY)
    ring = keyring.read(gone.certificate, name="k")
    verify(BODY, made, ring, name="S", program=program)
    later = signers.NOW + timedelta(days=2)
    told = problem(BODY, made, gone.certificate, program, now=later)
    end = signers.NOW + timedelta(days=1)
    title = f"Nifty <nifty@example.org> ({gone.made.fingerprint})"
    assert told.endswith(f"of {title} expired on {end:%Y-%m-%d}")


def test_a_signing_key_ends_with_its_primary_key(ours: signers.Signer) -> None:
    made = signers.signer(days=10, signing_days=20)
    (certificate,) = keyring.read(made.certificate, name="k").certificates
    assert certificate.expiry(certificate.subkeys[0]) == certificate.primary.expires


def test_a_revoked_key_signs_nothing(ours: signers.Signer, program: str) -> None:
    told = problem(BODY, ours.sign(BODY), ours.revoked(), program)
    assert told.endswith(f"({ours.made.fingerprint}) is revoked")


def test_a_signature_of_tomorrow_is_refused(ours: signers.Signer, program: str) -> None:
    early = signers.NOW - timedelta(days=2)
    told = problem(BODY, ours.sign(BODY), ours.certificate, program, now=early)
    assert told.endswith("which is yet to come")


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        (b"", "neither binary nor armored OpenPGP"),
        (b"hello", "neither binary nor armored OpenPGP"),
        (b"\xff" * 40, "a packet ends too early"),
        (b"x" * 70_000, "more than 65536 bytes"),
        (openpgp.packet(13, b"user"), "not exactly one signature"),
        (openpgp.packet(2, b"\6"), "a signature of version 6, only 4 is read"),
        (openpgp.packet(2, bytes([4, 1, 22, 10, 0, 0, 0, 0])), "a signature of type 0x01"),
        (b"-----BEGIN PGP SIGNATURE-----\n\n%%%\n-----END PGP SIGNATURE-----\n", "its armor is"),
    ],
)
def test_what_is_no_signature_is_said(
    ours: signers.Signer, program: str, signature: bytes, told: str
) -> None:
    assert told in problem(BODY, signature, ours.certificate, program)


def test_two_signatures_in_one_file_are_refused(ours: signers.Signer, program: str) -> None:
    made = ours.sign(BODY)
    assert "not exactly one signature" in problem(BODY, made + made, ours.certificate, program)


def test_a_keyring_may_be_armored_or_hold_several(
    ours: signers.Signer, theirs: signers.Signer
) -> None:
    binary = keyring.read(ours.certificate + theirs.certificate, name="k")
    armored = keyring.read(ours.armored + theirs.armored, name="k")
    assert binary == armored
    assert binary.binary == ours.certificate + theirs.certificate


def test_a_secret_key_is_no_keyring(ours: signers.Signer, tmp_path: Path) -> None:
    for secret in (ours.made.primary, ours.made.signing):
        with pytest.raises(KeyringError, match="holds a secret key"):
            keyring.read(secret, name="k")
    with pytest.raises(KeyringError, match="no OpenPGP keyring: empty"):
        keyring.read(b"-----BEGIN PGP X-----\n\n-----END PGP X-----", name="k")
    path = tmp_path / "ring"
    path.write_bytes(b"\x99" * (keyring.LIMIT + 1))
    with pytest.raises(KeyringError, match="more than 1048576 bytes"):
        keyring.load(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_packets_or_a_packet_error(content: bytes) -> None:
    try:
        found = packets.packets(content)
        ring = keyring.read(content, name="k")
    except (PacketError, KeyringError):
        return
    assert found
    assert ring.certificates


@given(st.binary(min_size=1, max_size=4), st.integers(0, 500))
def test_a_keyring_damaged_anywhere_is_read_or_refused(damage: bytes, at: int) -> None:
    made = DAMAGED.certificate
    content = made[:at] + damage + made[at + len(damage) :]
    try:
        ring = keyring.read(content, name="k")
        signed = verify(BODY, SIGNED, ring, name="S", program="sequoia")
    except NiftyError:
        return
    assert signed.certificate.fingerprint == DAMAGED.made.fingerprint


DAMAGED = signers.signer()
SIGNED = DAMAGED.sign(BODY)


def test_the_keys_made_here_are_good_for_gnupg(tmp_path: Path) -> None:
    """Imported with their secret, protected or not, and used."""
    signers.require("gpg", "gpgconf")
    for password in ("", "open sesame"):
        home = tmp_path / f"home{len(password)}"
        home.mkdir(mode=0o700)
        made = openpgp.make(
            "N <n@example.org>", now=signers.NOW, days=1826, signing_days=396, password=password
        )
        for name, content in (("key", made.signing), ("body", BODY)):
            (home / name).write_bytes(content)
        gpg: list[str | Path] = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback"]
        gpg += ["--passphrase", password]
        environment = {**CLEAN_ENVIRONMENT, "HOME": str(home)}
        try:
            run([*gpg, "--import", home / "key"], env=environment)
            listed = run([*gpg, "--with-colons", "-K"], env=environment).stdout
            run([*gpg, "-b", "-o", home / "sig", home / "body"], env=environment)
        finally:
            run(["gpgconf", "--homedir", home, "--kill", "all"], env=environment)
        rows = [line.split(":") for line in listed.splitlines()]
        # the primary key's secret is not there (#), and it certifies alone; the other signs alone
        keys = [(row[0], row[11][0], row[14]) for row in rows if row[0] in ("sec", "ssb")]
        assert keys == [("sec", "c", "#"), ("ssb", "s", "+")]
        ring = keyring.read(made.certificate, name="k")
        signed = verify(BODY, (home / "sig").read_bytes(), ring, name="S", program="sequoia")
        assert signed.certificate.fingerprint == made.fingerprint


def test_a_password_is_needed_and_the_right_one(ours: signers.Signer) -> None:
    made = openpgp.make("N", now=signers.NOW, days=2, signing_days=1, password="sesame")
    secret = pysequoia.Tsk.from_bytes(made.primary)
    secret.certifier("sesame")
    with pytest.raises(RuntimeError):
        secret.certifier("simsim")


SUM = "0" * 64


def test_sums_are_read_as_they_were_written() -> None:
    known = {"nifty_2026.11_x86-64.tar.xz": SUM, "a": "f" * 64}
    written = sums.text(known)
    assert written == f"{'f' * 64}  a\n{SUM}  nifty_2026.11_x86-64.tar.xz\n".encode()
    assert sums.read(written) == known


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "empty"),
        (f"{SUM}  a", "its end is missing"),
        (f"{SUM} a\n", "line 1: not"),
        (f"{SUM} *a\n", "line 1: not"),
        (f"{SUM}  a\r\n", "line 1: not"),
        (f"{SUM}  a\n\n", "line 2: not"),
        (f"{SUM}  ../a\n", "line 1: not"),
        (f"{SUM}  b/a\n", "line 1: not"),
        (f"{SUM}  .a\n", "line 1: not"),
        (f"{SUM}  -a\n", "line 1: not"),
        (f"{SUM}   a\n", "line 1: not"),
        (f"{SUM}  a\x1b[2J\n", r"a\x1b[2J"),
        (f"{SUM}  é\n", "line 1: not"),
        (f"{SUM.replace('0', 'A')}  a\n", "line 1: not"),
        (f"{SUM}  a\n{SUM}  a\n", "line 2: a for the second time"),
        (f"{SUM}  a\n" * 20_000, "more than 1048576 bytes"),
    ],
)
def test_what_is_not_exactly_sums_is_refused(content: str, told: str) -> None:
    with pytest.raises(SumsError) as caught:
        sums.read(content.encode())
    assert told in caught.value.message
    assert "\x1b" not in caught.value.message


def test_sums_that_could_not_be_read_are_not_written() -> None:
    for wrong in ({}, {"a/b": SUM}, {"a": "0"}, {"a\nb": SUM}):
        with pytest.raises(SumsError):
            sums.text(wrong)


def test_versions_are_in_the_order_people_expect() -> None:
    ordered = ["2025.12", "2026.9", "2026.11~rc1", "2026.11", "2026.11a", "2026.11.1", "2027"]
    shuffled = sorted(set(ordered), key=memory.order)
    assert shuffled == ordered


def test_what_was_seen_is_kept_and_nothing_older(tmp_path: Path) -> None:
    path = memory.place(tmp_path, "https://example.org/", "nifty")
    assert memory.recall(path) is None
    first = Seen(version="2026.11", signed=signers.NOW)
    memory.remember(path, "https://example.org/", "nifty", first)
    assert memory.recall(path) == first
    older = Seen(version="2026.9", signed=signers.NOW - timedelta(days=1))
    memory.remember(path, "https://example.org/", "nifty", older)
    assert memory.recall(path) == first
    with pytest.raises(OlderError, match=r"version 2026\.9, and 2026\.11 was seen"):
        memory.check(first, older, name="n")
    with pytest.raises(OlderError, match="a signature of"):
        memory.check(first, Seen(version="2026.11", signed=older.signed), name="n")
    memory.check(first, Seen(version="2026.12", signed=signers.NOW), name="n")
    path.write_text("{")
    with pytest.raises(OlderError, match=f"rm {path}"):
        memory.recall(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_signature_may_be_too_old() -> None:
    memory.check_fresh(signers.NOW - timedelta(days=3), 3, signers.NOW, name="n")
    with pytest.raises(OlderError, match="signed 4 days ago, fresh=3 allows 3"):
        memory.check_fresh(signers.NOW - timedelta(days=4), 3, signers.NOW, name="n")


def test_a_time_of_another_size_is_no_time() -> None:
    hashed = bytes([10, packets.CREATED]) + bytes(9)
    body = bytes([4, 0, 22, 8]) + len(hashed).to_bytes(2) + hashed + bytes(2)
    with pytest.raises(PacketError, match="a time of 9 octets"):
        packets.statement(body)


def test_beginnings_without_an_end_are_no_armor() -> None:
    with pytest.raises(PacketError, match="neither binary nor armored"):
        packets.dearmored(b"-----BEGIN PGP SIGNATURE-----\n" * 20000)
