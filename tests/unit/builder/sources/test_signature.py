"""Detached signatures: the right file by the right key, and nothing that is only almost so."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, NamedTuple

import pysequoia
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa as primitives
from cryptography.hazmat.primitives.asymmetric import utils

from pipeline.builder.recipes.component import Signature
from pipeline.builder.sources.signature import SignatureError, verify

if TYPE_CHECKING:
    from pathlib import Path

BODY = b"what upstream released"
DSA = "this upstream signs with nothing else"


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    path = tmp_path / "thing.tar"
    path.write_bytes(BODY)
    return path


def pin(folder: Path, signature: bytes, key: bytes, fingerprint: str, dsa: str | None) -> Signature:
    """The recipe's entry for a signature and a key, which are put into *folder*."""
    (folder / "thing.sig").write_bytes(signature)
    (folder / "key.asc").write_bytes(key)
    return Signature(
        file="thing.sig",
        sha256=hashlib.sha256(signature).hexdigest(),
        key="key.asc",
        fingerprint=fingerprint.upper(),
        dsa=dsa,
    )


class Sequoia:
    """A key of today's kind, whose signing subkey signs."""

    def __init__(self) -> None:
        self.secret = pysequoia.Tsk.generate("Upstream <up@example.org>")
        self.certificate = self.secret.extract_certificate()

    def pin(self, folder: Path, body: bytes = BODY, *, dsa: str | None = None) -> Signature:
        made = pysequoia.sign(
            self.secret.signer(), body, mode=pysequoia.SignatureMode.DETACHED, armor=True
        )
        key = str(self.certificate).encode()
        return pin(folder, made, key, self.certificate.fingerprint, dsa)


@pytest.fixture(scope="module")
def upstream() -> Sequoia:
    return Sequoia()


def problem(path: Path, signature: Signature) -> str:
    """What is wrong with the signature; empty if it holds."""
    try:
        verify(path, signature, path.parent)
    except SignatureError as error:
        return str(error)
    return ""


def test_a_good_signature_holds(signed: Path, upstream: Sequoia) -> None:
    assert problem(signed, upstream.pin(signed.parent)) == ""


def test_one_bit_of_the_file_matters(signed: Path, upstream: Sequoia) -> None:
    signature = upstream.pin(signed.parent)
    signed.write_bytes(bytes([BODY[0] ^ 1]) + BODY[1:])
    assert "no valid signatures" in problem(signed, signature)


def test_the_message_has_no_backtrace(signed: Path, upstream: Sequoia) -> None:
    signature = upstream.pin(signed.parent, b"another file")
    assert "backtrace" not in problem(signed, signature)


def test_another_key_is_refused_by_its_fingerprint(signed: Path, upstream: Sequoia) -> None:
    signature = upstream.pin(signed.parent)
    other = Sequoia().certificate
    (signed.parent / "key.asc").write_text(str(other))
    told = problem(signed, signature)
    assert f"holds {other.fingerprint.upper()}, the recipe pins {signature.fingerprint}" in told


def test_a_signature_by_another_key_is_refused(signed: Path, upstream: Sequoia) -> None:
    other = Sequoia().pin(signed.parent)
    (signed.parent / "key.asc").write_text(str(upstream.certificate))
    fingerprint = upstream.certificate.fingerprint.upper()
    signature = other.model_copy(update={"fingerprint": fingerprint})
    assert "no valid signatures" in problem(signed, signature)


def test_a_signature_file_that_was_changed_is_refused(signed: Path, upstream: Sequoia) -> None:
    signature = upstream.pin(signed.parent)
    with (signed.parent / "thing.sig").open("ab") as file:
        file.write(b"\n")
    assert "source.signature.sha256" in problem(signed, signature)


@pytest.mark.parametrize("name", ["thing.sig", "key.asc"])
def test_a_missing_file_of_the_recipe_is_named(signed: Path, upstream: Sequoia, name: str) -> None:
    signature = upstream.pin(signed.parent)
    (signed.parent / name).unlink()
    assert f"{signed.parent / name}: No such file" in problem(signed, signature)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100])
