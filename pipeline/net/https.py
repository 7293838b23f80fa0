"""Reads from web servers: bounded in size, time and tries, going on where it broke off."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from pipeline.errors import shown
from pipeline.net.transport import (
    PASSING,
    AgainError,
    HttpError,
    RangeError,
    Transport,
    chunks,
    opened,
    persist,
    redirected,
    requested,
    retry_after,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from pipeline.net.bounded import Session
    from pipeline.progress import Step


_REDIRECTS = 5


# Asks a server for one file: told what to say besides, and when the time is over, it gives the
# final answer, 200 or 206, whose body was not read yet.
Opener: TypeAlias = "Callable[[dict[str, str], float], AbstractContextManager[requests.Response]]"


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

    def open_it(headers: dict[str, str], end: float) -> AbstractContextManager[requests.Response]:
        return _open(session, url, headers, transport, end)

    with opened() as session:
        receive(open_it, sink, expected, transport=transport, step=step, begun=begun)


def receive(
    open_it: Opener,
    sink: BinaryIO,
    expected: Expected,
    *,
    transport: Transport,
    step: Step,
    begun: int = 0,
) -> None:
    """As `download`, of what *open_it* asks for."""
    partial = _Partial(sink=sink, expected=expected, done=begun, begun=begun > 0)
    sink.seek(begun)

    def once(end: float) -> None:
        try:
            _receive(open_it, partial, step, end)
        except RangeError:
            partial.restart(step)
            raise

    persist(once, transport)


def read(url: str, *, limit: int, transport: Transport) -> bytes:
    """The body of *url*, at most *limit* bytes long. Raises HttpError."""

    def once(end: float) -> bytes:
        body = io.BytesIO()
        with _open(session, url, {}, transport, end) as response:
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


def _receive(open_it: Opener, partial: _Partial, step: Step, end: float) -> None:
    """One try: asks for the rest if that is safe, else for everything."""
    headers = {}
    expected = partial.expected
    if partial.begun:
        headers = {"Range": f"bytes={partial.done}-"}
    elif partial.done and partial.validator:
        headers = {"Range": f"bytes={partial.done}-", "If-Range": partial.validator}
    elif partial.done:
        partial.restart(step)
    with open_it(headers, end) as response:
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
def _open(
    session: Session, url: str, headers: dict[str, str], transport: Transport, end: float
) -> Iterator[requests.Response]:
    """The final answer of *url*, 200 or 206; follows redirects, to https only."""
    for _ in range(_REDIRECTS + 1):
        with requested(session, "GET", url, transport, end, headers=headers) as response:
            target = response.headers.get("Location")
            if response.status_code not in (301, 302, 303, 307, 308) or target is None:
                _check_status(response)
                yield response
                return
        url = redirected(url, target)
    raise HttpError(f"redirects more than {_REDIRECTS} times")


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    told = f"answers {status} {shown(response.reason or '', most=80)}".strip()
    if status >= 500 or status in PASSING:
        raise AgainError(told, wait=retry_after(response.headers.get("Retry-After")))
    if status == 416 and "Range" in response.request.headers:
        raise RangeError(told)
    raise HttpError(told)
