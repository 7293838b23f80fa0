"""Registries on 127.0.0.1: Debian's real one, and a small one that misbehaves as a test asks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess  # noqa: TID251 (a server that runs beside the test)
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from pipeline.net import reference
from pipeline.net.registry import Registry
from pipeline.net.transport import Transport
from pipeline.release import repository

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pipeline.net.login import Login
    from pipeline.net.reference import Reference

USER, PASSWORD, TOKEN = "somebody", "U*U", "abc.DEF-123"
# bcrypt's own test vector for that password (John the Ripper's, as in crypt_blowfish)
_HTPASSWD = f"{USER}:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"


@contextmanager
def real(folder: Path, *, login: bool = False) -> Iterator[str]:
    """Debian's docker-registry with its data in *folder*, as HOST:PORT; over when the block is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "htpasswd").write_text(_HTPASSWD)
    told = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": host},
    }
    if login:
        told["auth"] = {"htpasswd": {"realm": "here", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(told))  # which YAML takes
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["/usr/bin/docker-registry", "serve", folder / "config.yml"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _await(host, process, folder / "log")
            yield host
        finally:
            process.terminate()
            process.wait(20)


def _await(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    name, _, port = host.partition(":")
    for _ in range(400):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection((name, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text())


@dataclass(slots=True)
class Fault:
    """What is done *times* times to a request whose method and path match *on*.

    *status* is answered with *headers* and *body*, which *is_unbounded* if no length is told; 0
    goes away without an answer, after *keep* bytes of what was sent were taken.
    """

    on: str
    status: int = 0
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep: int = 0
    is_unbounded: bool = False


@dataclass(slots=True)
class Fake:
    """What a small registry holds, was asked, and does wrong."""

    port: int
    challenge: str = ""  # none, basic, bearer
    has_referrers: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, login
    forms: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def reference(self, tag: str = "") -> Reference:
        """Its only repository."""
        return reference.parse(f"oci://127.0.0.1:{self.port}/a/b{tag and ':'}{tag}")

    def asked(self, pattern: str) -> list[str]:
        """Requests, as method and path, that match."""
        told = [f"{method} {path}" for method, path, _login in self.requests]
        return [one for one in told if re.search(pattern, one)]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_any(self) -> None:
        fake = self.server.fake
        login = self.headers.get("Authorization", "")
        fake.requests.append((self.command, self.path, login))
        said = f"{self.command} {self.path}"
        length = int(self.headers.get("Content-Length", 0))
        for fault in fake.faults:
            if fault.times and re.search(fault.on, said):
                fault.times -= 1
                self._misbehave(fault, length)
                return
        body = self.rfile.read(length)
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path == "/token":
            self._token(body, login)
        elif fake.challenge and not self._is_in(login):
            self._refuse()
        else:
            self._serve(path.removeprefix("/v2/a/b/"), query, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_any  # noqa: N815

    def log_message(self, *words: object) -> None:
        """Says nothing: the tests' output is not the place."""

    def _misbehave(self, fault: Fault, length: int) -> None:
        if fault.status:
            self.rfile.read(length)
            if fault.is_unbounded:
                self.send_response(fault.status)
                self.end_headers()
                self.wfile.write(fault.body)
                self.close_connection = True
            else:
                self._say(fault.status, fault.body, **fault.headers)
            return
        taken = self.rfile.read(min(fault.keep, length))
        upload = urlsplit(self.path).path.rpartition("/")[2]
        if upload in self.server.fake.uploads:
            self.server.fake.uploads[upload] += taken
        self.close_connection = True

    def _is_in(self, login: str) -> bool:
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        wanted = f"Basic {basic}" if self.server.fake.challenge == "basic" else f"Bearer {TOKEN}"
        return login == wanted

    def _refuse(self) -> None:
        told = 'Basic realm="here"'
        if self.server.fake.challenge == "bearer":
            address = f"http://127.0.0.1:{self.server.fake.port}/token"
            told = f'Bearer realm="{address}",service="here",scope="repository:a/b:pull"'
        errors = {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}
        self._say(401, json.dumps(errors).encode(), WWW_Authenticate=told)

    def _token(self, form: bytes, login: str) -> None:
        self.server.fake.forms.append(form.decode())
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        is_known = login == f"Basic {basic}" or b"refresh_token=long" in form
        self._say(200 if is_known else 401, json.dumps({"token": TOKEN}).encode())

    def _serve(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        kind, _, name = path.partition("/")
        fake = self.server.fake
        if name.startswith("uploads/"):
            self._upload(name.removeprefix("uploads/"), query, body)
        elif kind == "blobs":
            self._say(200 if name in fake.blobs else 404, fake.blobs.get(name, b""))
        elif kind == "referrers" and fake.has_referrers:
            listed = [
                {"digest": digest, "size": len(content)}
                for digest, (_media, content) in fake.manifests.items()
                if json.loads(content).get("subject", {}).get("digest") == name
            ]
            self._say(200, json.dumps({"manifests": listed}).encode())
        elif kind == "manifests" and self.command == "PUT":
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            for one in {digest, name}:
                fake.manifests[one] = (self.headers["Content-Type"], body)
            self._say(201, Docker_Content_Digest=digest)
        elif kind == "manifests" and name in fake.manifests:
            media, content = fake.manifests[name]
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            self._say(200, content, Content_Type=media, Docker_Content_Digest=digest)
        else:
            self._say(404)

    def _upload(self, name: str, query: dict[str, list[str]], body: bytes) -> None:
        uploads = self.server.fake.uploads
        if self.command == "POST":
            name = str(len(uploads))
            uploads[name] = b""
            self._say(202, Location=f"/v2/a/b/blobs/uploads/{name}?state=1")
        elif name not in uploads:
            self._say(404)
        elif self.command == "GET":
            self._say(204, b"", **self._reached(name))
        else:
            start = self.headers.get("Content-Range", f"{len(uploads[name])}-").partition("-")[0]
            if int(start) != len(uploads[name]):
                self._say(416)
                return
            uploads[name] += body
            if self.command == "PATCH":
                self._say(202, b"", **self._reached(name))
                return
            digest = f"sha256:{hashlib.sha256(uploads[name]).hexdigest()}"
            if query["digest"] != [digest]:
                self._say(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}')
                return
            self.server.fake.blobs[digest] = uploads.pop(name)
            self._say(201, Docker_Content_Digest=digest)

    def _reached(self, name: str) -> dict[str, str]:
        last = len(self.server.fake.uploads[name]) - 1
        return {"Location": f"/v2/a/b/blobs/uploads/{name}?state=2", "Range": f"0-{last}"}

    def _say(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and code != 204:
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a client may keep its connection
    fake: Fake

    def handle_error(self, *words: object) -> None:
        """A connection that breaks is what these tests are about."""


@contextmanager
def faking() -> Iterator[Fake]:
    """A running small registry; over when the block is."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.fake = Fake(port=server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.fake
        finally:
            server.shutdown()
            thread.join()


FAST = Transport(backoff=lambda _number: 0, read_timeout=5)


def fetched(named: Reference, architecture: str = "x86_64", login: Login | None = None) -> bytes:
    """The published archive of what *named* names, as a client gets it."""
    with Registry(named, login=login, transport=FAST) as opened:
        index = repository.top(opened, named.digest or named.tag)
        layer = repository.layer(opened, index, architecture)
        return opened.get_blob(layer["digest"], layer["size"])
