"""Reads from web servers that may fail in every way: bounded in size, time and number of tries.

Proxies, a CA bundle and .netrc are taken from the environment and the home folder as requests does
(`https_proxy`, `no_proxy`, `REQUESTS_CA_BUNDLE`).
"""

from __future__ import annotations

import io
import random
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

from pipeline.errors import NiftyError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import requests

    from pipeline.progress import Step

_T = TypeVar("_T")

_CHUNK = 1 << 16
_REDIRECTS = 5
# RFC 9110: the server's or the moment's fault; every other 4xx stays as it is
PASSING = (408, 425, 429)


class HttpError(NiftyError):
    """Why a web server did not give the file; one line without the URL."""


class AgainError(Exception):
    """A failure that may pass; `wait` is how many seconds the server asked for."""

    def __init__(self, reason: str, *, wait: float | None = None, reached: bool = True) -> None:
        super().__init__(reason)
        self.wait = wait
        self.reached = reached


class _RangeError(AgainError):
    """The rest that was asked for cannot be had; the whole may be (RFC 9110 section 15.5.17)."""


def exponential(number: int) -> float:
    """Seconds to wait after try *number* (from 0): doubling from 0.5, with up to half taken off.

    The jitter keeps many clients from coming back at the same moment.
    """
    return 0.5 * 2.0**number * random.uniform(0.5, 1)  # noqa: S311 (nothing secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How patient a transfer is; times in seconds.

    `deadline` bounds one transfer with all its tries and waits, `longest_wait` one wait that a
    server asks for by Retry-After. A server that cannot be reached at all is tried twice only.
    `authorities` is a CA bundle to trust instead of the usual ones.
    """

    connect_timeout: float = 10
    read_timeout: float = 30
    deadline: float = 1800
    retries: int = 4
    longest_wait: float = 60
    backoff: Callable[[int], float] = exponential
    sleep: Callable[[float], None] = time.sleep
    authorities: Path | None = None


@dataclass(slots=True, kw_only=True)
class _Partial:
    """What has arrived, and the validator that tells whether a later part is of the same file."""

    sink: BinaryIO
    expected: Expected
    done: int = 0
    validator: str | None = None
    begun: bool = False  # an earlier run left what is done, and no validator

    def restart(self, step: Step) -> None:
        step(-self.done)
        self.sink.seek(0)
        self.sink.truncate()
        self.done = 0
        self.validator = None
        self.begun = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How many bytes a file has, or, with *is_most*, has at most; *by*: who says so."""

    size: int
    by: str
    is_most: bool = False


def download(
    url: str,
    sink: BinaryIO,
    expected: Expected,
    *,
    transport: Transport,
    step: Step,
    begun: int = 0,
) -> None:
    """Writes the bytes that are *expected* from *url* to *sink*, an empty file, never more.

    A broken transfer goes on where it broke if the server says it still has the same file, else
    from the start. *begun* is how many bytes an earlier run left in *sink*: whether the rest fits
    them, the caller finds out. *step* is told the number of bytes, negative when they are thrown
    away. Raises HttpError.
    """
    partial = _Partial(sink=sink, expected=expected, done=begun, begun=begun > 0)
    sink.seek(begun)

    def once(end: float) -> None:
        try:
            _receive(session, url, partial, transport, step, end)
        except _RangeError:
            partial.restart(step)
            raise

    with opened() as session:
        persist(once, transport)


def read(url: str, *, limit: int, transport: Transport) -> bytes:
    """The body of *url*, at most *limit* bytes long. Raises HttpError."""

    def once(end: float) -> bytes:
        body = io.BytesIO()
        with _open(session, url, {}, transport) as response:
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding.strip().lower() != "identity":
                raise HttpError(f"answers encoded as {shown(encoding, most=20)}, unasked")
            for chunk in chunks(response, end):
                body.write(chunk)
                if body.tell() > limit:
                    raise HttpError(f"sends more than {limit} bytes")
        return body.getvalue()

    with opened() as session:
        return persist(once, transport)


