"""Who built a release again: counted once each, by keys that are good, over the very same bytes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pipeline.release import envelope, keys, lifetime, openpgp, rebuilders
from pipeline.release.rebuilders import RebuildersError
from pipeline.trust import keyring
from tests.support import signers

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NOW = signers.NOW
PUBLISHER, ANN, BOB = (signers.signer(f"{name} <a@example.org>") for name in ("Pat", "Ann", "Bob"))
RING = keyring.read(ANN.certificate + BOB.certificate, name="rebuilders.pgp")
NAME = "nifty_2.intoto.json"
PAYLOAD = json.dumps({"subject": [{"name": "a", "digest": {"sha256": "0" * 64}}]}).encode()


def key(signer: signers.Signer) -> Ed25519PrivateKey:
    found = keys.load("t", signer.made.signing, {}, NOW).ed25519()
    assert found is not None
    return found


def made(*by: signers.Signer, payload: bytes = PAYLOAD) -> envelope.Envelope:
    return envelope.read(envelope.envelope(payload, map(key, by)))


def who(*several: envelope.Envelope, ring: keyring.Keyring = RING) -> list[str]:
    found = rebuilders.signers(PAYLOAD, several, ring, NOW)
    return [one.users[0].partition(" ")[0] for one in found]


def test_each_is_counted_once_wherever_their_signature_is() -> None:
    assert who(made(PUBLISHER)) == []
    assert who(made(PUBLISHER, ANN)) == ["Ann"]
    assert who(made(PUBLISHER, ANN), made(ANN), made(BOB)) == ["Ann", "Bob"]
    assert who(made(PUBLISHER, ANN, BOB)) == ["Ann", "Bob"]
    told = rebuilders.check(PAYLOAD, [made(ANN, BOB)], RING, 2, NOW)
    assert told.startswith("2 of 2 needed: Ann <a@example.org> (")
    with pytest.raises(RebuildersError, match=r"by 1 of rebuilders\.pgp, 2 are needed: Ann"):
        rebuilders.check(PAYLOAD, [made(PUBLISHER, ANN)], RING, 2, NOW)


def test_two_keys_of_one_certificate_are_one_rebuilder_and_so_is_one_key_of_two() -> None:
    old = keyring.read(ANN.certificate, name="k").certificates[0]
    top = ANN.secret(0)
    again = lifetime.renewed(old, top, now=NOW, days=9, signing_days=9, password="")
    both = made(ANN, signers.Signer(again))
    assert len(both.signatures) == 2
    assert who(both, ring=keyring.read(again.certificate, name="k")) == ["Ann"]
    # Mallory's certificate, with Ann's key bound to it as well
    mallory = signers.signer("Mallory <m@example.org>")
    theirs = mallory.secret(0)
    sub = ANN.secret(1)
    bound = openpgp.subkey(theirs, sub, int(NOW.timestamp()), end=None)
    ring = keyring.read(ANN.certificate + mallory.certificate + bound, name="k")
    assert who(made(ANN), ring=ring) == ["Ann"]


def test_a_key_that_is_not_good_and_another_statement_count_nothing() -> None:
    old = keyring.read(ANN.certificate, name="k").certificates[0]
    top = ANN.secret(0)
    gone = lifetime.revoked(old, top, old.subkeys[0], now=NOW)
    assert who(made(ANN), ring=keyring.read(gone, name="k")) == []
    later = NOW + timedelta(days=400)
    assert rebuilders.signers(PAYLOAD, [made(ANN)], RING, later) == {}
    assert who(made(ANN, payload=PAYLOAD + b" ")) == []
    forged = envelope.Envelope(payload=PAYLOAD, signatures=made(ANN, payload=b"{}").signatures)
    assert who(forged) == []


def test_their_signatures_go_into_the_release_and_nobody_elses(tmp_path: Path) -> None:
    contents = {NAME: envelope.envelope(PAYLOAD, [key(PUBLISHER)]), "x": b""}
    stranger = signers.signer("Eve <e@example.org>")
    found = rebuilders.merged(contents, [made(ANN, stranger), made(BOB)], RING, NOW)
    there = envelope.read(found[NAME])
    assert {name for name, _made in there.signatures} == {
        envelope.key_id(key(one).public_key()) for one in (PUBLISHER, ANN, BOB)
    }
    assert found.keys() == contents.keys()
    assert rebuilders.merged(found, [made(ANN)], RING, NOW) == found
    with pytest.raises(RebuildersError, match="about other files"):
        rebuilders.merged(contents, [made(ANN, payload=b"{}")], RING, NOW)
    with pytest.raises(RebuildersError, match=r"signed by nobody in rebuilders\.pgp"):
        rebuilders.merged(contents, [made(stranger)], RING, NOW)
    # a key id is a hint: one that is another's takes nobody's place
    (name, _sig), lie = made(PUBLISHER).signatures[0], made(ANN).signatures[0][1]
    lying = envelope.Envelope(payload=PAYLOAD, signatures=((name, lie),))
    assert rebuilders.merged(contents, [lying], RING, NOW) == rebuilders.merged(
        contents, [made(ANN)], RING, NOW
    )


def test_files_of_theirs_are_read_and_the_newest_version_is_meant(tmp_path: Path) -> None:
    path = rebuilders.write(tmp_path / "mine", NAME, envelope.envelope(PAYLOAD, [key(ANN)]))
    assert rebuilders.read([str(path)]) == [made(ANN)]
    for content, told in ((b"{}", "no DSSE envelope"), (None, "No such file")):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RebuildersError, match=told):
            rebuilders.read([str(path)])
    listed = ["a_9.intoto.json", "a_10.intoto.json", "b_1.intoto.json", "b_2_x86-64.json"]
    assert rebuilders.newest(listed) == ["a_10.intoto.json", "b_1.intoto.json"]
