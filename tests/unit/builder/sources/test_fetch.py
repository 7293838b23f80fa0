"""Fetching from servers that fail in every way, into a store that takes the pinned file only."""

from __future__ import annotations

import hashlib
import socket
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, NoReturn

import pytest

from pipeline.builder.recipes.component import (
    Budgets,
    Component,
    DebianSource,
    Extract,
    Https,
    Program,
    Source,
)
from pipeline.builder.sources import debian, fetch
from pipeline.builder.sources.store import Store
from pipeline.net import https
from pipeline.net.https import Expected, download
from pipeline.net.transport import HttpError, Transport, exponential
from pipeline.run import ProgramError
from tests.support.webserver import (
    Site,
    breaking,
    endless,
    garbage,
    raw,
    redirect,
    rest,
    serving,
    stalling,
    status,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = bytes(range(256)) * 400
SOURCE = Source(
    file="thing.tar",
    size=len(BODY),
    sha256=hashlib.sha256(BODY).hexdigest(),
    unsigned="made up by a test",
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving(tmp_path) as site:
        yield site


@pytest.fixture
def waits() -> list[float]:
    """The waits asked for, none of which takes place."""
    return []


@pytest.fixture
def transport(site: Site, waits: list[float]) -> Transport:
    return Transport(read_timeout=0.3, retries=3, sleep=waits.append, authorities=site.authorities)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=tmp_path / "store")


def component(*urls: str, source: Source = SOURCE) -> Component:
    return Component(
        name="thing",
        version="1",
        licence="MIT",
        homepage="https://example.org/",
        released=date(2026, 1, 1),
        source=source,
        location=tuple(Https(kind="https", url=url) for url in urls),
        build=Extract(system="prebuilt", architecture="x86_64"),
        program=Program(file="thing", applets=("thing",)),
        budget=Budgets(text=1, file=1),
    )


class Getter:
    """Fetches from *site*, with everything else as the fixtures say."""

    def __init__(self, site: Site, store: Store, transport: Transport, folder: Path) -> None:
        self.site, self.store, self.transport, self.folder = site, store, transport, folder

    def __call__(self, *paths: str, offline: bool = False) -> Path:
        return fetch.fetch(
            component(*(self.site.url(path) for path in paths)),
            self.folder,
            self.store,
            offline=offline,
            work=self.folder / "apt",
            transport=self.transport,
        )

    def reason(self, *paths: str) -> str:
        """Why it fails: the reason of the only location."""
        with pytest.raises(fetch.FetchError) as caught:
            self(*paths)
        (problem,) = caught.value.problems
        return problem.removeprefix(f"{self.site.url(paths[0])}: ")


@pytest.fixture
def get(site: Site, store: Store, transport: Transport, tmp_path: Path) -> Getter:
    return Getter(site, store, transport, tmp_path)


def test_a_file_that_is_served_right_is_stored(site: Site, get: Getter) -> None:
    site.answers["/f"] = [whole(BODY)]
    assert get("/f").read_bytes() == BODY


def test_a_stored_file_is_not_asked_for_again(site: Site, get: Getter) -> None:
    site.answers["/f"] = [whole(BODY)]
    get("/f")
    get("/f")
    assert len(site.requests) == 1


def test_the_locations_are_tried_in_their_order(site: Site, get: Getter) -> None:
    site.answers["/third"] = [whole(BODY)]
    get("/first", "/second", "/third", "/fourth")
    assert [path for path, _ in site.requests] == ["/first", "/second", "/third"]


def test_when_all_fail_each_location_has_its_reason(site: Site, get: Getter) -> None:
    site.answers["/gone"] = [status(410)]
    site.answers["/short"] = [whole(b"x" * 10)]
    with pytest.raises(fetch.FetchError) as caught:
        get("/none", "/gone", "/short")
    assert caught.value.problems == (
        f"{site.url('/none')}: answers 404 Not Found",
        f"{site.url('/gone')}: answers 410 Gone",
        f"{site.url('/short')}: announces 10 bytes, the recipe pins {len(BODY)}",
    )
    assert caught.value.hint


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_refusal_is_not_tried_again(site: Site, get: Getter, code: int) -> None:
    site.answers["/f"] = [status(code)]
    get.reason("/f")
    assert len(site.requests) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503])
def test_a_passing_failure_is_tried_again(site: Site, get: Getter, code: int) -> None:
    site.answers["/f"] = [status(code), status(code), whole(BODY)]
    assert get("/f").read_bytes() == BODY


def test_the_tries_are_bounded_and_counted(site: Site, get: Getter) -> None:
    site.answers["/f"] = [status(503)]
    assert get.reason("/f") == "answers 503 Service Unavailable (4 tries)"
    assert len(site.requests) == 4