def persist(attempt: Callable[[float], _T], transport: Transport) -> _T:
    """What *attempt*, told when its time is over (time.monotonic), returns in the end.

    It is tried again after an AgainError, as *transport* says. Raises HttpError.
    """
    end = time.monotonic() + transport.deadline
    number = 0
    while True:
        try:
            return attempt(end)
        except AgainError as error:
            tries = transport.retries if error.reached else min(transport.retries, 1)
            if number >= tries:
                times = f" ({number + 1} tries)" if number else ""
                raise HttpError(f"{error}{times}") from error
            wait = transport.backoff(number) if error.wait is None else error.wait
            if error.wait is not None and wait > transport.longest_wait:
                raise HttpError(f"{error}; asks to come back in {wait:.0f} s") from error
            if time.monotonic() + wait > end:
                raise HttpError(f"{error}; no time left for another try") from error
        transport.sleep(wait)
        number += 1


def _receive(
    session: requests.Session,
    url: str,
    partial: _Partial,
    transport: Transport,
    step: Step,
    end: float,
) -> None:
    """One try: asks for the rest if that is safe, else for everything."""
    headers = {}
    expected = partial.expected
    if partial.begun:
        headers = {"Range": f"bytes={partial.done}-"}
    elif partial.done and partial.validator:
        headers = {"Range": f"bytes={partial.done}-", "If-Range": partial.validator}
    elif partial.done:
        partial.restart(step)
    with _open(session, url, headers, transport) as response:
        if response.status_code == 206 and not _continues(response, partial.done, expected):
            partial.restart(step)
            raise AgainError("answers with another part of the file than was asked for")
        if response.status_code != 206:
            partial.restart(step)
            partial.validator = _validator(response)
        announced = _check_length(response, partial.done, expected)
        for chunk in chunks(response, end):
            if partial.done + len(chunk) > expected.size:
                raise HttpError(f"sends more than the {expected.size} bytes that {expected.by}")
            partial.sink.write(chunk)
            partial.done += len(chunk)
            step(len(chunk))
        if announced is not None and partial.done < announced:
            raise AgainError(f"ends after {partial.done} of {announced} bytes")


def _continues(response: requests.Response, done: int, expected: Expected) -> bool:
    """Whether a 206 is the rest that was asked for (RFC 9110 section 14.4)."""
    found = re.fullmatch(
        r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)",
        response.headers.get("Content-Range", "").strip(),
    )
    if not done or not found:
        return False
    first, last, total = found.groups()
    size = int(total) if expected.is_most and total != "*" else expected.size
    is_rest = int(first) == done and int(last) == size - 1
    return is_rest and size <= expected.size and total in ("*", str(size))


def _validator(response: requests.Response) -> str | None:
    """What If-Range may carry: a strong ETag, else the date (RFC 9110 section 13.1.5)."""
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    return response.headers.get("Last-Modified")


def _check_length(response: requests.Response, done: int, expected: Expected) -> int | None:
    """How many bytes the whole file has; None if only its end tells."""
    told = (response.headers.get("Content-Length") or "").strip()
    if expected.is_most:
        if not re.fullmatch(r"[0-9]{1,15}", told):
            return None
        if int(told) + done > expected.size:
            raise HttpError(f"announces {told} bytes, at most {expected.size} are taken")
        return int(told) + done
    if told and told != str(expected.size - done):
        raise HttpError(
            f"announces {shown(told, most=20)} bytes, {expected.by} {expected.size - done}"
        )
    return expected.size


@contextmanager
def opened() -> Iterator[requests.Session]:
    """A session of requests with what every request of ours says."""
    import requests  # noqa: PLC0415 (slow to import, and most builds fetch nothing)

    with requests.Session() as session:
        session.headers["User-Agent"] = "nifty"
        # what is pinned are the bytes that lie on the server, not some encoding of them
        session.headers["Accept-Encoding"] = "identity"
        yield session


