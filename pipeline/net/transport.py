"""How a web server is asked: one session, one request, and what its failures mean.

Proxies, a CA bundle and .netrc are taken from the environment and the home folder as requests does
(`https_proxy`, `no_proxy`, `REQUESTS_CA_BUNDLE`); no proxy is between this machine and itself.
"""

from __future__ import annotations

import math
import random
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from pipeline.errors import NiftyError, shown
from pipeline.net.reference import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import requests

    from pipeline.net.bounded import Session

_CHUNK = 1 << 16


_T = TypeVar("_T")


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


class RangeError(AgainError):
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
    server asks for by Retry-After, `header_timeout` all that comes before a body, whatever it is. A
    server that cannot be reached at all is tried twice only. `authorities` is a CA bundle to trust
    instead of the usual ones.
    """

    connect_timeout: float = 10
    read_timeout: float = 30
    header_timeout: float = 60
    deadline: float = 1800
    retries: int = 4
    longest_wait: float = 60
    backoff: Callable[[int], float] = exponential
    sleep: Callable[[float], None] = time.sleep
    authorities: Path | None = None


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
            if time.monotonic() > end:
                raise HttpError("takes too long") from error
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


@contextmanager
def opened() -> Iterator[Session]:
    """A session of requests with what every request of ours says."""
    from pipeline.net.bounded import Session  # noqa: PLC0415 (requests is slow to import)

    with Session() as session:
        session.headers["User-Agent"] = "nifty"
        # what is pinned are the bytes that lie on the server, not some encoding of them
        session.headers["Accept-Encoding"] = "identity"
        yield session


def requested(
    session: Session, method: str, url: str, transport: Transport, end: float, **more: Any
) -> requests.Response:
    """The answer to one request: no redirect is followed, and nothing of the body is read yet.

    *end* is when its time is over (time.monotonic), also that of its body; *more* is for
    `requests`. Raises HttpError, or AgainError where that may pass.
    """
    # who sends something first cannot be answered before that
    longest = math.inf if more.get("data") else transport.header_timeout
    session.clock.end = min(end, time.monotonic() + longest)
    try:
        host = urlsplit(url).hostname or ""
        if is_loopback(host):
            more["proxies"] = {"no_proxy": host}
        return session.request(
            method,
            url,
            stream=True,
            allow_redirects=False,
            timeout=(transport.connect_timeout, transport.read_timeout),
            verify=str(transport.authorities) if transport.authorities else True,
            **more,
        )
    except failures() as error:
        raise failure(error) from error
    finally:
        session.clock.end = end


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