def test_the_waits_double_with_jitter() -> None:
    for number in range(6):
        assert 0.25 * 2**number <= exponential(number) <= 0.5 * 2**number


def test_retry_after_in_seconds_is_honoured(site: Site, get: Getter, waits: list[float]) -> None:
    site.answers["/f"] = [status(503, Retry_After="7"), whole(BODY)]
    get("/f")
    assert waits == [7.0]


def test_retry_after_as_a_date_is_honoured(site: Site, get: Getter, waits: list[float]) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    site.answers["/f"] = [status(429, Retry_After=when), whole(BODY)]
    get("/f")
    assert 0 < waits[0] <= 40


def test_retry_after_is_bounded(site: Site, get: Getter, waits: list[float]) -> None:
    site.answers["/f"] = [status(503, Retry_After="86400")]
    assert get.reason("/f") == "answers 503 Service Unavailable; asks to come back in 86400 s"
    assert waits == []


def test_a_server_that_stalls_is_left(site: Site, get: Getter) -> None:
    site.answers["/f"] = [stalling(BODY, after=100)]
    assert get.reason("/f").startswith("sends nothing for too long")


def test_a_server_that_stalls_once_is_tried_again(site: Site, get: Getter) -> None:
    site.answers["/f"] = [stalling(BODY, after=100), whole(BODY)]
    assert get("/f").read_bytes() == BODY


def test_a_broken_transfer_goes_on_where_it_broke(site: Site, get: Getter) -> None:
    site.answers["/f"] = [breaking(BODY, after=70_000, etag='"a"'), rest(BODY)]
    assert get("/f").read_bytes() == BODY
    asked = site.requests[1][1]
    assert (asked["Range"], asked["If-Range"]) == ("bytes=70000-", '"a"')


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_validator_it_starts_over(site: Site, get: Getter, etag: str) -> None:
    site.answers["/f"] = [breaking(BODY, after=70_000, etag=etag), whole(BODY)]
    assert get("/f").read_bytes() == BODY
    assert "Range" not in site.requests[1][1]


def test_a_server_that_ignores_the_range_starts_over(site: Site, get: Getter) -> None:
    site.answers["/f"] = [breaking(BODY, after=70_000, etag='"a"'), whole(BODY)]
    assert get("/f").read_bytes() == BODY


@pytest.mark.parametrize(
    "told",
    [
        f"bytes 0-{len(BODY) - 1}/{len(BODY)}",
        f"bytes 70000-{len(BODY) - 1}/{len(BODY) + 1}",
        f"bytes 70000-{len(BODY)}/*",
        "nonsense",
    ],
)
def test_the_wrong_range_starts_over(site: Site, get: Getter, told: str) -> None:
    first = breaking(BODY, after=70_000, etag='"a"')
    site.answers["/f"] = [first, rest(BODY, content_range=told), whole(BODY)]
    assert get("/f").read_bytes() == BODY
    assert "Range" not in site.requests[2][1]


def test_a_range_that_cannot_be_satisfied_is_tried_again(site: Site, get: Getter) -> None:
    first = breaking(BODY, after=70_000, etag='"a"')
    site.answers["/f"] = [first, status(416), whole(BODY)]
    assert get("/f").read_bytes() == BODY
    assert ["Range" in asked for _path, asked in site.requests] == [False, True, False]


def test_a_whole_that_cannot_be_satisfied_is_not_asked_for_again(site: Site, get: Getter) -> None:
    site.answers["/f"] = [status(416)]
    assert get.reason("/f") == f"answers 416 {HTTPStatus(416).phrase}"
    assert len(site.requests) == 1


def test_a_part_that_nobody_asked_for_is_refused(site: Site, get: Getter) -> None:
    site.answers["/f"] = [status(206, Content_Range=f"bytes 0-9/{len(BODY)}")]
    assert "another part" in get.reason("/f")


@pytest.mark.parametrize("length", [len(BODY) - 1, len(BODY) + 1, 1 << 40])
def test_another_length_is_refused_before_the_body(site: Site, get: Getter, length: int) -> None:
    site.answers["/f"] = [whole(b"", length=length)]
    assert get.reason("/f") == f"announces {length} bytes, the recipe pins {len(BODY)}"


@pytest.mark.parametrize("chunked", [True, False])
def test_an_endless_body_is_cut(
    site: Site, transport: Transport, tmp_path: Path, chunked: Literal[True, False]
) -> None:
    site.answers["/f"] = [endless(chunked=chunked)]
    sink = tmp_path / "sink"
    most = Expected(size=10_000, by="the recipe pins")
    with sink.open("w+b") as file, pytest.raises(HttpError) as caught:
        download(site.url("/f"), file, most, transport=transport, step=lambda _=1, /: None)
    assert caught.value.message == "sends more than the 10000 bytes that the recipe pins"
    assert sink.stat().st_size <= 10_000