@contextmanager
def _open(
    session: requests.Session, url: str, headers: dict[str, str], transport: Transport
) -> Iterator[requests.Response]:
    """The final answer of *url*, 200 or 206; follows redirects, to https only."""
    for _ in range(_REDIRECTS + 1):
        try:
            response = session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(transport.connect_timeout, transport.read_timeout),
                verify=str(transport.authorities) if transport.authorities else True,
            )
        except failures() as error:
            raise failure(error) from error
        with response:
            target = response.headers.get("Location")
            if response.status_code not in (301, 302, 303, 307, 308) or target is None:
                _check_status(response)
                yield response
                return
        url = redirected(url, target)
    raise HttpError(f"redirects more than {_REDIRECTS} times")


def redirected(url: str, target: str) -> str:
    """Where *url* leads to by `Location: target`, to https only. Raises HttpError."""
    try:
        joined = urljoin(url, target)
        parts = urlsplit(joined)
        scheme, host, _port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise HttpError(f"redirects to {shown(target, most=80)}: no URL: {error}") from error
    if scheme != "https":
        raise HttpError(f"redirects to {shown(scheme, most=20)}:, only https: is followed")
    if not host:
        raise HttpError(f"redirects to {shown(target, most=80)}: no URL: no host")
    return joined


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    told = f"answers {status} {shown(response.reason or '', most=80)}".strip()
    if status >= 500 or status in PASSING:
        raise AgainError(told, wait=retry_after(response.headers.get("Retry-After")))
    if status == 416 and "Range" in response.request.headers:
        raise _RangeError(told)
    raise HttpError(told)


def retry_after(text: str | None) -> float | None:
    """Seconds, or a date (RFC 9110 section 10.2.3); None when it is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def chunks(response: requests.Response, end: float) -> Iterator[bytes]:
    """The body as it comes: each read returns what is there, so that a trickle meets *end*."""
    while True:
        if time.monotonic() > end:
            raise HttpError("takes too long")
        try:
            chunk = response.raw.read1(_CHUNK, decode_content=False)
        except failures() as error:
            raise failure(error) from error
        if not chunk:
            return
        yield chunk


def failures() -> tuple[type[Exception], ...]:
    """What these libraries raise for whatever a server or a URL may be."""
    from http.client import HTTPException  # noqa: PLC0415 (as above)

    import requests  # noqa: PLC0415 (slow to import, and most builds fetch nothing)
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    # ValueError: what is no URL, number or host name; each library has places that let it through
    return (requests.RequestException, HTTPError, HTTPException, OSError, ValueError)


def failure(error: Exception) -> NiftyError | AgainError:
    """What a library's exception means: to try again, or (a certificate, a URL) not to."""
    import requests  # noqa: PLC0415 (slow to import, and most builds fetch nothing)
    from urllib3 import exceptions  # noqa: PLC0415

    match error:
        case requests.exceptions.SSLError():
            return HttpError(f"TLS: {_innermost(error)}")
        case requests.exceptions.ConnectTimeout():
            return AgainError("cannot be reached: no answer to the connection", reached=False)
        case requests.exceptions.ReadTimeout() | exceptions.ReadTimeoutError() | TimeoutError():
            return AgainError("sends nothing for too long")
        case requests.exceptions.ProxyError():
            return AgainError(f"the proxy fails: {_innermost(error)}", reached=False)
        case requests.exceptions.ConnectionError() | exceptions.HTTPError():
            reached = not isinstance(_bottom(error), exceptions.NewConnectionError)
            return AgainError(f"the connection fails: {_innermost(error)}", reached=reached)
        case requests.RequestException() | ValueError():
            return HttpError(_innermost(error))
        case _:
            return AgainError(f"the connection fails: {_innermost(error)}")


def _bottom(error: BaseException) -> BaseException:
    while True:
        inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _innermost(error: BaseException) -> str:
    """One line from the exception at the bottom: the outer ones print objects' addresses."""
    error = _bottom(error)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    # urllib3 writes "HTTPSConnection(host=…, port=…): Failed to resolve …"
    return shown(re.sub(r"^<?\w+\(.*?\)>?: ", "", " ".join(text.split())), most=200)