def test_a_key_file_that_is_no_key_is_refused(
    signed: Path, upstream: Sequoia, content: bytes
) -> None:
    signature = upstream.pin(signed.parent)
    (signed.parent / "key.asc").write_bytes(content)
    assert "key.asc" in problem(signed, signature)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100])
def test_a_signature_file_that_is_no_signature_is_refused(
    signed: Path, upstream: Sequoia, content: bytes
) -> None:
    upstream.pin(signed.parent)
    key = (signed.parent / "key.asc").read_bytes()
    signature = pin(signed.parent, content, key, upstream.certificate.fingerprint, None)
    assert "does not hold" in problem(signed, signature)


def test_the_word_for_dsa_does_not_weaken_other_keys(signed: Path, upstream: Sequoia) -> None:
    signature = upstream.pin(signed.parent, dsa=DSA)
    assert "remove source.signature.dsa" in problem(signed, signature)


class Packets(NamedTuple):
    """The fields of a hand-made version 4 DSA signature (RFC 4880 section 5.2.3)."""

    kind: int = 0x00
    hashing: int = 8
    created: int | None = 1_600_000_000
    issuer: bytes | None = None
    extra: bytes = b""
    unhashed: bytes = b""
    body: bytes = BODY
    tail: bytes = b""


def mpi(number: int) -> bytes:
    return number.bit_length().to_bytes(2) + number.to_bytes((number.bit_length() + 7) // 8)


def packet(tag: int, body: bytes) -> bytes:
    """Section 4.2.1: the old form with a length of two bytes."""
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2) + body


class Dsa:
    """A DSA key of 1024 bits, made on 2001-09-09, and what it signs."""

    def __init__(self) -> None:
        self.key = primitives.generate_private_key(1024)  # noqa: S505 (upstream's)
        public = self.key.public_key().public_numbers()
        numbers = public.parameter_numbers
        body = b"\x04" + (1_000_000_000).to_bytes(4) + b"\x11"
        body += b"".join(mpi(part) for part in (numbers.p, numbers.q, numbers.g, public.y))
        self.fingerprint = hashlib.sha1(  # noqa: S324 (what a version 4 fingerprint is)
            b"\x99" + len(body).to_bytes(2) + body
        ).digest()
        self.certificate = packet(6, body) + packet(13, b"Upstream <up@example.org>")

    def sign(self, fields: Packets) -> bytes:
        issuer = self.fingerprint if fields.issuer is None else fields.issuer
        hashed = b"\x16\x21\x04" + issuer + fields.extra
        if fields.created is not None:
            hashed += b"\x05\x02" + fields.created.to_bytes(4)
        head = bytes([4, fields.kind, 17, fields.hashing]) + len(hashed).to_bytes(2) + hashed
        # the algorithms' numbers: section 9.4
        algorithm: hashes.HashAlgorithm = {
            1: hashes.MD5(),  # noqa: S303 (must be refused)
            2: hashes.SHA1(),  # noqa: S303 (what BusyBox is signed with)
            8: hashes.SHA256(),
            10: hashes.SHA512(),
            11: hashes.SHA224(),
        }[fields.hashing]
        digest = hashes.Hash(algorithm)
        digest.update(fields.body + head + b"\x04\xff" + len(head).to_bytes(4))
        value = digest.finalize()
        r, s = utils.decode_dss_signature(self.key.sign(value, utils.Prehashed(algorithm)))
        unhashed = len(fields.unhashed).to_bytes(2) + fields.unhashed
        return packet(2, head + unhashed + value[:2] + mpi(r) + mpi(s) + fields.tail)

    def pin(self, folder: Path, fields: Packets, *, dsa: str | None = DSA) -> Signature:
        signature = self.sign(fields)
        return pin(folder, signature, self.certificate, self.fingerprint.hex(), dsa)


@pytest.fixture(scope="module")
def old() -> Dsa:
    return Dsa()


@pytest.mark.parametrize("hashing", [2, 8, 10])
def test_a_dsa_signature_holds_where_the_recipe_says_why(
    signed: Path, old: Dsa, hashing: int
) -> None:
    assert problem(signed, old.pin(signed.parent, Packets(hashing=hashing))) == ""


