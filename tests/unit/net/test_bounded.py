"""Whatever a server goes on sending, there is an end to it: each is asked of a real one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import NiftyError
from pipeline.net import https
from pipeline.net.reference import Reference
from pipeline.net.session import Session
from pipeline.net.transport import AgainError, HttpError, Transport, chunks, opened, requested
from tests.support import webserver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.webserver import Answer, Site

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "continue": webserver.repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "continue, now and then": webserver.repeating(
        b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.05
    ),
    "a header, byte by byte": webserver.repeating(OK + b"X: ", b"x", pause=0.05),
    "trailers": webserver.repeating(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: x\r\n"),
    "a chunk's length, byte by byte": webserver.repeating(CHUNKED, b"0", pause=0.05),
    "a body, byte by byte": webserver.repeating(OK + b"\r\n", b"x", pause=0.05),
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with webserver.serving(tmp_path) as running:
        yield running


@pytest.fixture
def transport(site: Site) -> Transport:
    return Transport(
        deadline=0.5, header_timeout=0.3, retries=1, backoff=lambda _: 0,
        authorities=site.authorities,
    )  # fmt: skip


@pytest.mark.parametrize("answer", ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_is_left(site: Site, transport: Transport, answer: Answer) -> None:
    site.answers["/x"] = [answer]
    with pytest.raises(HttpError, match=r"too long|more than 9 bytes|the connection"):
        https.read(site.url("/x"), limit=9, transport=transport)


def test_so_it_is_of_a_registry(
    site: Site, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reference, "is_plain", False)
    # slowly: newer Pythons count them, and stop at a hundred
    site.answers["/v2/a/tags/list"] = [ENDLESS["continue, now and then"]]
    reference = Reference(host=f"127.0.0.1:{site.port}", name="a")
    with (
        Session(reference, transport=transport) as session,
        pytest.raises(NiftyError, match="takes too long"),
    ):
        session.ask("GET", "tags/list", good=(200,))


def test_the_time_for_headers_is_not_that_of_the_body(site: Site, transport: Transport) -> None:
    site.answers["/x"] = [webserver.whole(b"12345")]
    later = time.monotonic() + 3600
    patient = replace(transport, header_timeout=60)
    with opened() as session:
        with requested(session, "GET", site.url("/x"), patient, later) as response:
            assert session.clock.end == later
            assert b"".join(chunks(response, later)) == b"12345"
        session.clock.end = 0
        with pytest.raises(AgainError, match="sends nothing for too long"):
            requested(session, "GET", site.url("/x"), patient, 0)
