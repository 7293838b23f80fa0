"""An image from a server that may do anything: signed or pinned, bounded, resumed, never older."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import NiftyError, UsageError
from pipeline.net.transport import Transport
from pipeline.release import cache, keys, names, remote
from pipeline.release.place import Place, place
from pipeline.release.reader import RemoteError
from pipeline.release.remote import Client
from pipeline.trust import keyring, sums
from pipeline.trust.verify import SignatureError
from tests.support import signers, webserver
from tests.support.published import FIRST, SECOND, put, stem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

    from tests.support.webserver import Site

NOW = signers.NOW
SIGNER = signers.signer()
SIGNING = keys.load("test", SIGNER.made.signing, {}, NOW)
RING = keyring.read(SIGNER.certificate, name="ours")
MACHINE = os.uname().machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with webserver.serving(tmp_path_factory.mktemp("server")) as site:
        yield site


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The releases 1, and 2 with 1."""
    folder = tmp_path_factory.mktemp("releases")
    put(folder / "1", FIRST, signing=SIGNING)
    put(folder / "2", FIRST, signing=SIGNING)
    put(folder / "2", SECOND, signing=SIGNING)
    return folder


@pytest.fixture
def site(server: Site, releases: Path) -> Site:
    server.answers.clear()
    server.requests.clear()
    serve(server, releases / "2")
    return server


