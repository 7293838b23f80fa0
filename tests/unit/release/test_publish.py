"""A release: whole at every moment, the same bytes for ever, and refused when it is not that."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import multiprocessing
import os
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from pipeline import files
from pipeline.image import archive
from pipeline.image.rootfs import File
from pipeline.onefile import pack
from pipeline.onefile.wheels import Target
from pipeline.release import check, keys, names, oci, publish, whole
from pipeline.release.before import PublishError
from pipeline.release.contents import Built
from pipeline.trust import keyring, sums, verify
from tests.support import signers
from tests.support.published import (
    FIRST,
    NOW,
    RING,
    SECOND,
    SIGNING,
    THIRD,
    built,
    put,
    stem,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.release.check import Check


def wrong(folder: Path, ring: keyring.Keyring | None = RING) -> list[Check]:
    return [one for one in check.directory(folder, ring, now=NOW) if not one.is_right]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    assert put(folder, FIRST)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_release_has_every_file_under_its_name(release: Path) -> None:
    top = {name for name in contents(release) if "/" not in name}
    assert sorted(top) == [
        *("SHA256SUMS", "SHA256SUMS.gpg", "folders.sha256", "index.html", "nifty-keyring.asc"),
        *("nifty-keyring.pgp", "nifty-provenance.pem", "release.json"),
        *(f"{stem()}.{ending}" for ending in ("incus.tar.xz", "json", "tar.xz", "tar.zst")),
    ]
    assert wrong(release) == []
    listed = sums.read((release / "SHA256SUMS").read_bytes())
    assert top - set(listed) == {"SHA256SUMS", "SHA256SUMS.gpg"}
    below = sums.read((release / "folders.sha256").read_bytes(), below=True)
    assert set(contents(release)) - top == set(below)
    assert {"oci/oci-layout", "oci/index.json", "streams/v1/images.json"} < set(below)
    assert sorted(path.name for path in release.parent.iterdir()) == [".release.lock", "release"]


def test_names_are_read_as_they_are_written() -> None:
    called = names.name("nifty-gawk", "2026.11~rc1", "aarch64", "tar.zst")
    assert called == "nifty-gawk_2026.11~rc1_arm64.tar.zst"
    read = names.parse(called)
    assert read == names.Named(
        image="nifty-gawk", version="2026.11~rc1", architecture="aarch64", ending="tar.zst"
    )
    about_all = names.parse("nifty_2026.11.intoto.json")
    assert about_all == names.Named(
        image="nifty", version="2026.11", architecture="", ending="intoto.json"
    )
    for other in ("release.json", "SHA256SUMS", "nifty-keyring.pgp", "nifty_1_x86-64_2.json", ""):
        assert names.parse(other) is None


def test_published_again_nothing_changes(release: Path) -> None:
    before = contents(release)
    assert not put(release, FIRST)
    assert contents(release) == before


def test_all_but_the_signature_are_the_same_bytes_elsewhere(release: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    put(other, FIRST)
    assert (other / f"{stem()}.tar.zst").stat().st_nlink == 2  # a layer of oci/ is the same file
    mine, theirs = contents(release), contents(other)
    assert mine.keys() == theirs.keys()
    assert {name for name in mine if mine[name] != theirs[name]} <= {"SHA256SUMS.gpg"}


def test_a_version_with_other_bytes_is_refused(release: Path) -> None:
    before = contents(release)
    with pytest.raises(PublishError, match="another version="):
        put(release, built("1", motd=b"other\n"))
    assert contents(release) == before


def test_older_versions_stay_but_not_for_ever(release: Path) -> None:
    put(release, SECOND)
    assert {stem("1") + ".json", stem("2") + ".json"} <= contents(release).keys()
    assert wrong(release) == []
    put(release, THIRD, keep=2)
    there = {name for name in contents(release) if name.endswith("_x86-64.json")}
    assert there == {f"{stem('2')}.json", f"{stem('3')}.json"}
    assert wrong(release) == []


def test_a_damaged_release_is_not_signed_again(release: Path) -> None:
    path = release / f"{stem()}.tar.xz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(PublishError, match="not the bytes that were published"):
        put(release, SECOND)


def test_a_lost_file_of_the_same_version_is_put_back(release: Path) -> None:
    (release / f"{stem()}.tar.xz").unlink()
    assert put(release, FIRST)
    assert wrong(release) == []


def test_a_new_key_signs_again(release: Path) -> None:
    other = signers.signer("Other <o@example.org>")
    signing = keys.load("test", other.made.signing, {}, NOW)
    assert put(release, FIRST, signing=signing)
    assert wrong(release, keyring.read(other.certificate, name="k")) == []
    assert [one.name for one in wrong(release)] == ["SHA256SUMS.gpg"]


def test_unsigned_means_no_signature(tmp_path: Path, release: Path) -> None:
    assert put(release, FIRST, signing=None)
    assert "SHA256SUMS.gpg" not in contents(release)
    assert wrong(release, None) == []
    assert not put(release, FIRST, signing=None)
    assert [one.name for one in wrong(release)] == ["SHA256SUMS.gpg"]


def test_what_a_stranger_would_refuse_is_not_published(release: Path) -> None:
    before = contents(release)
    mixed = Built(
        manifest=SECOND.manifest, digest=SECOND.digest, tar_sha256=SECOND.tar_sha256,
        contents={**SECOND.contents, "tar.xz": THIRD.contents["tar.xz"]},
    )  # fmt: skip
    with pytest.raises(PublishError, match="a stranger would refuse it"):
        put(release, mixed)
    assert contents(release) == before
    assert put(release, SECOND)
    assert sorted(path.name for path in release.parent.iterdir()) == [".release.lock", "release"]


def test_what_is_no_release_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "mine").write_text("precious")
    with pytest.raises(PublishError, match="mv "):
        put(folder, FIRST)
    assert (folder / "mine").read_text() == "precious"


def test_a_link_in_the_place_of_a_release_is_refused(release: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(release)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    before = contents(release)
    for name in ("link", "nowhere"):
        with pytest.raises(PublishError, match=r"is a symbolic link:\n.*\n?hint: rm"):
            put(tmp_path / name, SECOND)
        assert (tmp_path / name).is_symlink()
    assert contents(release) == before


# ----- for other clients


def test_an_index_that_was_published_stays_while_its_archives_do(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever another program, or another zlib, would make of them today."""
    first = {name: content for name, content in contents(release).items() if "/blobs/" in name}
    monkeypatch.setattr(oci, "gzip", lambda tar: gzip.compress(tar, 1, mtime=0))
    assert put(release, SECOND)
    there = contents(release)
    assert first.items() <= there.items()
    listed = json.loads(there["oci/index.json"])["manifests"]
    tags = [one["annotations"]["org.opencontainers.image.ref.name"] for one in listed]
    assert tags == ["small_1", "small_2"]
    put(release, THIRD, keep=1)
    assert not first.keys() & contents(release).keys()
    assert wrong(release) == []


