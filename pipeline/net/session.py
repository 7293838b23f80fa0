"""Requests to one registry: who is let in, redirects, and bounds to all that it answers.

Names and passwords go to the registry and to the token server that it names (as docker's do), over
https; http is spoken with this machine alone.
"""

from __future__ import annotations

import io
import json
import re
import time
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

from pipeline.errors import NiftyError, shown
from pipeline.net import https
from pipeline.net.reference import is_loopback
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
    from collections.abc import Callable, Iterator, Mapping

    import requests

    from pipeline.net.https import Expected
    from pipeline.net.login import Login
    from pipeline.net.reference import Reference
    from pipeline.progress import Step

# Of an answer that explains an error, or holds a token.
_MOST_TOLD = 1 << 16
_HOPS = 5
_BLOCK = 1 << 16

_T = TypeVar("_T")


class RegistryError(NiftyError):
    """What a registry would not do, or did otherwise than it said."""


class DeniedError(HttpError):
    """The registry knows us, or not, and does not allow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came: *body* bounded, *url* where it came from after redirects."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class _Body(io.BytesIO):
    """What is sent, block by block until *end*: requests itself has no deadline."""

    def __init__(self, content: bytes, end: float) -> None:
        super().__init__(content)
        self._end = end

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._end:
            raise HttpError("takes too long")
        wanted = _BLOCK if size is None or size < 0 else min(size, _BLOCK)
        return super().read(wanted)


class Session:
    """Requests to the repository that *reference* names, for as long as the block runs.

    *login* is sent only when the registry asks for one. With *writes*, tokens are asked for that
    allow it.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        login: Login | None = None,
        transport: Transport | None = None,
        writes: bool = False,
    ) -> None:
        self._reference = reference
        self._login = login
        self._transport = transport or Transport()
        self._scope = f"repository:{reference.name}:{'pull,push' if writes else 'pull'}"
        self._authorization = ""
        self._opened = opened()

    def __enter__(self) -> Self:
        self._session = self._opened.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.__exit__(None, None, None)

    @contextmanager
    def saying(self, what: str) -> Iterator[None]:
        """Errors of the block say where, and *what* was being done: they are RegistryErrors."""
        try:
            yield
        except NiftyError as error:
            hint = error.hint
            if isinstance(error, DeniedError):
                host = self._reference.host
                hint = f"docker login {host}, or podman login {host}, as a user who may do this"
            raise RegistryError(
                f"{self._reference.host}/{self._reference.name}: {what}: {error.message}", hint=hint
            ) from error

    def persist(self, attempt: Callable[[float], _T]) -> _T:
        """What *attempt*, told when its time is over, returns: as often as the transport tries."""
        return persist(attempt, self._transport)

    def receive(
        self, target: str, sink: BinaryIO, expected: Expected, *, step: Step, begun: int
    ) -> None:
        """Writes what is at *target* to *sink*, as `https.download` does."""

        def open_it(
            headers: dict[str, str], end: float
        ) -> AbstractContextManager[requests.Response]:
            return self.streaming(target, end, headers)

        https.receive(open_it, sink, expected, transport=self._transport, step=step, begun=begun)

    def ask(self, method: str, target: str, **more: Any) -> Answer:
        """As `once`, as often as the transport tries."""
        return self.persist(lambda end: self.once(method, target, end, **more))

    def location(self, answer: Answer) -> str:
        """Where *answer* sends us on to. Raises HttpError for what is no such place."""
        target = answer.headers.get("Location")
        if not target:
            raise HttpError("does not say where to send it to (no Location)")
        return self._joined(answer.url, target)

    def _joined(self, url: str, target: str) -> str:
        """*target* as seen from *url*: https, or http between addresses of this machine."""
        if self._reference.is_plain:
            try:
                joined = urljoin(url, target)
                parts = urlsplit(joined)
                if parts.scheme == "http" and is_loopback(parts.hostname or ""):
                    return joined
            except ValueError:
                pass
        return redirected(url, target)

    def once(
        self,
        method: str,
        target: str,
        end: float,
        *,
        good: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limit: int = _MOST_TOLD,
    ) -> Answer:
        """What is answered to one request, once we are let in and redirects are followed.

        *target* is an address, or a path below the repository's; at most *limit* bytes of a *good*
        answer are taken. Raises HttpError for an answer that is not *good*, AgainError where that
        may pass.
        """
        with self._answered(method, target, end, headers or {}, body) as (response, url):
            if response.status_code in good:
                return _answer(response, end, limit, url)
            raise _failure(_answer(response, end, _MOST_TOLD, url))

    @contextmanager
    def streaming(
        self, target: str, end: float, headers: Mapping[str, str]
    ) -> Iterator[requests.Response]:
        """As `once` for GET, for an answer 200 or 206 whose body is not read yet.

        Raises RangeError where *headers* ask for a range that is not to be had.
        """
        with self._answered("GET", target, end, headers, b"") as (response, url):
            if response.status_code == 416 and "Range" in headers:
                raise RangeError("answers 416")
            if response.status_code not in (200, 206):
                raise _failure(_answer(response, end, _MOST_TOLD, url))
            yield response

    @contextmanager
    def _answered(
        self, method: str, target: str, end: float, headers: Mapping[str, str], body: bytes
    ) -> Iterator[tuple[requests.Response, str]]:
        """The last answer to one request, and from where, as `once` says of it."""
        url = urljoin(f"{self._reference.api}/", target)
        was_asked = False
        for hop in range(_HOPS + 1):
            with self._sent(method, url, end, headers, body) as response:
                is_moved = response.status_code in (301, 302, 303, 307, 308)
                is_last = hop == _HOPS
                if response.status_code == 401 and not (was_asked or is_last) and self._is_own(url):
                    self._let_in(_answer(response, end, _MOST_TOLD, url), end)
                    was_asked = True
                elif is_moved and method in ("GET", "HEAD") and not is_last:
                    url = self.location(_answer(response, end, _MOST_TOLD, url))
                else:
                    yield response, url
                    return

    def _sent(
        self, method: str, url: str, end: float, headers: Mapping[str, str], body: bytes
    ) -> requests.Response:
        own = self._is_own(url)

        def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
            # also without anything to say: else requests would send what .netrc has for the host
            if own and self._authorization:
                request.headers["Authorization"] = self._authorization
            return request

        return requested(
            self._session,
            method,
            url,
            self._transport,
            end,
            headers=dict(headers),
            data=_Body(body, end) if body else None,
            auth=sign,
        )

    def _is_own(self, url: str) -> bool:
        """Whether *url* is at the registry itself: nobody else gets what lets us in."""
        return urlsplit(url)[:2] == urlsplit(self._reference.api)[:2]

    def _let_in(self, answer: Answer, end: float) -> None:
        """Work out what the registry wants to see in Authorization (RFC 7235, docker's tokens)."""
        challenge = answer.headers.get("WWW-Authenticate", "")
        kind, _blank, rest = challenge.partition(" ")
        if kind.lower() == "basic" and self._login is not None and self._login.user:
            self._authorization = self._login.basic
        elif kind.lower() == "bearer":
            self._authorization = f"Bearer {self._token(answer, rest, end)}"

    def _token(self, answer: Answer, challenge: str, end: float) -> str:
        said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = self._joined(answer.url, said.get("realm", ""))
        wanted = {"scope": self._scope}
        if "service" in said:
            wanted["service"] = said["service"]
        login, form = self._login, b""
        headers = {}
        if login is not None and login.token:
            form = urlencode(
                {
                    **wanted,
                    "grant_type": "refresh_token",
                    "refresh_token": login.token,
                    "client_id": "nifty",
                }
            ).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            realm = with_query(realm, **wanted)
            if login is not None:
                headers["Authorization"] = login.basic
        self._authorization = ""
        with self._sent("POST" if form else "GET", realm, end, headers, form) as response:
            got = _answer(response, end, _MOST_TOLD, realm)
        if got.status >= 500 or got.status in PASSING:
            raise AgainError(f"its token server answers {got.status}")
        if got.status != 200:
            raise DeniedError(f"its token server answers {got.status}{_explained(got.body)}")
        table = object_of(got.body)
        token = table.get("token") or table.get("access_token")
        # it stands in a header: RFC 6750 section 2.1
        if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):
            raise HttpError("its token server gives no token")
        return token


