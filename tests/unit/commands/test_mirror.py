"""`doit mirror`: a release on a drive or in another registry, whole and verified, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline import settings as variables
from pipeline.commands import mirror as command
from pipeline.commands import obtain, verify
from pipeline.errors import NiftyError, UsageError
from pipeline.release import keys
from pipeline.release.mirror import MirrorError
from pipeline.trust.memory import OlderError
from tests.support import signers, stored, webserver
from tests.support.published import FIRST, SECOND, put, stem
from tests.support.registry import faking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.registry import Fake
    from tests.support.webserver import Site

SIGNER = signers.signer()
OURS = keys.load("t", SIGNER.made.signing, {}, signers.NOW)
ZST = f"{stem('2')}.tar.zst"


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    put(folder / "1", FIRST, signing=OURS)
    put(folder / "2", SECOND, signing=OURS)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with webserver.serving(tmp_path_factory.mktemp("server")) as site:
        yield site


@pytest.fixture
def site(server: Site, releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.authorities))
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.setattr(obtain, "_SITE", tmp_path / "etc-keyring.pgp")
    (tmp_path / "ours.pgp").write_bytes(SIGNER.certificate)
    (tmp_path / "home").mkdir()
    server.requests.clear()
    server.answers.clear()
    webserver.serve(server, releases / "2", "/r")
    return server


@pytest.fixture
def fake() -> Iterator[Fake]:
    with faking() as one:
        yield one


def mirror(tmp_path: Path, source: object, to: object, **more: str) -> None:
    words = {"from": str(source), "to": str(to), "keyring": str(tmp_path / "ours.pgp"), **more}
    command.run(variables.parse(words, images=["nifty"]))


def check(tmp_path: Path, source: object) -> None:
    words = {"from": str(source), "keyring": str(tmp_path / "ours.pgp")}
    verify.run(variables.parse(words, images=["nifty"]))


def deployed(tmp_path: Path, image: object, **more: str) -> bytes:
    """What deploy would take of *image*."""
    words = {"image": str(image), "prefix": str(tmp_path / "home"), **more}
    return obtain.image(variables.parse(words, images=["nifty"])).path.read_bytes()


def same(one: Path, other: Path) -> bool:
    def contents(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return contents(one) == contents(other)


def test_a_release_on_a_drive_is_the_one_on_the_server(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    usb = tmp_path / "usb"
    mirror(tmp_path, site.url("/r"), usb)
    assert same(usb, releases / "2")
    site.requests.clear()
    check(tmp_path, usb)
    ring = str(tmp_path / "ours.pgp")
    archive = (releases / "2" / ZST).read_bytes()
    assert deployed(tmp_path, usb, keyring=ring) == archive
    assert deployed(tmp_path, usb / ZST, keyring=ring) == archive
    assert site.requests == []
    # again: what is there is not asked for
    mirror(tmp_path, site.url("/r"), usb)
    assert {path for path, _ in site.requests} == {"/r/SHA256SUMS", "/r/SHA256SUMS.gpg"}
    assert sorted(path.name for path in tmp_path.glob("usb*")) == ["usb"]


def test_a_drive_is_trusted_no_more_than_a_server(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    usb = tmp_path / "usb"
    mirror(tmp_path, releases / "2", usb)  # from one directory to another
    with pytest.raises(UsageError, match="signed by whom"):
        deployed(tmp_path, usb)
    (usb / ZST).write_bytes((releases / "2" / ZST).read_bytes()[:-1] + b"?")
    for image in (usb, usb / ZST):
        with pytest.raises(NiftyError, match="has the sha256"):
            deployed(tmp_path, image, keyring=str(tmp_path / "ours.pgp"))
    (usb / ZST).unlink()
    (usb / ZST).symlink_to(releases / "2" / ZST)
    with pytest.raises(NiftyError, match="symbolic links"):
        deployed(tmp_path, usb, keyring=str(tmp_path / "ours.pgp"))
    with pytest.raises(UsageError, match="neither a release"):
        deployed(tmp_path, tmp_path / "home")


@pytest.mark.parametrize("answer", ["gone", "wrong"])
def test_what_is_not_whole_is_not_there_and_goes_on(
    site: Site, releases: Path, tmp_path: Path, answer: str
) -> None:
    usb, content = tmp_path / "usb", (releases / "2" / ZST).read_bytes()
    wrong = [webserver.whole(content[:-1] + b"?")]
    site.answers[f"/r/{ZST}"] = [webserver.status(404)] if answer == "gone" else wrong
    with pytest.raises(MirrorError, match=ZST):
        mirror(tmp_path, site.url("/r"), usb)
    assert not usb.exists()
    site.answers[f"/r/{ZST}"] = [webserver.whole(content)]
    site.requests.clear()
    mirror(tmp_path, site.url("/r"), usb)
    assert {path for path, _ in site.requests} == {
        "/r/SHA256SUMS", "/r/SHA256SUMS.gpg", f"/r/{ZST}",
    }  # fmt: skip
    assert same(usb, releases / "2")


def test_a_newer_release_takes_the_older_one_s_place_and_not_the_other_way_round(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    usb, old = tmp_path / "usb", tmp_path / "old"
    earlier = keys.load("t", SIGNER.made.signing, {}, signers.NOW)
    put(old, FIRST, signing=earlier)
    mirror(tmp_path, old, usb)
    time = (old / "SHA256SUMS.gpg").read_bytes()
    # signed a moment later
    later = tmp_path / "later"
    put(later, SECOND, signing=earlier)
    while (later / "SHA256SUMS.gpg").read_bytes() == time or _second(later) <= _second(old):
        (later / "SHA256SUMS.gpg").write_bytes(SIGNER.sign((later / "SHA256SUMS").read_bytes()))
    mirror(tmp_path, later, usb)
    assert same(usb, later)
    with pytest.raises(OlderError, match="and what was to replace it"):
        mirror(tmp_path, old, usb)
    assert same(usb, later)
    mirror(tmp_path, old, usb, downgrade="yes")
    assert same(usb, old)


def _second(folder: Path) -> int:
    from pipeline.trust import packets  # noqa: PLC0415 (for this line alone)

    (one,) = packets.packets((folder / "SHA256SUMS.gpg").read_bytes())
    return packets.statement(one.body).created


def test_what_is_no_release_is_not_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb/photo.jpg").write_bytes(b"precious")
    with pytest.raises(MirrorError, match="it is no release"):
        mirror(tmp_path, site.url("/r"), tmp_path / "usb")
    (tmp_path / "link").symlink_to(tmp_path / "usb")
    with pytest.raises(MirrorError, match="it is a link"):
        mirror(tmp_path, site.url("/r"), tmp_path / "link")
    assert [path.name for path in (tmp_path / "usb").iterdir()] == ["photo.jpg"]
    with pytest.raises(NiftyError, match="No such file or directory"):
        mirror(tmp_path, site.url("/r"), tmp_path / "nowhere/usb")


def test_a_registry_s_release_goes_over_a_drive_into_another(
    site: Site, releases: Path, tmp_path: Path, fake: Fake
) -> None:
    made = stored.published(releases / "2", "2")
    stored.push(made, fake.reference(), "2")
    usb = tmp_path / "usb"
    mirror(tmp_path, stored.image_url(fake, ":2"), usb)
    assert (usb / "oci-layout").is_file()
    check(tmp_path, usb)
    fake.requests.clear()
    assert deployed(tmp_path, usb, keyring=str(tmp_path / "ours.pgp")) == made.image.archive
    with faking() as inner:
        mirror(tmp_path, usb, stored.image_url(inner, ""), tag="2,latest")
        assert set(inner.manifests) == set(fake.manifests) | {"latest"}
        assert inner.blobs == fake.blobs
        check(tmp_path, stored.image_url(inner, ":latest"))
    assert fake.requests == []
    # again: no blob is asked for
    mirror(tmp_path, stored.image_url(fake, ":2"), usb)
    assert sorted(path.name for path in tmp_path.glob("usb*")) == ["usb"]


def test_a_registry_that_lies_is_not_carried_on(
    site: Site, releases: Path, tmp_path: Path, fake: Fake
) -> None:
    made = stored.published(releases / "2", "2")
    stored.push(made, fake.reference(), "2")
    digest = made.entry.layer.digest
    good, fake.blobs[digest] = fake.blobs[digest], fake.blobs[digest][:-1] + b"?"
    usb = tmp_path / "usb"
    with pytest.raises(MirrorError, match="sends other bytes"):
        mirror(tmp_path, stored.image_url(fake, ":2"), usb)
    assert not usb.exists()
    with faking() as inner:
        with pytest.raises(MirrorError, match="sends other bytes"):
            mirror(tmp_path, stored.image_url(fake, ":2"), stored.image_url(inner, ""))
        assert inner.manifests == {}
    fake.blobs[digest] = good
    mirror(tmp_path, stored.image_url(fake, ":2"), usb)
    blob = usb / "blobs" / digest.replace(":", "/")
    blob.write_bytes(good[:-1] + b"?")
    with pytest.raises(NiftyError, match="has other bytes than its name says"):
        deployed(tmp_path, usb, keyring=str(tmp_path / "ours.pgp"))


def test_what_cannot_be_meant_is_told(site: Site, releases: Path, tmp_path: Path) -> None:
    one = site.url(f"/r/{ZST}")
    for source, to, told in (
        (site.url("/r"), "https://x.org/r", "a folder, or a registry"),
        (site.url("/r"), "oci://x.org/r", "of a release of files a folder is made"),
        (one, tmp_path / "usb", "a whole release is carried, not a file of it"),
    ):
        with pytest.raises(UsageError, match=told):
            mirror(tmp_path, source, to)
    with pytest.raises(UsageError, match="from where, and to where"):
        command.run(variables.parse({"from": "x"}, images=["nifty"]))
    with pytest.raises(UsageError, match="signed by whom"):
        command.run(variables.parse({"from": "x", "to": "y"}, images=["nifty"]))