def test_where_it_is_served_is_remembered(release: Path) -> None:
    assert "small.transfer" not in contents(release)
    assert put(release, FIRST, url="https://example.org/100%25/")
    told = contents(release)["small.transfer"].decode()
    assert "Path=https://example.org/100%%25/\n" in told
    assert "MatchPattern=small_@v_%a.tar.xz\n" in told
    assert not put(release, FIRST)
    put(release, SECOND)
    assert contents(release)["small.transfer"].decode() == told
    assert "image=https://example.org/100%25/" in contents(release)["index.html"].decode()


def test_what_incus_reads(release: Path) -> None:
    """By the rules of its shared/simplestreams/products.go."""
    put(release, SECOND)
    there = contents(release)
    index = json.loads(there["streams/v1/index.json"])
    (listed,) = index["index"].values()
    assert (index["format"], listed["datatype"]) == ("index:1.0", "image-downloads")
    products = json.loads(there[listed["path"]])["products"]
    assert listed["products"] == list(products)
    ((name, product),) = products.items()
    assert name == f"small:current:{product['arch']}:default"
    assert product["aliases"] == "small,small/current"
    assert len(product["versions"]) == 2
    for serial, version in product["versions"].items():
        datetime.strptime(serial[:8], "%Y%m%d").replace(tzinfo=UTC)
        items = {one["ftype"]: one for one in version["items"].values()}
        meta, root = items["incus.tar.xz"], items["root.tar.xz"]
        for one in (meta, root):
            assert one["size"] == len(there[one["path"]])
            assert one["sha256"] == hashlib.sha256(there[one["path"]]).hexdigest()
        both = hashlib.sha256(there[meta["path"]] + there[root["path"]]).hexdigest()
        assert meta["combined_rootxz_sha256"] == meta["combined_sha256"] == both
    (entry,) = archive.read(there[f"{stem()}.incus.tar.xz"])
    assert isinstance(entry, File)
    assert entry.path == "metadata.yaml"
    lines = entry.content.decode().splitlines()
    assert lines[0] == f'architecture: "{os.uname().machine}"'
    assert lines[1].removeprefix("creation_date: ").isdecimal()
    assert '  os: "small"' in lines


