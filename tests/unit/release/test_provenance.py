"""Provenance, as those who wrote the formats read it: in-toto-attestation and securesystemslib."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import Key, SSlibKey

from pipeline.release import envelope, provenance
from pipeline.release.origin import OriginError
from pipeline.release.provenance import Builder
from tests.support.release import RECIPES, described

FILES = {"nifty-x86_64.tar.zst": "1" * 64, "nifty-x86_64.cdx.json": "2" * 64}
BUILDER = Builder(
    name="https://example.org/builds/7",
    kind="https://example.org/how",
    commit="c" * 40,
    changed=True,
)
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)]
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)


def payload() -> bytes:
    return provenance.statement([described()], RECIPES, FILES, BUILDER)


def public(key: Ed25519PrivateKey) -> SSlibKey:
    return SSlibKey.from_crypto(key.public_key(), keyid=envelope.key_id(key.public_key()))


def opened(content: bytes) -> Envelope:
    return Envelope.from_dict(json.loads(content))


def test_in_toto_reads_the_statement() -> None:
    found = json_format.Parse(payload(), statement_pb2.Statement())
    Statement.copy_from_pb(found).validate()
    told = json_format.MessageToDict(found)
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {one["name"]: one["digest"]["sha256"] for one in told["subject"]} == FILES


def test_what_it_was_made_of() -> None:
    table: Any = json.loads(payload())["predicate"]
    made = table["buildDefinition"]
    assert made["buildType"] == BUILDER.kind
    assert made["externalParameters"] == {
        "image": "nifty",
        "version": "2026.11",
        "architectures": ["x86_64"],
    }
    assert made["internalParameters"] == {"changed": True}
    assert table["runDetails"] == {"builder": {"id": BUILDER.name}}
    parts = {one["name"]: one for one in made["resolvedDependencies"]}
    busybox = RECIPES.components["busybox"]
    assert parts[busybox.source.file] == {
        "name": "busybox-1.38.0.tar.bz2",
        "uri": "https://busybox.net/downloads/busybox-1.38.0.tar.bz2",
        "digest": {"sha256": busybox.source.sha256},
    }
    for name in RECIPES.images["nifty"].components:
        for patch in RECIPES.components[name].patch:
            part = parts[f"recipes/components/{name}/{patch.file}"]
            assert part["digest"] == {"sha256": patch.sha256}
    assert parts["ziglang"]["uri"] == "pkg:pypi/ziglang@0.17.1"
    assert parts["nifty"]["digest"] == {"gitCommit": "c" * 40}


def test_a_package_is_named_and_a_commit_only_if_known() -> None:
    unknown = Builder(name="https://example.org/me", kind="https://example.org/how")
    made = json.loads(provenance.statement([described("nifty-gawk")], RECIPES, FILES, unknown))
    names = [one["name"] for one in made["predicate"]["buildDefinition"]["resolvedDependencies"]]
    assert "gawk_5.2.1-2_amd64.deb" in names
    assert "nifty" not in names
    assert made["predicate"]["buildDefinition"]["internalParameters"] == {}


def test_securesystemslib_verifies_both_signatures() -> None:
    found = opened(envelope.envelope(payload(), KEYS))
    assert found.payload == payload()
    assert found.payload_type == "application/vnd.in-toto+json"
    keys: list[Key] = [public(key) for key in KEYS]
    assert len(found.verify(keys, 2)) == 2
    with pytest.raises(VerificationError):
        found.verify([keys[0], public(STRANGER)], 2)


def test_securesystemslib_makes_the_same_signature() -> None:
    ours = opened(envelope.envelope(payload(), KEYS[:1]))
    theirs = Envelope(payload(), "application/vnd.in-toto+json", {})
    theirs.sign(CryptoSigner(KEYS[0], public(KEYS[0])))
    assert ours.to_dict() == theirs.to_dict()


def test_we_verify_what_securesystemslib_signs_and_by_whom() -> None:
    theirs = Envelope(payload(), "application/vnd.in-toto+json", {})
    theirs.sign(CryptoSigner(KEYS[0], public(KEYS[0])))
    there = envelope.read(json.dumps(theirs.to_dict()).encode())
    asked = [key.public_key() for key in (*KEYS, STRANGER)]
    assert there.signed_by(asked) == (asked[0],)
    assert envelope.subjects(there.payload) == FILES
    both = envelope.read(envelope.envelope(there.payload, KEYS[1:], dict(there.signatures)))
    assert both.signed_by(asked) == tuple(asked[:2])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b'{"payload":"?","payloadType":"t","signatures":[]}',
        b'{"payload":"","payloadType":"text","signatures":[]}', b"[" * 100_000,
        b'{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[1]}',
        json.dumps({"payload": "", "payloadType": envelope.PAYLOAD,
                    "signatures": [{"keyid": "", "sig": ""}] * 101}).encode(),
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_an_error_of_its_own(content: bytes) -> None:
    with pytest.raises(envelope.EnvelopeError, match="no DSSE envelope"):
        envelope.read(content)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"subject":[{"name":1,"digest":{"sha256":""}}]}']
)
def test_what_is_no_statement_is_an_error_of_its_own(content: bytes) -> None:
    with pytest.raises(envelope.EnvelopeError, match="no in-toto statement"):
        envelope.subjects(content)


def test_several_architectures_are_one_statement_in_whatever_order() -> None:
    arm = described().model_copy(
        update={"needs": described().needs.model_copy(update={"architecture": "aarch64"})}
    )
    made = provenance.statement([described(), arm], RECIPES, FILES, BUILDER)
    assert made == provenance.statement([arm, described()], RECIPES, FILES, BUILDER)
    told: Any = json.loads(made)["predicate"]["buildDefinition"]
    assert told["externalParameters"]["architectures"] == ["aarch64", "x86_64"]
    alone = json.loads(payload())["predicate"]["buildDefinition"]
    assert told["resolvedDependencies"] == alone["resolvedDependencies"]


def test_another_builder_of_the_same_is_told_from_one_of_another() -> None:
    elsewhere = Builder(name="urn:other", kind=BUILDER.kind, commit=BUILDER.commit, changed=True)
    other = provenance.statement([described()], RECIPES, FILES, elsewhere)
    assert provenance.is_same_but_builder(payload(), other)
    files = {**FILES, "nifty-x86_64.cdx.json": "3" * 64}
    changed = provenance.statement([described()], RECIPES, files, BUILDER)
    assert not provenance.is_same_but_builder(payload(), changed)


def test_a_forged_payload_is_noticed() -> None:
    table = json.loads(envelope.envelope(payload(), KEYS[:1]))
    forged = payload().replace(b"1" * 64, b"3" * 64)
    table["payload"] = base64.b64encode(forged).decode()
    with pytest.raises(VerificationError):
        opened(json.dumps(table).encode()).verify([public(KEYS[0])], 1)


def test_the_same_bytes_whatever_the_order() -> None:
    backwards = dict(reversed(FILES.items()))
    again = provenance.statement([described()], RECIPES, backwards, BUILDER)
    assert again == payload()
    assert envelope.envelope(again, KEYS[::-1]) == envelope.envelope(payload(), KEYS)


def test_an_image_of_other_recipes_is_refused() -> None:
    old = described()
    other = old.components[0].model_copy(update={"source_sha256": "0" * 64})
    changed = old.model_copy(update={"components": (other, *old.components[1:])})
    with pytest.raises(OriginError, match="not made of these recipes"):
        provenance.statement([changed], RECIPES, FILES, BUILDER)