def test_a_deadline_ends_what_trickles(site: Site, transport: Transport, tmp_path: Path) -> None:
    site.answers["/f"] = [whole(BODY)]
    over = Transport(deadline=-1, authorities=transport.authorities)
    size = Expected(size=len(BODY), by="the recipe pins")
    with (tmp_path / "sink").open("w+b") as file, pytest.raises(HttpError) as caught:
        download(site.url("/f"), file, size, transport=over, step=lambda _=1, /: None)
    assert caught.value.message == "takes too long"


def test_other_bytes_of_the_right_length_do_not_enter(
    site: Site, get: Getter, store: Store
) -> None:
    wrong = bytes(len(BODY))
    site.answers["/f"] = [whole(wrong)]
    assert get.reason("/f") == (
        f"has the sha256 {hashlib.sha256(wrong).hexdigest()}, the recipe pins {SOURCE.sha256}"
    )
    assert list(store.root.iterdir()) == []


def test_no_http_at_all_is_a_reason(site: Site, get: Getter) -> None:
    site.answers["/f"] = [garbage]
    reason = get.reason("/f")
    assert reason.startswith("the connection fails: ")
    assert "\n" not in reason


def test_a_redirect_to_https_is_followed(site: Site, get: Getter) -> None:
    site.answers["/f"] = [redirect("/g")]
    site.answers["/g"] = [whole(BODY)]
    assert get("/f").read_bytes() == BODY


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
def test_a_redirect_to_another_scheme_is_not(site: Site, get: Getter, scheme: str) -> None:
    site.answers["/f"] = [redirect(f"{scheme}://127.0.0.1:{site.port}/g")]
    assert get.reason("/f") == f"redirects to {scheme}:, only https: is followed"


LOCATIONS = (
    "https://[::1",
    "//[",
    "https://",
    "https:///f",
    "https://127.0.0.1:99999/",
    "https://127.0.0.1:port/",
    "https://127.0.0.1:-1/",
    f"https://{'a' * 70}.example/",
    f"https://{'a.' * 200}/",
    "https://a..b/",
    "https://\xff\xfe/",
    "https://*/",
    "https://a b/",
    "https://%00/",
    "https://u:p@/",
    "\x1b]0;title\x07",
    "javascript:alert(1)",
    "x" * 300 + "://y",
    "https://127.0.0.1:1/" + "x" * 60_000,
)


@pytest.mark.parametrize("location", LOCATIONS, ids=range(len(LOCATIONS)))
def test_a_redirect_to_what_is_no_url_is_one_line(
    site: Site, get: Getter, location: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers["/bad"] = [
        raw(b"HTTP/1.1 302 F\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n")
    ]
    site.answers["/good"] = [whole(BODY)]
    assert get("/bad", "/good").read_bytes() == BODY
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"thing.tar: not from {site.url('/bad')}: ")
    assert told[1:] == [f"thing.tar: from {site.url('/good')}"]
    assert told[0].isprintable()
    assert len(told[0]) < 400


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "nothing": b"",
    "status": b"HTTP/1.1 abc\r\n\r\n",
    "status of many digits": b"HTTP/1.1 " + b"9" * 5000 + b"\r\n\r\n",
    "status that is negative": b"HTTP/1.1 -1 \r\n\r\n",
    "reason": b"HTTP/1.1 404 \x1b[2J" + b"x" * 9000 + b"\r\n\r\n",
    "version": b"HTTP/9.9 200 OK\r\n\r\n",
    "headers without end": OK + b"a: b\r\n" * 5000,
    "a huge header": OK + b"a: " + b"x" * 100_000 + b"\r\n\r\n",
    "no headers at all": OK + b"\x00\x01 \xff\r\n\xff\r\n\r\n",
    "cut in the headers": OK + b"Content-Len",
    "length": OK + b"Content-Length: many\r\n\r\nxx",
    "negative length": OK + b"Content-Length: -5\r\n\r\nxx",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
    "negative chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello",
    "huge chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\nhello",
    "chunk that is cut": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "other encoding": OK + b"Transfer-Encoding: rot13\r\n\r\nuryyb",
    "packed": OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "wrongly packed": OK + b"Content-Encoding: gzip\r\n\r\nno gzip",
    "redirect without location": b"HTTP/1.1 302 Found\r\n\r\n",
    "empty location": b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n",
    "retry": b"HTTP/1.1 503 B\r\nRetry-After: " + b"9" * 5000 + b"\r\n\r\n",
    "retry at": b"HTTP/1.1 503 B\r\nRetry-After: Mon, 01 Jan 0001 00:00:00 +2359\r\n\r\n",
    "retry never": b"HTTP/1.1 503 B\r\nRetry-After: Mon, 99 Jan 99999 99:99:99 GMT\r\n\r\n",
    "range": b"HTTP/1.1 206 P\r\nContent-Range: bytes 9-1/\xff\r\n\r\nx",
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_is_malformed_is_one_line(
    site: Site, get: Getter, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers["/bad"] = [raw(ANSWERS[case])]
    site.answers["/good"] = [whole(BODY)]
    assert get("/bad", "/good").read_bytes() == BODY
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"thing.tar: not from {site.url('/bad')}: ")
    assert told[1:] == [f"thing.tar: from {site.url('/good')}"]
    assert len(told[0]) < 400