def test_the_page_escapes_what_is_not_its_own(tmp_path: Path) -> None:
    evil = signers.signer("<script>alert(1)</script> & co <e@example.org>")
    signing = keys.load("test", evil.made.signing, {}, NOW)
    strange = built("1", title="<img src=x>'\"&")
    put(tmp_path / "release", strange, signing=signing)
    page = (tmp_path / "release/index.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in page
    assert "&lt;img src=x&gt;&#x27;&quot;&amp;" in page
    assert "<script" not in page
    assert "<img" not in page
    put(tmp_path / "unsigned", strange, signing=None)
    assert "Not signed" in (tmp_path / "unsigned/index.html").read_text()
    assert evil.made.fingerprint in page


def test_the_page_is_well_formed_and_links_to_files_that_are_there(release: Path) -> None:
    seen = _Links()
    seen.feed((release / "index.html").read_text())
    seen.close()
    assert not seen.opened
    assert set(seen.links) <= contents(release).keys()
    assert f"{stem()}.tar.zst" in seen.links


class _Links(HTMLParser):
    """What a page links to, and which elements are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name == "href"]
        # those whose end HTML lets one leave out (HTML, 13.1.2.4), or has none
        if tag not in ("meta", "br", "tr", "th", "td"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


# ----- killed


def _until(folder: Path, stop: int) -> None:
    """Publishes SECOND, and is gone at step number *stop*."""
    left = [stop]

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return function(*args, **kwargs)

        return step

    for module, name in (
        (files, "write"), (files, "sync"), (files, "sync_folder"),
        (files, "exchanged"), (whole, "remove"), (publish, "_look"),
    ):  # fmt: skip
        setattr(module, name, counted(getattr(module, name)))
    put(folder, SECOND)
    os._exit(0)


def test_killed_at_any_step_a_whole_release_stays(release: Path) -> None:
    before = contents(release)
    fork = multiprocessing.get_context("fork")
    codes: list[int | None] = []
    while 0 not in codes:
        process = fork.Process(target=_until, args=(release, len(codes)))
        process.start()
        process.join()
        codes.append(process.exitcode)
        assert wrong(release) == []
        if stem("2") + ".json" not in contents(release):
            assert contents(release) == before
        assert len(codes) < 80
    assert len(codes) > 30
    assert stem("2") + ".json" in contents(release)


def test_without_an_exchange_two_renames_are_finished_later(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "exchanged", lambda *_: False)
    assert put(release, SECOND)
    assert wrong(release) == []
    release.rename(release.with_name("release.old"))  # killed between the two
    assert not put(release, SECOND)
    assert sorted(path.name for path in release.parent.iterdir()) == [".release.lock", "release"]


def test_a_full_disk_leaves_the_release_before(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(release)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OSError, match="No space left"):
        put(release, SECOND)
    assert contents(release) == before


# ----- what a stranger sees


@pytest.fixture(params=["sequoia", "gpgv"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two that check signatures."""
    if request.param == "gpgv":
        signers.require("gpgv")
        monkeypatch.setattr(verify, "_has_sequoia", lambda: False)


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("name", sorted({"SHA256SUMS", "SHA256SUMS.gpg", "release.json",
    "nifty-keyring.pgp", "nifty-keyring.asc", "index.html", "folders.sha256", "oci/index.json",
    "streams/v1/images.json", f"{stem()}.incus.tar.xz", f"{stem()}.json", f"{stem()}.tar.xz",
    f"{stem()}.tar.zst"}))  # fmt: skip
@pytest.mark.parametrize("where", [0.0, 0.99])
def test_one_byte_changed_in_any_file_is_found(release: Path, name: str, where: float) -> None:
    path = release / name
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    path.write_bytes(content)
    assert wrong(release)


@pytest.mark.usefixtures("program")
def test_anothers_signature_and_anothers_sums_are_found(release: Path, tmp_path: Path) -> None:
    told = (release / "SHA256SUMS").read_bytes()
    mallory = signers.signer("Mallory <m@example.org>")
    (release / "SHA256SUMS.gpg").write_bytes(mallory.sign(told))
    (found,) = wrong(release)
    assert "which ours does not hold" in found.found
    other = tmp_path / "other"
    put(other, SECOND)
    for name in ("SHA256SUMS", "SHA256SUMS.gpg"):
        (release / name).write_bytes((other / name).read_bytes())
    found_names = {one.name for one in wrong(release)}
    assert f"{stem('2')}.tar.zst" in found_names
    assert "nothing else" in found_names


def test_a_signature_may_be_asked_to_be_fresh(release: Path) -> None:
    from datetime import timedelta  # noqa: PLC0415 (for these lines alone)

    late = NOW + timedelta(days=10)
    found = {one.name: one for one in check.directory(release, RING, now=late, fresh=5)}
    assert not found["fresh"].is_right
    assert found["SHA256SUMS.gpg"].is_right
    found = {one.name: one for one in check.directory(release, RING, now=late, fresh=20)}
    assert found["fresh"].is_right


def test_what_lies_in_folders_is_looked_at_as_well(release: Path, tmp_path: Path) -> None:
    (release / "oci/more").write_text("")
    (release / "empty").mkdir()
    (found,) = wrong(release)
    assert (found.name, found.found) == ("nothing else", "not in SHA256SUMS: empty/, oci/more")
    (release / "oci/more").unlink()
    (release / "empty").rmdir()
    (tmp_path / "streams").mkdir()
    (release / "streams").rename(tmp_path / "streams/moved")
    (release / "streams").symlink_to(tmp_path / "streams/moved")
    (found,) = wrong(release)
    assert found.found == "not in SHA256SUMS: streams"


def test_links_pipes_and_strange_files_are_not_followed(release: Path, tmp_path: Path) -> None:
    path = release / f"{stem()}.tar.xz"
    (tmp_path / "same").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "same")
    assert [one.name for one in wrong(release)] == [path.name]
    path.unlink()
    os.mkfifo(path)
    assert path.name in [one.name for one in wrong(release)]
    (release / "evil\x1b[2J").write_text("")
    assert any("evil\\x1b[2J" in one.found for one in wrong(release))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":2,"files":[]}',
        b'{"files":[{"name":1}],"format":1}',
        b"[" * 100_000,
    ],
)
def test_an_index_that_is_none_is_an_error_of_its_own(content: bytes) -> None:
    with pytest.raises(check.CheckError):
        check.index(content)