def _answer(response: requests.Response, end: float, limit: int, url: str) -> Answer:
    return Answer(
        status=response.status_code,
        headers=response.headers,
        body=b"" if response.request.method == "HEAD" else _bounded(response, end, limit),
        url=url,
    )


def _failure(answer: Answer) -> HttpError | AgainError:
    """What an answer means that nobody wanted."""
    told = f"answers {answer.status}{_explained(answer.body)}"
    if answer.status >= 500 or answer.status in PASSING:
        return AgainError(told, wait=retry_after(answer.headers.get("Retry-After")))
    return DeniedError(told) if answer.status in (401, 403) else HttpError(told)


def _bounded(response: requests.Response, end: float, limit: int) -> bytes:
    body = io.BytesIO()
    for chunk in chunks(response, end):
        body.write(chunk)
        if body.tell() > limit:
            raise HttpError(f"sends more than {limit} bytes")
    return body.getvalue()


def with_query(url: str, **more: str) -> str:
    """*url* with *more* behind what it asks for already."""
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(more)}"


def _explained(body: bytes) -> str:
    """What the registry says of it, if it says it as distribution-spec wants ("Error Codes")."""
    listed = object_of(body).get("errors")
    first = listed[0] if isinstance(listed, list) and listed else {}
    words = [first.get("code"), first.get("message")] if isinstance(first, dict) else []
    told = " ".join(word for word in words if isinstance(word, str))
    return f": {shown(told, most=200)}" if told else ""


def object_of(text: bytes) -> dict[str, Any]:
    """The object of JSON in *text*; an empty one for what is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
