"""Whom `image=https://…` trusts: a keyring, a pin, or who was trusted at first; never less."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pipeline import settings as variables
from pipeline import terminal
from pipeline.commands import obtain
from pipeline.errors import NiftyError, UsageError
from pipeline.host.state.layout import Layout
from pipeline.release import envelope, keys, names
from pipeline.release.contents import Item, digests, images
from pipeline.release.publish import Terms, publish
from pipeline.trust import memory, sums
from pipeline.trust.memory import OlderError
from tests.support import signers, stored, webserver
from tests.support.published import FIRST, SECOND, put, stem
from tests.support.registry import faking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.release.contents import Addition
    from tests.support.registry import Fake
    from tests.support.webserver import Site

SIGNER, MALLORY = signers.signer(), signers.signer("Mallory <m@example.org>")
OURS, THEIRS = (keys.load("t", one.made.signing, {}, signers.NOW) for one in (SIGNER, MALLORY))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with webserver.serving(tmp_path_factory.mktemp("server")) as site:
        yield site


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    put(folder / "1", FIRST, signing=OURS)
    put(folder / "2", SECOND, signing=OURS)
    put(folder / "mallory", SECOND, signing=THEIRS)
    return folder


@pytest.fixture
def site(server: Site, releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    server.requests.clear()
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.authorities))
    monkeypatch.setattr(obtain, "_SITE", tmp_path / "etc-keyring.pgp")
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "ours.pgp").write_bytes(SIGNER.certificate)
    serve(server, releases / "2")
    return server


def serve(site: Site, folder: Path) -> None:
    webserver.serve(site, folder, "/r")


def got(site: Site, tmp_path: Path, *, file: str = "", **given: str) -> obtain.Obtained:
    """What is obtained, and remembered."""
    words = {"image": site.url(f"/r/{file}"), "prefix": str(tmp_path / "home"), **given}
    found = obtain.image(variables.parse(words, images=["nifty"]))
    found.remember(Layout(tmp_path / "home"))
    return found


def test_a_keyring_is_asked_for(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"signed by whom\?\nhint: keyring=FILE.*trust=first"):
        got(site, tmp_path)
    assert site.requests == []


def test_the_keyring_that_is_given_decides(site: Site, releases: Path, tmp_path: Path) -> None:
    found = got(site, tmp_path, keyring=str(tmp_path / "ours.pgp"))
    file = f"{stem('2')}.tar.zst"
    assert found.path.read_bytes() == (releases / "2" / file).read_bytes()
    serve(site, releases / "mallory")
    with pytest.raises(NiftyError, match="does not hold"):
        got(site, tmp_path, keyring=str(tmp_path / "ours.pgp"))


def test_the_host_s_own_keyring_is_the_default(site: Site, tmp_path: Path) -> None:
    (tmp_path / "etc-keyring.pgp").write_bytes(SIGNER.armored)
    assert got(site, tmp_path).path.is_file()


def test_a_pin_needs_no_keyring(site: Site, releases: Path, tmp_path: Path) -> None:
    file = f"{stem('2')}.tar.zst"
    pin = sums.read((releases / "2" / sums.NAME).read_bytes())[file]
    found = got(site, tmp_path, file=f"{file}#sha256={pin}")
    assert found.path.name == pin
    assert [path for path, _ in site.requests] == [f"/r/{file}"]
    with pytest.raises(NiftyError, match="has the sha256"):
        got(site, tmp_path, file=f"{file}#sha256={'0' * 64}")


def test_a_pin_and_a_keyring_must_both_hold(site: Site, tmp_path: Path) -> None:
    ring, file = str(tmp_path / "ours.pgp"), f"{stem('2')}.tar.zst"
    with pytest.raises(NiftyError, match="not the pinned one"):
        got(site, tmp_path, file=f"{file}#sha256={'0' * 64}", keyring=ring)


def test_trust_at_first_sight_asks_and_is_kept(
    site: Site, releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(terminal, "ask", lambda _question: None)
    with pytest.raises(UsageError, match="asks on a terminal"):
        got(site, tmp_path, trust="first")
    monkeypatch.setattr(terminal, "ask", lambda _question: "n")
    with pytest.raises(NiftyError, match="not trusted"):
        got(site, tmp_path, trust="first")
    assert list((tmp_path / "home").iterdir()) == []
    got(site, tmp_path, trust="first", yes="yes")
    assert SIGNER.made.fingerprint in capsys.readouterr().err
    got(site, tmp_path)  # from now on nobody is asked
    serve(site, releases / "mallory")
    with pytest.raises(NiftyError, match="does not hold"):
        got(site, tmp_path, trust="first", yes="yes")


def test_more_keys_than_anybody_compares_are_not_trusted_at_first_sight(
    site: Site, tmp_path: Path
) -> None:
    several = b"".join(signers.signer(f"N{number}").certificate for number in range(6))
    site.answers["/r/nifty-keyring.pgp"] = [webserver.whole(several)]
    with pytest.raises(NiftyError, match="offers 6 certificates"):
        got(site, tmp_path, trust="first", yes="yes")


def test_nothing_older_is_taken_unless_that_is_asked_for(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    ring = str(tmp_path / "ours.pgp")
    got(site, tmp_path, keyring=ring)
    serve(site, releases / "1")
    site.requests.clear()
    with pytest.raises(OlderError, match="version 1, and 2 was seen there before"):
        got(site, tmp_path, keyring=ring)
    assert not [path for path, _ in site.requests if path.endswith(".zst")]
    got(site, tmp_path, keyring=ring, downgrade="yes")
    with pytest.raises(OlderError):  # one downgrade does not make it forget
        got(site, tmp_path, keyring=ring)


def test_a_fresh_signature_is_taken(site: Site, releases: Path, tmp_path: Path) -> None:
    ring, folder = str(tmp_path / "ours.pgp"), tmp_path / "old"
    old = signers.signer(age=timedelta(days=9))
    (tmp_path / "ours.pgp").write_bytes(old.certificate)
    put(folder, SECOND, signing=keys.load("t", old.made.signing, {}, signers.NOW))
    serve(site, folder)
    (archive,) = folder.glob("*.tar.zst")
    found = got(site, tmp_path, keyring=ring, fresh="1")
    assert found.path.read_bytes() == archive.read_bytes()


def test_other_commands_remember_nothing(site: Site, tmp_path: Path) -> None:
    words = {"image": site.url("/r/"), "keyring": str(tmp_path / "ours.pgp"),
             "prefix": str(tmp_path / "home")}  # fmt: skip
    obtain.image(variables.parse(words, images=["nifty"]))
    assert list((tmp_path / "home").iterdir()) == []


def test_the_cache_is_where_the_standards_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(obtain._cache()) == "/var/cache/nifty"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert str(obtain._cache()) == "/x/nifty"


@pytest.mark.parametrize(
    "url", ["ftp://x.org/a", "https://x.org/a b", "https://x.org/\x1b[2J", "file:///etc/passwd"]
)
def test_what_is_no_https_url_is_no_image(url: str) -> None:
    with pytest.raises(variables.VariablesError, match="expected an https:// or oci:// URL"):
        variables.parse({"image": url}, images=["nifty"])


def test_the_published_keyring_is_binary(releases: Path) -> None:
    assert (releases / "2" / names.KEYRING).read_bytes()[0] & 0x80


def test_another_image_than_before_is_not_taken_from_a_directory(
    site: Site, tmp_path: Path
) -> None:
    ring, folder = str(tmp_path / "ours.pgp"), Layout(tmp_path / "home").state / "trusted"
    found = got(site, tmp_path, keyring=ring)
    assert found.pulled is not None
    source = memory.place(folder, found.pulled.place.base, "")
    seen = memory.recall(source)
    assert seen is not None
    memory.remember(source, found.pulled.place.base, "other", seen)
    with pytest.raises(OlderError, match="the image there was other, and is small now"):
        got(site, tmp_path, keyring=ring)
    got(site, tmp_path, keyring=ring, file=f"{stem('2')}.tar.zst")
    assert memory.recall_image(source) == "small"


def test_a_release_older_than_another_of_that_source_is_not_taken(
    site: Site, tmp_path: Path
) -> None:
    ring, folder = str(tmp_path / "ours.pgp"), Layout(tmp_path / "home").state / "trusted"
    found = got(site, tmp_path, keyring=ring)
    assert found.pulled is not None
    base = found.pulled.place.base
    later = memory.Seen(version="", signed=signers.NOW + timedelta(days=300))
    memory.remember(memory.place(folder, base, ""), base, "small", later)
    with pytest.raises(OlderError, match="signed at"):
        got(site, tmp_path, keyring=ring)


def stated(*by: keys.Signing) -> Addition:
    """Adds the provenance of SECOND, signed by them."""

    def add(files: dict[str, bytes]) -> dict[str, bytes]:
        about = digests(files, "small", "2")
        subjects = [{"name": name, "digest": {"sha256": one}} for name, one in about.items()]
        payload = json.dumps({"subject": subjects}).encode()
        secrets = [key for one in by if (key := one.ed25519())]
        return {**files, "small_2.intoto.json": envelope.envelope(payload, secrets)}

    return add


def test_so_many_must_have_built_it_again(site: Site, tmp_path: Path) -> None:
    """Before anything is downloaded; here Mallory is one of two that are trusted to do so."""
    release = tmp_path / "release"
    terms = Terms(keep=1, now=signers.NOW, more=[stated(OURS, THEIRS)])
    publish(release, list(images([SECOND])), OURS, SIGNER.certificate, terms)
    serve(site, release)
    other = signers.signer("Other <o@example.org>")
    (tmp_path / "again.pgp").write_bytes(MALLORY.certificate + other.certificate)
    words = {"keyring": str(tmp_path / "ours.pgp"), "rebuilders": str(tmp_path / "again.pgp")}
    with pytest.raises(NiftyError, match=r"built again by 1 of .*again\.pgp, 2 are needed"):
        got(site, tmp_path, **words, need="2")
    assert not [path for path, _headers in site.requests if ".tar" in path]
    assert got(site, tmp_path, **words).path.is_file()
    theirs = keys.load("t", other.made.signing, {}, signers.NOW).ed25519()
    assert theirs is not None
    payload = envelope.read((release / "small_2.intoto.json").read_bytes()).payload
    (tmp_path / "more").write_bytes(envelope.envelope(payload, [theirs]))
    got(site, tmp_path, **words, need="2", rebuilt=str(tmp_path / "more"))
    serve(site, tmp_path.joinpath("release"))
    site.answers["/r/small_2.intoto.json"] = [webserver.whole((tmp_path / "more").read_bytes())]
    with pytest.raises(NiftyError, match="not the one whose sum is signed"):
        got(site, tmp_path, **words)


def test_who_built_again_is_asked_where_that_can_be_known(site: Site, tmp_path: Path) -> None:
    ring = str(tmp_path / "ours.pgp")
    with pytest.raises(NiftyError, match="has no provenance of small_2_"):
        got(site, tmp_path, keyring=ring, rebuilders=ring)
    pin = f"{stem('2')}.tar.zst#sha256={'0' * 64}"
    for given in ({"file": pin}, {"image": "oci://127.0.0.1:1/a"}, {"image": "./a.tar.zst"}):
        with pytest.raises(UsageError, match="rebuilders= is asked of a signed release"):
            got(site, tmp_path, rebuilders=ring, **given)


def test_freshness_is_asked_of_any_file(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = Item(name="foo.tar.zst", content=b"x")
    ring, asked = SIGNER.certificate, []
    publish(tmp_path / "foo", [item], OURS, ring, Terms(keep=1, now=signers.NOW))
    serve(site, tmp_path / "foo")
    monkeypatch.setattr(memory, "check_fresh", lambda *words, name: asked.append((words[1], name)))
    with pytest.raises(NiftyError, match="does not know foo"):
        got(site, tmp_path, keyring=str(tmp_path / "ours.pgp"), file="foo.tar.zst", fresh="7")
    assert asked == [(7, site.url("/r/foo.tar.zst"))]


# ----- from a registry


@pytest.fixture
def fake(site: Site) -> Iterator[Fake]:
    """A registry with the releases 1 and 2 below their tags."""
    with faking() as one:
        for version in ("1", "2"):
            stored.push(stored.release(version), one.reference(), version)
        one.requests.clear()
        yield one


def from_registry(fake: Fake, tmp_path: Path, behind: str, **given: str) -> obtain.Obtained:
    words = {
        "image": stored.image_url(fake, behind), "prefix": str(tmp_path / "home"), **given,
    }  # fmt: skip
    found = obtain.image(variables.parse(words, images=["nifty"]))
    found.remember(Layout(tmp_path / "home"))
    return found


def test_a_registry_is_trusted_as_a_server_is(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"signed by whom\?[\s\S]*@sha256:"):
        from_registry(fake, tmp_path, ":2")
    assert fake.requests == []
    found = from_registry(fake, tmp_path, ":2", trust="first", yes="yes")
    assert found.path.read_bytes() == stored.release("2").image.archive
    assert f"/a/b:2: small_2_{names.WORDS[stored.MACHINE]}.tar.zst: signed by Nifty" in (
        capsys.readouterr().err
    )
    with pytest.raises(OlderError, match="version 1, and 2 was seen there before"):
        from_registry(fake, tmp_path, ":1")  # the key is known by now
    by_digest = f"@{stored.release('1').index.blob.digest}"
    with pytest.raises(OlderError, match="version 1, and 2 was seen there before"):
        from_registry(fake, tmp_path, by_digest, keyring=str(_ring(tmp_path)))
    older = from_registry(fake, tmp_path, ":1", downgrade="yes")
    assert older.path.read_bytes() == stored.release("1").image.archive


def test_a_digest_of_a_registry_needs_no_keyring(fake: Fake, tmp_path: Path) -> None:
    made = stored.release("1")
    found = from_registry(fake, tmp_path, f"@{made.index.blob.digest}")
    assert found.path.read_bytes() == made.image.archive
    assert not (tmp_path / "home/.nifty").exists()
    with pytest.raises(NiftyError, match="does not hold"):
        from_registry(
            fake, tmp_path, f"@{made.index.blob.digest}", keyring=str(_ring(tmp_path, MALLORY))
        )


def _ring(tmp_path: Path, signer: signers.Signer = stored.SIGNER) -> Path:
    path = tmp_path / "registry.pgp"
    path.write_bytes(signer.certificate)
    return path


def test_what_another_run_has_overtaken_is_not_taken(site: Site, tmp_path: Path) -> None:
    """Looked at before the lock is had, and again under it."""
    words = {"image": site.url("/r/"), "keyring": str(tmp_path / "ours.pgp"),
             "prefix": str(tmp_path / "home")}  # fmt: skip
    found = obtain.image(variables.parse(words, images=["nifty"]))
    assert found.pulled is not None
    base, layout = found.pulled.place.base, Layout(tmp_path / "home")
    found.remember(layout)
    later = memory.Seen(version="3", signed=signers.NOW)
    memory.remember(memory.place(layout.trusted, base, "small"), base, "small", later)
    with pytest.raises(OlderError, match="version 2, and 3 was seen there before"):
        found.remember(layout)