def serve(site: Site, folder: Path) -> None:
    for path in filter(Path.is_file, folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        site.answers[f"/r/{name}"] = [webserver.whole(path.read_bytes(), etag='"1"')]


def client(site: Site, tmp_path: Path) -> Client:
    quick = Transport(
        connect_timeout=2, read_timeout=2, deadline=20, backoff=lambda _: 0,
        sleep=lambda _: None, authorities=site.authorities,
    )  # fmt: skip
    return Client(cache=tmp_path / "cache", machine=MACHINE, now=NOW, transport=quick)


def where(site: Site, file: str = "", pin: str = "") -> Place:
    return place(site.url(f"/r/{file}") + (f"#sha256={pin}" if pin else ""))


def reason(site: Site, tmp_path: Path, file: str = "", ring: keyring.Keyring = RING) -> str:
    with pytest.raises(NiftyError) as caught:
        client(site, tmp_path).signed(where(site, file), ring)
    assert not [path for path in (tmp_path / "cache").glob("*") if len(path.name) == 64]
    return caught.value.message


ZST = f"{stem('2')}.tar.zst"


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_directory_means_the_newest_image(site: Site, releases: Path, tmp_path: Path) -> None:
    pulled = client(site, tmp_path).signed(where(site), RING)
    assert pulled.path.read_bytes() == (releases / "2" / ZST).read_bytes()
    assert pulled.named == names.parse(ZST)
    assert pulled.signed is not None
    assert pulled.signed.certificate.fingerprint == SIGNER.made.fingerprint
    asked = [path for path, _headers in site.requests]
    assert asked == [f"/r/{name}" for name in (sums.NAME, sums.SIGNATURE, names.INDEX, ZST)]


def test_a_file_means_that_one(site: Site, releases: Path, tmp_path: Path) -> None:
    file = f"{stem('1')}.tar.xz"
    pulled = client(site, tmp_path).signed(where(site, file), RING)
    assert pulled.path.read_bytes() == (releases / "2" / file).read_bytes()


def test_what_is_in_the_cache_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    first = client(site, tmp_path).signed(where(site), RING)
    site.requests.clear()
    assert client(site, tmp_path).signed(where(site), RING) == first
    assert f"/r/{ZST}" not in [path for path, _headers in site.requests]
    site.requests.clear()
    pin = first.place.pin
    assert client(site, tmp_path).pinned(where(site, ZST, pin)).path == first.path
    assert site.requests == []


def test_a_damaged_cache_is_mended(site: Site, tmp_path: Path) -> None:
    pulled = client(site, tmp_path).signed(where(site), RING)
    good = pulled.path.read_bytes()
    pulled.path.write_bytes(b"x" * len(good))
    client(site, tmp_path).signed(where(site), RING)
    assert pulled.path.read_bytes() == good


def test_a_pin_needs_no_key_and_only_takes_those_bytes(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    pin = sha(releases / "2" / ZST)
    pulled = client(site, tmp_path).pinned(where(site, ZST, pin))
    assert sha(pulled.path) == pin
    with pytest.raises(NiftyError, match=f"has the sha256 {pin}, expected {'0' * 64}"):
        client(site, tmp_path).pinned(where(site, ZST, "0" * 64))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [pin]


@pytest.mark.parametrize("pinned", ["signed", "pinned"])
def test_an_interrupted_download_goes_on_in_the_next_run(
    site: Site, releases: Path, tmp_path: Path, pinned: str
) -> None:
    content = (releases / "2" / ZST).read_bytes()
    pin = hashlib.sha256(content).hexdigest()

    def pull() -> remote.Pulled:
        if pinned == "pinned":
            return client(site, tmp_path).pinned(where(site, ZST, pin))
        return client(site, tmp_path).signed(where(site), RING)

    broken = webserver.breaking(content, after=100, etag='"1"')
    site.answers[f"/r/{ZST}"] = [broken, webserver.status(404)]
    with pytest.raises(RemoteError):
        pull()
    assert (tmp_path / "cache" / f"{pin}.part").stat().st_size == 100
    site.answers[f"/r/{ZST}"] = [webserver.rest(content)]
    assert pull().path.read_bytes() == content
    assert site.requests[-1][1]["Range"] == "bytes=100-"


def test_a_rest_that_does_not_fit_is_fetched_whole(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    content = (releases / "2" / ZST).read_bytes()
    pin = hashlib.sha256(content).hexdigest()
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / f"{pin}.part").write_bytes(b"?" * 100)
    site.answers[f"/r/{ZST}"] = [webserver.rest(content), webserver.whole(content)]
    assert client(site, tmp_path).signed(where(site), RING).path.read_bytes() == content


def test_no_proxy_is_between_this_machine_and_itself(
    releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    handler = partial(SimpleHTTPRequestHandler, directory=str(releases / "2"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/"
            pulled = Client(cache=tmp_path / "cache", machine=MACHINE, now=NOW).signed(
                place(url), RING
            )
        finally:
            server.shutdown()
            thread.join()
    assert sha(pulled.path) == pulled.place.pin


# ----- attacks


@pytest.mark.parametrize("name", [sums.NAME, sums.SIGNATURE, names.INDEX, ZST])
def test_one_byte_changed_anywhere_is_refused(
    site: Site, releases: Path, tmp_path: Path, name: str
) -> None:
    content = bytearray((releases / "2" / name).read_bytes())
    content[len(content) // 2] ^= 1
    site.answers[f"/r/{name}"] = [webserver.whole(bytes(content))]
    reason(site, tmp_path)


def test_anothers_key_is_refused(site: Site, tmp_path: Path) -> None:
    mallory = keyring.read(signers.signer("Mallory <m@x.org>").certificate, name="k")
    assert "which k does not hold" in reason(site, tmp_path, ring=mallory)


def test_an_expired_key_is_refused(site: Site, tmp_path: Path) -> None:
    from dataclasses import replace  # noqa: PLC0415 (for these lines alone)

    late = replace(client(site, tmp_path), now=NOW + timedelta(days=400))
    with pytest.raises(SignatureError, match="expired on"):
        late.signed(where(site), RING)


def test_sums_of_another_release_do_not_fit_its_files(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    for name in (sums.NAME, sums.SIGNATURE):
        site.answers[f"/r/{name}"] = [webserver.whole((releases / "1" / name).read_bytes())]
    assert reason(site, tmp_path).endswith("release.json: not the one whose sum is signed")
    assert "the release has no" in reason(site, tmp_path, ZST)


def test_an_older_release_reaches_who_refuses_it(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    serve(site, releases / "1")
    seen: list[remote.Pulled] = []

    def refuse(pulled: remote.Pulled) -> None:
        seen.append(pulled)
        raise RemoteError("older")

    with pytest.raises(RemoteError, match="older"):
        client(site, tmp_path).signed(where(site), RING, refuse)
    assert seen[0].seen is not None
    assert seen[0].seen.version == "1"
    assert f"/r/{stem('1')}.tar.zst" not in [path for path, _headers in site.requests]


def test_two_mebibytes_of_sums_are_not_read(site: Site, tmp_path: Path) -> None:
    line = b"0" * 64 + b"  a\n"
    site.answers[f"/r/{sums.NAME}"] = [webserver.whole(line * 31_000)]
    assert reason(site, tmp_path).endswith("sends more than 1048576 bytes")
    site.answers[f"/r/{sums.NAME}"] = [webserver.whole(b"")]
    site.answers[f"/r/{sums.SIGNATURE}"] = [webserver.whole(b"0" * 70_000)]
    assert reason(site, tmp_path).endswith("sends more than 65536 bytes")


@pytest.mark.parametrize("chunked", ["chunked", "plain"])
@pytest.mark.parametrize("name", [sums.NAME, names.INDEX, ZST])
def test_an_endless_body_ends(site: Site, tmp_path: Path, name: str, chunked: str) -> None:
    site.answers[f"/r/{name}"] = [webserver.endless(chunked=chunked == "chunked")]
    assert "sends more than" in reason(site, tmp_path)


def test_a_redirect_to_http_is_not_followed(site: Site, tmp_path: Path) -> None:
    for name in (sums.NAME, ZST):
        serve_again = site.answers[f"/r/{name}"]
        site.answers[f"/r/{name}"] = [webserver.redirect("http://127.0.0.1:1/x")]
        assert reason(site, tmp_path).endswith("redirects to http:, only https: is followed")
        site.answers[f"/r/{name}"] = serve_again


def test_an_index_that_lies_about_sizes_bounds_nothing(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    """It is signed; a publisher's mistake is told all the same."""
    folder = tmp_path / "lying"
    folder.mkdir()
    index = (releases / "2" / names.INDEX).read_bytes().replace(b'"size": ', b'"size": 9')
    listed = sums.read((releases / "2" / sums.NAME).read_bytes())
    told = sums.text({**listed, names.INDEX: hashlib.sha256(index).hexdigest()})
    for name, content in (
        (names.INDEX, index), (sums.NAME, told), (sums.SIGNATURE, SIGNING.sign(told)),
    ):  # fmt: skip
        site.answers[f"/r/{name}"] = [webserver.whole(content)]
    assert "bytes, the release names 9" in reason(site, tmp_path)


def test_a_release_for_other_machines_says_what_it_has(site: Site, tmp_path: Path) -> None:
    from dataclasses import replace  # noqa: PLC0415 (for these lines alone)

    other = replace(client(site, tmp_path), machine="riscv64")
    with pytest.raises(RemoteError, match=r"no image for riscv64\nhint: it has small_"):
        other.signed(where(site), RING)


def test_several_images_are_asked_about() -> None:
    listed = {"a_1_x86-64.tar.zst": "", "b_1_x86-64.tar.zst": "", "a_2_arm64.tar.zst": ""}
    with pytest.raises(RemoteError, match="several images: a, b"):
        remote.newest(listed, "x86_64", "https://x/")
    assert remote.newest(listed, "aarch64", "https://x/") == "a_2_arm64.tar.zst"


def test_a_cache_others_write_to_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    assert reason(site, tmp_path).endswith("others may write there")


def test_links_in_the_cache_are_not_followed(site: Site, releases: Path, tmp_path: Path) -> None:
    content = (releases / "2" / ZST).read_bytes()
    pin = hashlib.sha256(content).hexdigest()
    (tmp_path / "cache").mkdir(mode=0o700)
    precious = tmp_path / "precious"
    precious.write_bytes(content)
    (tmp_path / "cache" / pin).symlink_to(precious)
    pulled = client(site, tmp_path).signed(where(site), RING)
    assert not pulled.path.is_symlink()
    assert precious.read_bytes() == content


def test_the_cache_keeps_what_was_used_last(site: Site, tmp_path: Path) -> None:
    kept = client(site, tmp_path)
    cache.own(kept.cache)
    for number in range(9):
        path = kept.cache / f"{number:064x}"
        path.write_bytes(b"old")
        os.utime(path, (number, number))
    pulled = kept.signed(where(site), RING)
    left = sorted(path.name for path in kept.cache.iterdir())
    assert left == sorted([pulled.path.name, *(f"{number:064x}" for number in (5, 6, 7, 8))])


def test_two_runs_fetch_one_archive_once_and_others_do_not_wait(
    site: Site, releases: Path, tmp_path: Path
) -> None:
    content, other = (
        (releases / "2" / name).read_bytes() for name in (ZST, f"{stem('1')}.tar.zst")
    )
    pin = hashlib.sha256(content).hexdigest()
    asked, go = threading.Event(), threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        go.wait(20)
        webserver.whole(content)(handler)  # type: ignore[arg-type] # a test server's own

    site.answers[f"/r/{ZST}"] = [slow]
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(client(site, tmp_path).pinned, where(site, ZST, pin)) for _ in range(2)]
        try:
            assert asked.wait(20)
            fast = client(site, tmp_path).signed(where(site, f"{stem('1')}.tar.zst"), RING)
            assert fast.path.read_bytes() == other
        finally:
            go.set()
        assert {one.result().path.read_bytes() for one in both} == {content}
    assert [path for path, _ in site.requests].count(f"/r/{ZST}") == 1


# ----- URLs


def test_urls_mean_a_file_or_a_directory() -> None:
    assert place("https://x.org/a/b") == Place(base="https://x.org/a/b/", file="", pin="")
    assert place("https://x.org") == Place(base="https://x.org/", file="", pin="")
    one = f"https://x.org/a/n_1_arm64.tar.xz#sha256={'a' * 64}"
    assert place(one) == Place(base="https://x.org/a/", file="n_1_arm64.tar.xz", pin="a" * 64)
    assert place("http://127.0.0.1:8000/").base == "http://127.0.0.1:8000/"
    assert place("http://[::1]/").base == "http://[::1]/"
    assert place("oci://x.org/a/b") == Place(base="oci://x.org/a/b", file=":latest")
    by_digest = f"oci://x.org/a:t@sha256:{'b' * 64}#sha256={'a' * 64}"
    assert place(by_digest) == Place(base="oci://x.org/a", file=f"@sha256:{'b' * 64}", pin="a" * 64)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://h.org/r/", "https://H.org:443/r"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]/"),
        ("https://h.org:8443/", "https://h.org:08443/"),
        ("oci://H.org:443/a:1", "oci://h.org/a:2"),
        ("oci://localhost:80/a", "oci://LOCALHOST/a"),
    ],
)
def test_two_ways_to_write_a_source_are_one(one: str, other: str) -> None:
    assert place(one).base == place(other).base
    assert place("https://h.org:80/").base == "https://h.org:80/"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://x.org/", "only https: is used"),
        ("http://127.0.0.1.x.org/", "only https: is used"),
        ("https:///a", "no host"),
        ("https://u:p@x.org/", "a password in a URL"),
        ("https://x.org/a.tar#sha256=1", "64 hex digits"),
        ("https://x.org/a.tar#md5=1", "64 hex digits"),
        (f"https://x.org/a/#sha256={'a' * 64}", "this is a directory"),
        ("https://x.org/?a=b", "a query"),
        ("https://x.org:99999/", "no URL"),
        ("https://x.org/%2e%2e%2fa.tar", "no name of an archive"),
        ("oci://x.org", "no host with a name behind it"),
        ("oci://x.org/a@sha256:1", "a digest is sha256:"),
        ("oci://x.org/a#sha256=1", "64 hex digits"),
    ],
)
def test_urls_that_cannot_be_used_are_said(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        place(url)
