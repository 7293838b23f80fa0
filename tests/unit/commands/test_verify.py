"""`doit verify` of a directory and of a server: every check on stdout, an error if one fails."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline import settings as variables
from pipeline.commands import verify as command
from pipeline.errors import NiftyError, UsageError
from pipeline.release import bringer, documents, keys, oci, referrers
from tests.support import signers, stored, webserver
from tests.support.published import FIRST, put, stem
from tests.support.registry import faking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.registry import Fake

SIGNER = signers.signer()


def doit_verify(**given: str) -> None:
    words = {"from" if name == "source" else name: text for name, text in given.items()}
    command.run(variables.parse(words, images=["nifty"]))


@pytest.fixture
def ring(tmp_path: Path) -> str:
    (tmp_path / "ring.pgp").write_bytes(SIGNER.certificate)
    return str(tmp_path / "ring.pgp")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    put(tmp_path / "r", FIRST, signing=keys.load("t", SIGNER.made.signing, {}, signers.NOW))
    return tmp_path / "r"


@pytest.mark.parametrize("place", ["directory", "server"])
def test_a_good_release_passes_and_a_changed_one_does_not(
    release: Path, ring: str, tmp_path: Path, place: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with webserver.serving(tmp_path) as site:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(site.authorities))
        webserver.serve(site, release, "/r")
        source = str(release) if place == "directory" else site.url("/r")
        doit_verify(source=source, keyring=ring, format="json")
        good = {one["name"]: one["is_right"] for one in json.loads(capsys.readouterr().out)}
        assert set(good.values()) == {True}
        assert f"image {stem()}.tar.zst" in good
        changed = release / f"{stem()}.tar.xz"
        content = changed.read_bytes()[:-1] + b"?"
        changed.write_bytes(content)
        site.answers[f"/r/{changed.name}"] = [webserver.whole(content)]
        with pytest.raises(NiftyError, match=r"\d of \d+ checks failed"):
            doit_verify(source=source, keyring=ring)
        told = capsys.readouterr().out.splitlines()
        assert next(line.split()[1] for line in told if line.startswith("FAIL")) == changed.name


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.gpg", f"{stem()}.json"])
def test_a_server_that_sends_without_end_is_left_and_what_was_looked_at_is_told(
    ring: str, release: Path, tmp_path: Path, name: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with webserver.serving(tmp_path) as site:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(site.authorities))
        monkeypatch.setattr(bringer, "LARGEST", 1 << 20)
        webserver.serve(site, release, "/r")
        site.answers[f"/r/{name}"] = [webserver.endless(chunked=True)]
        with pytest.raises(NiftyError, match=r"\d of \d+ checks failed"):
            doit_verify(source=site.url("/r"), keyring=ring, format="json")
    told = json.loads(capsys.readouterr().out)
    wrong = next(one for one in told if not one["is_right"])
    assert wrong["name"] == name
    assert "sends more than" in wrong["found"]
    if name == "SHA256SUMS.gpg":
        assert [one["name"] for one in told] == ["SHA256SUMS", "SHA256SUMS.gpg"]
        asked = {path for path, _headers in site.requests}
        assert asked == {"/r/SHA256SUMS", "/r/SHA256SUMS.gpg"}


# ----- in a registry


@pytest.fixture
def fake() -> Iterator[Fake]:
    with faking() as one:
        yield one


def checks(fake: Fake, ring: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What was found to be right, and in capitals WRONG what was not."""
    with suppress(NiftyError):
        doit_verify(source=stored.image_url(fake), keyring=ring, format="json")
    told = json.loads(capsys.readouterr().out)
    return {
        one["name"]: one["found"] if one["is_right"] else f"WRONG {one['found']}" for one in told
    }


def test_a_release_in_a_registry_is_looked_at_check_by_check(
    release: Path, ring: str, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stored.published(release)
    stored.push(made, fake.reference(), "2026.11")
    doit_verify(source=stored.image_url(fake), keyring=ring)
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in told[1:]] == [
        ["ok", "SHA256SUMS"], ["ok", "SHA256SUMS.gpg"], ["ok", f"{stem()}.tar.zst"],
        ["ok", "image"], ["ok", "index"], ["ok", "nifty-keyring.pgp"], ["ok", "nothing"],
    ]  # fmt: skip
    assert f"{made.index.blob.digest}: manifests, configurations and gzip" in told[5]