def test_a_page_in_an_encoding_nobody_asked_for(site: Site, transport: Transport) -> None:
    site.answers["/f"] = [raw(OK + b"Content-Encoding: gzip\r\n\r\nx")]
    with pytest.raises(HttpError, match="answers encoded as gzip, unasked"):
        https.read(site.url("/f"), limit=10, transport=transport)


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        ("E: Release file for http://d/InRelease is expired (invalid since 2d).", "no longer upd"),
        ("E: Release file for http://d/InRelease is not valid yet (for 3h).", "clock is behind"),
        ("W: GPG error: NO_PUBKEY 1\nE: The repository is not signed.", "debian-archive-keyring"),
        ("E: Failed to fetch x  Hash Sum mismatch", "try again"),
        ("apt-get: no such program (No such file or directory)", "Debian and its like"),
        ("E: Failed to fetch x  Temporary failure resolving 'd'", "network reachable"),
    ],
)
def test_what_apt_says_decides_what_helps(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, helps: str
) -> None:
    def fail(*_words: object, **_how: object) -> NoReturn:
        raise ProgramError(said)

    monkeypatch.setattr(debian, "run", fail)
    place = DebianSource(kind="debian-source", suite="sid", package="thing", version="1")
    thing = component("https://127.0.0.1/").model_copy(update={"location": (place,)})
    with pytest.raises(fetch.FetchError) as caught:
        fetch.fetch(thing, tmp_path, store, offline=False, work=tmp_path / "apt")
    assert helps in (caught.value.hint or "")
    assert ("network" in (caught.value.hint or "")) == ("network" in helps)
    assert "put there by hand" in (caught.value.hint or "")


def test_redirects_that_never_end_are_left(site: Site, get: Getter) -> None:
    site.answers["/f"] = [redirect("/f")]
    assert get.reason("/f") == "redirects more than 5 times"


def test_a_certificate_nobody_vouches_for_is_refused_at_once(
    site: Site, store: Store, waits: list[float], tmp_path: Path
) -> None:
    site.answers["/f"] = [whole(BODY)]
    strangers = Transport(sleep=waits.append)
    reason = Getter(site, store, strangers, tmp_path).reason("/f")
    assert reason.startswith("TLS: ")
    assert waits == []


def test_a_port_where_nobody_listens_is_tried_twice(get: Getter, waits: list[float]) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{reserved.getsockname()[1]}/f"
        with pytest.raises(fetch.FetchError, match=r"refused.*2 tries"):
            fetch.fetch(
                component(url),
                get.folder,
                get.store,
                offline=False,
                work=get.folder,
                transport=get.transport,
            )
    assert len(waits) == 1


def test_offline_uses_the_store(site: Site, get: Getter) -> None:
    site.answers["/f"] = [whole(BODY)]
    get("/f")
    assert get("/f", offline=True).read_bytes() == BODY


def test_offline_asks_nobody(site: Site, get: Getter) -> None:
    site.answers["/f"] = [whole(BODY)]
    with pytest.raises(fetch.FetchError, match="offline=yes"):
        get("/f", offline=True)
    assert site.requests == []


def test_offline_names_all_missing_files_at_once(store: Store) -> None:
    other = SOURCE.model_copy(update={"file": "other.tar", "sha256": "0" * 64})
    parts = [component("https://a/b"), component("https://a/c", source=other)]
    with pytest.raises(fetch.FetchError) as caught:
        fetch.require(parts, store)
    assert [line.split()[0] for line in caught.value.problems] == ["thing.tar", "other.tar"]


def test_offline_says_that_a_stored_file_has_gone_bad(
    site: Site, get: Getter, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers["/f"] = [whole(BODY)]
    get("/f").write_bytes(b"rotten")
    with pytest.raises(fetch.FetchError, match=r"thing\.tar"):
        get("/f", offline=True)
    assert "has gone bad" in capsys.readouterr().err


def test_a_stored_file_that_has_gone_bad_is_fetched_again(site: Site, get: Getter) -> None:
    site.answers["/f"] = [whole(BODY)]
    get("/f").write_bytes(bytes(len(BODY)))
    assert get("/f").read_bytes() == BODY
