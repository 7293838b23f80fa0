"""The SSH server as it was compiled: what it offers, and whom it lets in when it is busy."""

from __future__ import annotations

import os
import socket
import struct
import subprocess  # noqa: TID251 (what is timed is the process itself)
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.checkouts import Checkout

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="runs x86_64 programs"),
]
pytest_plugins = ["tests.support.checkouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Dropbear on 127.0.0.1, to which nobody has a key."""

    program: Path
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def knock(self) -> subprocess.Popen[bytes]:
        """A client that goes as far as it can: to where a key would let it in."""
        words = ("-y", "-y", "-o", "BatchMode=yes", "-p", str(self.port), "luser@127.0.0.1", "true")
        return subprocess.Popen(
            [self.program, "dbclient", *words],
            env={"HOME": "/nonexistent"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="module")
def server(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program = checkout.artifacts / "components" / "x86_64" / "dropbear" / "dropbearmulti"
    folder = tmp_path_factory.mktemp("server")
    run([program, "dropbearkey", "-t", "ed25519", "-f", folder / "host"])
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    words = ("-F", "-E", "-r", folder / "host", "-P", folder / "pid")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "dropbear", *words, "-p", f"127.0.0.1:{port}"], stderr=log
        )
    made = Server(program=program, port=port)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(OSError), made.connect():
                break
            time.sleep(0.02)
        yield made
    finally:
        process.terminate()
        process.wait()


def offers(server: Server) -> list[list[str]]:
    """The name lists of the server's SSH_MSG_KEXINIT (RFC 4253, 7.1), in their order there."""
    with server.connect() as link, link.makefile("rb") as stream:
        link.sendall(b"SSH-2.0-test\r\n")
        stream.readline()
        length, padding = struct.unpack(">IB", stream.read(5))
        payload = stream.read(length - 1)[: length - 1 - padding]
    lists, at = [], 1 + 16
    for _ in range(10):
        (size,) = struct.unpack_from(">I", payload, at)
        lists.append(payload[at + 4 : at + 4 + size].decode().split(","))
        at += 4 + size
    return lists


def test_a_post_quantum_key_exchange_comes_first_and_x25519_last(server: Server) -> None:
    assert offers(server)[0] == [
        "sntrup761x25519-sha512",
        "sntrup761x25519-sha512@openssh.com",
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "kex-strict-s-v00@openssh.com",
    ]


def test_the_host_key_the_ciphers_and_the_macs(server: Server) -> None:
    ciphers = ["chacha20-poly1305@openssh.com", "aes256-ctr", "aes128-ctr"]
    macs = ["hmac-sha2-256"]
    assert offers(server)[1:6] == [["ssh-ed25519"], ciphers, ciphers, macs, macs]


@pytest.mark.parametrize("idle", [0, 5, 60, 300])
def test_thirty_at_once_may_show_a_key_beside_idle_connections(server: Server, idle: int) -> None:
    with ExitStack() as held:
        for _ in range(idle):
            held.enter_context(server.connect())
        clients = [server.knock() for _ in range(30)]
        told = [client.communicate(timeout=120)[0].decode() for client in clients]
    last = "exited: No auth methods could be used."
    assert [text for text in told if not text.rstrip().endswith(last)] == []


def test_sftp_server_speaks_version_3(checkout: Checkout) -> None:
    # draft-ietf-secsh-filexfer-02, 4: SSH_FXP_INIT (1) is answered by SSH_FXP_VERSION (2)
    program = checkout.artifacts / "components" / "x86_64" / "sftp-server" / "sftp-server"
    # it ends without an answer when it sees the end of its input beside a question
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(struct.pack(">IBI", 5, 1, 3))
        process.stdin.flush()
        (size,) = struct.unpack(">I", process.stdout.read(4))
        told = process.stdout.read(size)
        process.stdin.close()
    assert struct.unpack_from(">BI", told) == (2, 3)
    assert b"posix-rename@openssh.com" in told
