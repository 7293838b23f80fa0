"""A web server on 127.0.0.1 that misbehaves in the ways a test asks for."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Answer = Callable[["_Handler"], None]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.site.requests.append((self.path, dict(self.headers)))
        answers = self.server.site.answers.get(self.path, [status(404)])
        # the last one stays, those before it are used up
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *words: object) -> None:
        """Says nothing: the tests' output is not the place."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing the server waits for what it still answers
    site: Site

    def handle_error(self, *words: object) -> None:
        """A client that goes away is what many of these tests are about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the server answers, path by path, and what it was asked."""

    port: int
    authorities: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str) -> str:
        """The address of *path*, which begins with a slash."""
        return f"https://127.0.0.1:{self.port}{path}"


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """A running server whose certificate lies in *folder*; over when the block is."""
    certificate, key = _self_signed(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.site = Site(port=server.server_address[1], authorities=certificate)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.site
        finally:
            server.site.stopping.set()
            server.shutdown()
            thread.join()


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nifty test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    paths = folder / "server.pem", folder / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def _send(handler: _Handler, code: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int, **headers: str) -> Answer:
    """An empty answer; `Retry_After="1"` is the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: _send(handler, code, {"Content-Length": "0", **named}, b"")


def whole(body: bytes, *, length: int | None = None, etag: str = "") -> Answer:
    """All of *body*, whatever range was asked for; *length* is what it announces."""
    headers = {"Content-Length": str(len(body) if length is None else length)}
    if etag:
        headers["ETag"] = etag
    return lambda handler: _send(handler, 200, headers, body)


def serve(site: Site, folder: Path, at: str) -> None:
    """Have *site* answer with the files in *folder* below the path *at*, and nothing else."""
    site.answers.clear()
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            site.answers[f"{at}/{name}"] = [whole(path.read_bytes())]


def breaking(body: bytes, *, after: int, etag: str = "") -> Answer:
    """Announces all of *body* and goes away *after* so many bytes."""
    return whole(body[:after], length=len(body), etag=etag)


def rest(body: bytes, *, content_range: str | None = None) -> Answer:
    """What `Range` asks for, as 206; *content_range* lies about which part it is."""

    def answer(handler: _Handler) -> None:
        first = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        told = content_range or f"bytes {first}-{len(body) - 1}/{len(body)}"
        headers = {"Content-Range": told, "Content-Length": str(len(body) - first)}
        _send(handler, 206, headers, body[first:])

    return answer


def stalling(body: bytes, *, after: int) -> Answer:
    """Sends *after* bytes, then nothing until the server stops or the client goes."""

    def answer(handler: _Handler) -> None:
        _send(handler, 200, {"Content-Length": str(len(body))}, body[:after])
        handler.server.site.stopping.wait(60)

    return answer


def endless(*, chunked: bool) -> Answer:
    """A body without announced length that does not end while somebody reads it."""

    def answer(handler: _Handler) -> None:
        block = b"x" * 4096
        _send(handler, 200, {"Transfer-Encoding": "chunked"} if chunked else {}, b"")
        with suppress(OSError):
            while not handler.server.site.stopping.is_set():
                handler.wfile.write(b"1000\r\n" + block + b"\r\n" if chunked else block)

    return answer


def repeating(begin: bytes, block: bytes, *, pause: float = 0) -> Answer:
    """*begin*, and then *block* again and again while somebody reads, with a *pause* in seconds."""

    def answer(handler: _Handler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(begin)
            while not handler.server.site.stopping.wait(pause):
                handler.wfile.write(block)

    return answer


def garbage(handler: _Handler) -> None:
    """Bytes that are no HTTP at all."""
    handler.wfile.write(b"\x00\x01\x02 who knows\r\n\r\n")


def raw(answer: bytes) -> Answer:
    """These bytes and the end, whatever they are."""

    def send(handler: _Handler) -> None:
        handler.wfile.write(answer)
        handler.close_connection = True

    return send


def redirect(url: str) -> Answer:
    """Sends the client to *url*."""
    return status(302, Location=url)
