"""An image from a registry that may do anything: signed or pinned, bounded, resumed, never less."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import NiftyError
from pipeline.release import names, oci, referrers
from pipeline.release.place import place
from pipeline.release.reader import RemoteError
from pipeline.release.stored import Client
from pipeline.trust import keyring, sums
from tests.support import signers, stored
from tests.support.registry import FAST, Fake, Fault, faking
from tests.support.stored import MACHINE, SIGNER, image_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.release.remote import Pulled

MADE = stored.release()
RING = keyring.read(SIGNER.certificate, name="ours")
ARCHIVE = MADE.image.archive
FILE = names.name("small", "2026.11", MACHINE, "tar.zst")
LAYER = f"sha256:{MADE.sha256}"


@pytest.fixture(params=["fallback", "listed"])
def fake(request: pytest.FixtureRequest) -> Iterator[Fake]:
    """A registry with the release; it lists referrers itself, or below the fallback tag."""
    with faking() as one:
        one.has_referrers = request.param == "listed"
        stored.push(MADE, one.reference(), "2026.11")
        one.requests.clear()
        yield one


@pytest.fixture
def lying() -> Iterator[Fake]:
    with faking() as one:
        stored.push(MADE, one.reference(), "2026.11")
        yield one


def client(tmp_path: Path) -> Client:
    return Client(cache=tmp_path / "cache", machine=MACHINE, now=signers.NOW, transport=FAST)


def signed(fake: Fake, tmp_path: Path, behind: str = ":2026.11") -> Pulled:
    return client(tmp_path).signed(place(image_url(fake, behind)), RING)


def reason(fake: Fake, tmp_path: Path, behind: str = ":2026.11") -> str:
    with pytest.raises(NiftyError) as caught:
        signed(fake, tmp_path, behind)
    assert not [path for path in (tmp_path / "cache").glob("*") if len(path.name) == 64]
    return caught.value.message


def test_the_zstd_layer_is_taken_and_its_release_is_signed(fake: Fake, tmp_path: Path) -> None:
    pulled = signed(fake, tmp_path)
    assert pulled.path.read_bytes() == ARCHIVE
    assert pulled.named == names.parse(FILE)
    assert pulled.title == f"{image_url(fake)}: {FILE}"
    assert pulled.signed is not None
    assert pulled.signed.certificate.fingerprint == SIGNER.made.fingerprint
    fake.requests.clear()
    assert signed(fake, tmp_path) == pulled
    assert fake.asked(LAYER) == []  # it is in the cache


def test_a_digest_needs_no_key_and_only_takes_that_index(fake: Fake, tmp_path: Path) -> None:
    where = place(image_url(fake, f"@{MADE.index.blob.digest}"))
    assert client(tmp_path).pinned(where).path.read_bytes() == ARCHIVE
    other = stored.release("2026.12").index.blob
    fake.manifests[MADE.index.blob.digest] = (oci.INDEX, other.content)
    with pytest.raises(NiftyError, match="sends other bytes"):
        client(tmp_path).pinned(where)


def test_a_pinned_archive_in_the_cache_needs_no_registry(fake: Fake, tmp_path: Path) -> None:
    where = place(image_url(fake, f":2026.11#sha256={MADE.sha256}"))
    pulled = client(tmp_path).pinned(where)
    assert pulled.path.read_bytes() == ARCHIVE
    fake.requests.clear()
    assert client(tmp_path).pinned(where) == pulled
    assert fake.requests == []
    with pytest.raises(RemoteError, match="not the pinned one"):
        client(tmp_path).pinned(place(image_url(fake, f":2026.11#sha256={'0' * 64}")))


def test_the_newest_signature_counts(lying: Fake, tmp_path: Path) -> None:
    """A release is signed anew, the older signature stays beside."""
    again = stored.release(signer=signers.signer("Mallory <m@example.org>"))
    stored.push(again, lying.reference())
    assert signed(lying, tmp_path).signed is not None


def test_an_interrupted_download_goes_on(lying: Fake, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    part = tmp_path / "cache" / f"{MADE.sha256}.part"
    part.write_bytes(ARCHIVE[:100])
    told = f"bytes 100-{len(ARCHIVE) - 1}/{len(ARCHIVE)}"
    rest = Fault(f"GET .*{LAYER}", 206, headers={"Content-Range": told}, body=ARCHIVE[100:])
    lying.faults = [rest]
    assert signed(lying, tmp_path).path.read_bytes() == ARCHIVE
    assert rest.times == 0
    # one that does not know ranges, one whose rest does not fit, one that has no such range
    for fault in (None, rest, Fault(f"GET .*{LAYER}", 416)):
        (tmp_path / "cache" / MADE.sha256).unlink()
        part.write_bytes(b"?" * 100)
        lying.faults = [fault] if fault else []
        rest.times = 1
        assert signed(lying, tmp_path).path.read_bytes() == ARCHIVE


def test_who_may_refuse_it_is_asked_before_it_is_fetched(lying: Fake, tmp_path: Path) -> None:
    def refuse(pulled: Pulled) -> None:
        assert pulled.seen is not None
        raise RemoteError(f"older: {pulled.seen.version}")

    lying.requests.clear()
    with pytest.raises(RemoteError, match=r"older: 2026\.11"):
        client(tmp_path).signed(place(image_url(lying)), RING, refuse)
    assert lying.asked(LAYER) == []


def test_the_registry_s_own_keyring_is_the_release_s(fake: Fake, tmp_path: Path) -> None:
    found = client(tmp_path).published_keyring(place(image_url(fake)))
    assert [one.fingerprint for one in found.certificates] == [SIGNER.made.fingerprint]


# ----- attacks


def test_an_unsigned_or_foreign_release_is_refused(tmp_path: Path) -> None:
    with faking() as fake:
        stored.push(stored.release(signer=None), fake.reference(), "2026.11")
        assert reason(fake, tmp_path).endswith("SHA256SUMS: not signed")
        with pytest.raises(RemoteError, match=r"no nifty-keyring.pgp refers to it"):
            client(tmp_path).published_keyring(place(image_url(fake)))
    with faking() as fake:
        mallory = signers.signer("Mallory <m@example.org>")
        stored.push(stored.release(signer=mallory), fake.reference(), "2026.11")
        assert "which ours does not hold" in reason(fake, tmp_path)
    with faking() as fake:
        bare = replace(MADE, about=())
        stored.push(bare, fake.reference(), "2026.11")
        assert "is signed by nobody: no SHA256SUMS refers to it" in reason(fake, tmp_path)


def test_the_signature_of_another_release_is_none(lying: Fake, tmp_path: Path) -> None:
    """Listed as this index's, it is another's by its subject; and its sums have no such layer."""
    other = stored.release("2026.12")
    stored.push(other, lying.reference(), "2026.12")
    theirs = lying.manifests[referrers.fallback_tag(other.index.blob.digest)]
    lying.manifests[referrers.fallback_tag(MADE.index.blob.digest)] = theirs
    assert "is signed by nobody" in reason(lying, tmp_path)
    moved = referrers.referrer(
        MADE.index,
        referrers.SUMS,
        [(name, "text/plain", content) for name, content in _said(other)],
    )
    with faking() as fake:
        stored.push(replace(MADE, about=(moved,)), fake.reference(), "2026.11")
        assert "is not the archive of an image for" in reason(fake, tmp_path)


def _said(made: stored.Release) -> list[tuple[str, bytes]]:
    layers = json.loads(made.about[0].manifest.content)["layers"]
    blobs = {blob.digest: blob.content for blob in made.about[0].blobs}
    return [
        (one["annotations"]["org.opencontainers.image.title"], blobs[one["digest"]])
        for one in layers
    ]


def test_another_machine_s_archive_is_not_this_one_s(tmp_path: Path) -> None:
    with faking() as fake:
        stored.push(stored.release(swapped=True), fake.reference(), "2026.11")
        assert f"is not the archive of an image for {MACHINE}" in reason(fake, tmp_path)


@pytest.mark.parametrize("lie", ["layer", "short layer", "sums", "signature", "manifest", "size"])
def test_lies_about_digests_and_sizes_are_caught(lying: Fake, tmp_path: Path, lie: str) -> None:
    blobs = {name: f"sha256:{hashlib.sha256(text).hexdigest()}" for name, text in _said(MADE)}
    digest = {"sums": blobs[sums.NAME], "signature": blobs[sums.SIGNATURE]}.get(lie, LAYER)
    match lie:
        case "manifest":
            name = MADE.entry.manifest.digest
            lying.manifests[name] = (oci.MANIFEST, lying.manifests[name][1] + b" ")
        case "size":
            table = json.loads(MADE.index.blob.content)
            for one in table["manifests"]:
                one["size"] += 1
            lying.manifests["2026.11"] = (oci.INDEX, json.dumps(table).encode())
        case "short layer":
            lying.blobs[digest] = lying.blobs[digest][:-1]
        case _:
            content = lying.blobs[digest]
            lying.blobs[digest] = content[:-1] + bytes([content[-1] ^ 1])
    told = reason(lying, tmp_path)
    assert any(
        word in told
        for word in ("sends other bytes", "has the sha256", "were told", "its manifest names")
    ), told


@pytest.mark.parametrize("what", ["index", "manifest", "layer"])
def test_another_media_type_is_refused(lying: Fake, tmp_path: Path, what: str) -> None:
    if what == "index":  # a single manifest below the tag, as other tools push
        lying.manifests["2026.11"] = (oci.MANIFEST, MADE.entry.manifest.content)
        assert reason(lying, tmp_path).endswith("2026.11 is no index of OCI")
        return
    table = json.loads(MADE.entry.manifest.content)
    if what == "layer":
        table["layers"][0]["mediaType"] = oci.GZIP
    else:
        table["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
    told = _replaced(lying, table)
    words = {"layer": "is not one layer of zstd", "manifest": "is no manifest of OCI"}
    assert reason(lying, tmp_path).endswith(f"{told} {words[what]}")


def test_a_layer_that_is_larger_than_any_image_is_not_fetched(lying: Fake, tmp_path: Path) -> None:
    table = json.loads(MADE.entry.manifest.content)
    table["layers"][0]["size"] = 1 << 40
    _replaced(lying, table)
    assert "bytes, at most" in reason(lying, tmp_path)
    assert lying.asked(f"GET .*{LAYER}") == []


def _replaced(fake: Fake, table: object) -> str:
    """Have *table* as the manifest that the index names; its digest."""
    content = json.dumps(table).encode()
    changed = oci.Blob.of(oci.MANIFEST, content)
    index = json.loads(MADE.index.blob.content)
    for one in index["manifests"]:
        if one["digest"] == MADE.entry.manifest.digest:
            one |= {"digest": changed.digest, "size": len(content)}
    fake.manifests[changed.digest] = (oci.MANIFEST, content)
    fake.manifests["2026.11"] = (oci.INDEX, json.dumps(index).encode())
    return changed.digest


def test_bodies_without_end_are_left(lying: Fake, tmp_path: Path) -> None:
    for on, size in ((f"GET .*{LAYER}", len(ARCHIVE) + 1), ("GET .*/manifests/2026.11", 5 << 20)):
        # without Content-Length, until the connection ends
        lying.faults = [Fault(on, 200, body=bytes(size), times=9, is_unbounded=True)]
        assert "sends more than" in reason(lying, tmp_path)


def test_a_redirect_to_http_is_not_followed(lying: Fake, tmp_path: Path) -> None:
    for on in ("manifests/2026.11", f"blobs/{LAYER}"):
        away = {"Location": "http://registry.example.org/x"}
        lying.faults = [Fault(f"GET .*/{on}", 307, headers=away)]
        assert reason(lying, tmp_path).endswith("redirects to http:, only https: is followed")


def test_many_referrers_are_not_looked_at(lying: Fake, tmp_path: Path) -> None:
    listed = [{"digest": f"sha256:{number:064x}", "size": 9} for number in range(65)]
    tag = referrers.fallback_tag(MADE.index.blob.digest)
    lying.manifests[tag] = (oci.INDEX, json.dumps({"manifests": listed}).encode())
    lying.requests.clear()
    assert "65 refer to" in reason(lying, tmp_path)
    assert len(lying.requests) < 5