def test_a_dsa_signature_is_refused_without_that_word(signed: Path, old: Dsa) -> None:
    signature = old.pin(signed.parent, Packets(), dsa=None)
    with pytest.raises(SignatureError):
        verify(signed, signature, signed.parent)


def test_a_dsa_signature_of_another_file_is_refused(signed: Path, old: Dsa) -> None:
    signature = old.pin(signed.parent, Packets(body=b"another file"))
    assert "the file is not the signed one" in problem(signed, signature)


def test_a_dsa_signature_with_the_right_hash_and_wrong_numbers_is_refused(
    signed: Path, old: Dsa
) -> None:
    # the key packet says one thing, the maker used another key
    made = Dsa()
    made.fingerprint = old.fingerprint
    signature = pin(
        signed.parent, made.sign(Packets()), old.certificate, old.fingerprint.hex(), DSA
    )
    assert "the DSA signature is wrong" in problem(signed, signature)


def test_another_dsa_key_is_refused_by_its_fingerprint(signed: Path, old: Dsa) -> None:
    signature = old.pin(signed.parent, Packets())
    (signed.parent / "key.asc").write_bytes(Dsa().certificate)
    assert "the recipe pins" in problem(signed, signature)


EMPTY_NOTATION = b"\x00" * 8
SOON = int(time.time()) + 7 * 86_400


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (Packets(kind=0x01), "signature type 0x01"),
        (Packets(hashing=1), "hash algorithm 1 is not accepted"),
        (Packets(hashing=11), "hash algorithm 11 is not accepted"),
        (Packets(created=None), "names no time or no key"),
        (Packets(created=999_999_999), "before its key"),
        (Packets(created=SOON), "still to come"),
        (Packets(issuer=bytes(20)), "signed by 0000"),
        (Packets(extra=b"\x05\x03" + (60).to_bytes(4)), "for 60 seconds, which are over"),
        (Packets(extra=b"\x09\x94" + EMPTY_NOTATION), "subpacket 20 is critical"),
        (Packets(extra=b"\x05\x02" + (1_600_000_001).to_bytes(4)), "subpacket 2 comes twice"),
        (Packets(extra=b"\x00"), "an empty subpacket"),
        (Packets(extra=b"\xff\xff\xff\xff\xff\x02"), "ends too early"),
        (Packets(tail=b"x"), "not OpenPGP"),
    ],
)
def test_a_dsa_signature_that_is_not_as_expected_is_refused(
    signed: Path, old: Dsa, fields: Packets, told: str
) -> None:
    assert told in problem(signed, old.pin(signed.parent, fields))


def test_the_unsigned_part_of_a_dsa_signature_is_not_believed(signed: Path, old: Dsa) -> None:
    unhashed = b"\x05\x02" + (1).to_bytes(4) + b"\x05\x03" + (1).to_bytes(4)
    assert problem(signed, old.pin(signed.parent, Packets(unhashed=unhashed))) == ""


def test_two_dsa_signatures_in_one_file_are_refused(signed: Path, old: Dsa) -> None:
    both = old.sign(Packets()) + old.sign(Packets())
    signature = pin(signed.parent, both, old.certificate, old.fingerprint.hex(), DSA)
    assert "exactly one signature" in problem(signed, signature)


@pytest.mark.parametrize("size", range(0, 80, 7))
def test_a_dsa_signature_cut_short_is_refused(signed: Path, old: Dsa, size: int) -> None:
    body = old.sign(Packets())[3:]
    signature = pin(
        signed.parent, packet(2, body[:size]), old.certificate, old.fingerprint.hex(), DSA
    )
    assert "does not hold" in problem(signed, signature)


def test_another_algorithm_under_a_dsa_key_is_refused(
    signed: Path, old: Dsa, upstream: Sequoia
) -> None:
    upstream.pin(signed.parent)
    made = (signed.parent / "thing.sig").read_bytes()
    signature = pin(signed.parent, made, old.certificate, old.fingerprint.hex(), DSA)
    assert "is not DSA" in problem(signed, signature)