def test_documents_of_others_are_counted_and_not_believed(
    release: Path, ring: str, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stored.published(release)
    other = referrers.of_documents(made.index, {f"{stem()}.vex.json": b"harmless, all of it"})
    stored.push(replace(made, about=(*made.about, *other)), fake.reference(), "2026.11")
    assert checks(fake, ring, capsys)["nothing else"].startswith("1 other documents refer to it")


def test_somebody_else_s_signature_ends_it(
    release: Path, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored.push(stored.published(release), fake.reference(), "2026.11")
    (tmp_path / "mallory.pgp").write_bytes(signers.signer("Mallory <m@x.org>").certificate)
    told = checks(fake, str(tmp_path / "mallory.pgp"), capsys)
    assert list(told) == ["SHA256SUMS.gpg"]
    assert "which" in told["SHA256SUMS.gpg"]
    fake.manifests.clear()
    assert checks(fake, str(tmp_path / "mallory.pgp"), capsys)["index"].startswith("WRONG")


@pytest.mark.parametrize("what", ["configuration", "gzip layer", "annotation", "more"])
def test_what_engines_would_run_is_what_is_signed(
    release: Path, ring: str, fake: Fake, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may write to a registry has the sums refer to an index of their own."""
    made = stored.published(release)
    table = json.loads(made.index.blob.content)
    told = json.loads(made.index.entries[0].manifest.content)
    entries = list(made.index.entries)
    configs = list(made.index.configs)
    match what:
        case "configuration":
            config = json.loads(configs[0].content)
            config["config"]["Cmd"] = ["/bin/sh", "-c", "evil"]
            configs.append(oci.Blob.of(oci.CONFIG, json.dumps(config).encode()))
            told["config"] = configs[-1].descriptor()
        case "gzip layer":
            layer = oci.Blob.of(oci.GZIP, oci.gzip(b"evil" * 128))
            configs.append(layer)
            told["layers"] = [layer.descriptor()]
        case "annotation":
            told["annotations"] |= {"evil": "yes"}
    changed = oci.Blob.of(oci.MANIFEST, json.dumps(told).encode())
    entries.append(replace(entries[0], manifest=changed))
    described = {**table["manifests"][0], **changed.descriptor()}
    if what == "more":
        table["manifests"].append({**described, "platform": {"architecture": "arm", "os": "linux"}})
    else:
        table["manifests"][0] = described
    blob = oci.Blob.of(oci.INDEX, json.dumps(table).encode())
    index = replace(made.index, blob=blob, entries=tuple(entries), configs=tuple(configs))
    about = referrers.of_documents(index, documents.of_release(release, [made.image]))
    stored.push(
        stored.Release(index=index, image=made.image, about=about), fake.reference(), "2026.11"
    )
    found = checks(fake, ring, capsys)
    assert found["index"].startswith("WRONG")
    assert found["SHA256SUMS.gpg"].startswith("Nifty")


def test_a_registry_that_lies_is_told_of(
    release: Path, ring: str, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stored.published(release)
    stored.push(made, fake.reference(), "2026.11")
    for digest in (
        f"sha256:{made.sha256}",
        *(blob.digest for one in made.about for blob in one.blobs),
    ):
        fake.blobs[digest] = fake.blobs[digest][:-1] + b"?"
    told = checks(fake, ring, capsys)
    assert all("sends other bytes" in found for found in told.values()), told


def test_what_is_missing_is_asked_for(ring: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="verify what"):
        doit_verify(keyring=ring)
    with pytest.raises(UsageError, match="signed by whom"):
        doit_verify(source=str(tmp_path))
    with pytest.raises(NiftyError, match="no such directory"):
        doit_verify(source=str(tmp_path / "nowhere"), keyring=ring)
    with pytest.raises(UsageError, match="only https: is used"):
        doit_verify(source="http://x.org/", keyring=ring)