def test_what_the_index_alone_names_is_not_looked_at(release: Path) -> None:
    table = json.loads((release / names.INDEX).read_bytes())
    table["files"].append({"name": "/etc/passwd", "size": 1})
    (release / names.INDEX).write_text(json.dumps(table))
    listed = sums.read((release / sums.NAME).read_bytes())
    listed[names.INDEX] = hashlib.sha256((release / names.INDEX).read_bytes()).hexdigest()
    (release / sums.NAME).write_bytes(sums.text(listed))
    (found,) = wrong(release, None)
    assert "names what SHA256SUMS does not: /etc/passwd" in found.found


def test_nothing_is_read_of_what_nobody_signed(release: Path) -> None:
    (release / sums.SIGNATURE).write_bytes(b"no signature")
    assert [one.name for one in check.directory(release, RING, now=NOW)] == [
        sums.NAME,
        sums.SIGNATURE,
    ]


def test_a_web_server_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        put(tmp_path / "release", FIRST)
    finally:
        os.umask(old)
    assert (tmp_path / "release").stat().st_mode & 0o777 == 0o755


def test_programs_for_hosts_stay_until_they_are_made_anew(release: Path) -> None:
    name = pack.name(Target(python="3.11", machine="x86_64"))
    ring = SIGNING.certificate.binary

    def published(content: bytes | None) -> bytes:
        more = [] if content is None else [lambda there: {**there, name: content}]
        terms = publish.Terms(keep=3, now=NOW, more=more)
        publish.publish(release, [], SIGNING, ring, terms)
        assert wrong(release) == []
        return (release / name).read_bytes()

    assert published(b"first") == b"first"
    assert published(None) == b"first"
    assert published(b"second") == b"second"
    assert name in sums.read((release / "SHA256SUMS").read_bytes())
    page = (release / "index.html").read_text("utf-8")
    assert "for /usr/bin/python3 that is Python 3.11, on x86_64" in page
    assert names.parse(name) is None
