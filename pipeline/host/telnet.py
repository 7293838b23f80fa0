"""Telnet to the host, the three ways of the article: inetd in front, inetd forking, systemd's own.

Telnet sends passwords as plain text; nothing here makes that safe, so it listens on 127.0.0.1
unless told otherwise. The server is the image's BusyBox, the accounts and `login` are the host's.
"""

from __future__ import annotations

import ipaddress
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import distribution
from pipeline.errors import NiftyError, reason
from pipeline.files import put
from pipeline.host.binds.rules import check_plain
from pipeline.host.units import systemd, unit_files
from pipeline.host.units.unit_files import MARK, UnitFile
from pipeline.image.rootfs import File
from pipeline.run import CLEAN_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.roots.images import Image
    from pipeline.host.state.layout import Layout

PORT = 12323
INETD = "nifty-inetd.service"
SOCKET = "nifty-telnet.socket"
SERVICE = "nifty-telnet@.service"
ALL = (INETD, SOCKET, SERVICE)

_BUSYBOX = "cbin/busybox"
# seconds: more than a service needs to start on a busy host, less than people wait for
_PATIENCE = 10.0


class TelnetError(NiftyError):
    """Telnet that cannot be set up here."""


class Mode(StrEnum):
    """Who listens, and what becomes of the sessions when that is stopped."""

    INETD = "inetd"
    FORKING = "forking"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is wanted: *login* is the host's program that asks for name and password."""

    mode: Mode
    listen: str
    port: int
    login: Path

    @property
    def unit(self) -> str:
        """The unit to start."""
        return SOCKET if self.mode is Mode.SOCKET else INETD

    @property
    def is_exposed(self) -> bool:
        """Whether others than this host can reach it."""
        return not ipaddress.ip_address(self.listen).is_loopback

    @property
    def place(self) -> str:
        """Address and port in one word, as systemd.socket(5) and inetd write it."""
        address = f"[{self.listen}]" if ":" in self.listen else self.listen
        return f"{address}:{self.port}"


def login() -> Path:
    """The program of the host that asks who is there. Raises TelnetError if it has none."""
    found = shutil.which("login", path=CLEAN_ENVIRONMENT["PATH"])
    if found is None:
        hint = distribution.install_here(("login",))
        raise TelnetError("login: not on this host", hint=hint)
    return Path(found)


def folder(layout: Layout) -> Path:
    """Where BusyBox and inetd's table lie."""
    return layout.state / "telnet"


def files(server: Server, layout: Layout) -> tuple[UnitFile, ...]:
    """The unit files of *server*. Raises UnitError for paths that cannot stand in a unit."""
    where = folder(layout)
    for path in (where, server.login):
        check_plain(str(path))
    words = {"place": server.place, "folder": where, "login": server.login}
    texts = {
        Mode.INETD: {INETD: _INETD_TEXT + _FOREGROUND},
        Mode.FORKING: {INETD: _INETD_TEXT + _FORKING},
        Mode.SOCKET: {SOCKET: _SOCKET_TEXT, SERVICE: _SERVICE_TEXT},
    }[server.mode]
    return tuple(
        UnitFile(name=name, text=f"{MARK}{layout.prefix}\n{text.format(**words)}")
        for name, text in texts.items()
    )


def table(server: Server, layout: Layout) -> str:
    """The inetd.conf of *server* (BusyBox networking/inetd.c)."""
    protocol = "tcp6" if ":" in server.listen else "tcp"
    busybox = folder(layout) / "busybox"
    return (
        f"# written by nifty\n{server.place} stream {protocol} nowait root {busybox} "
        f"busybox telnetd -i -l {server.login}\n"
    )


def install(server: Server, layout: Layout, image: Image) -> None:
    """Have *server* and no other run; returns when it listens.

    Raises TelnetError, UnitError, UnitFilesError or SystemdError; a file of somebody else's is
    found before anything is touched.
    """
    wanted = files(server, layout)
    unit_files.changes(wanted)
    remove(layout)
    _check_free(server)
    where = folder(layout)
    try:
        where.mkdir(mode=0o755, exist_ok=True)
        _place_busybox(layout, image)
        put(where / "inetd.conf", table(server, layout).encode())
    except OSError as error:
        raise TelnetError(reason(error, where)) from error
    unit_files.write(wanted)
    systemd.reload()
    systemd.start((server.unit,))
    _wait(server)


def remove(layout: Layout) -> tuple[str, ...]:
    """Stop it, end its sessions, and remove what `install` made; the unit files that were there.

    Raises UnitFilesError, and touches nothing, if one of them is somebody else's.
    """
    ours = unit_files.owned(ALL, layout.prefix)
    if ours:
        sessions = SERVICE.replace("@", "@*")
        running = [name for name in systemd.states((INETD, sessions)) if name != SERVICE]
        systemd.kill(running)
        systemd.stop((*(name for name in ours if name != SERVICE), sessions))
        _wait_for_rest((INETD, SOCKET, sessions))
        systemd.disable(name for name in ours if name != SERVICE)
        for name in ours:
            (unit_files.DIRECTORY / name).unlink()
        systemd.reload()
    shutil.rmtree(folder(layout), ignore_errors=True)
    return ours


def _place_busybox(layout: Layout, image: Image) -> None:
    """The program; what instances of *image* share gets one more link, so it outlives them."""
    path = folder(layout) / "busybox"
    shared = layout.cbin(image.digest) / "busybox"
    with suppress(OSError):
        path.hardlink_to(shared)
        return
    entry = image.rootfs.find(_BUSYBOX)
    if not isinstance(entry, File):
        raise TelnetError(f"the image has no /{_BUSYBOX}")
    put(path, entry.content, mode=0o755)


def _check_free(server: Server) -> None:
    family = socket.AF_INET6 if ":" in server.listen else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.listen, server.port))
        except OSError as error:
            raise TelnetError(
                f"{server.place}: {error.strerror}", hint="give another port= or listen="
            ) from error


def _wait(server: Server) -> None:
    """Until somebody listens there; asking by a connection would start a login."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if _listens(server.port):
            return
        time.sleep(0.1)
    raise TelnetError(
        f"{server.unit}: does not listen on {server.place}",
        hint=f"journalctl -u {server.unit}",
    )


def _listens(port: int) -> bool:
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]:
                _slot, local, _remote, status = line.split(None, 4)[:4]
                if status == "0A" and int(local.rpartition(":")[2], 16) == port:
                    return True
    return False


def _wait_for_rest(patterns: Sequence[str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not all(state.is_at_rest for state in systemd.states(patterns).values()):
        if time.monotonic() > deadline:
            raise TelnetError("telnet does not stop", hint=f"systemctl status {' '.join(ALL[:2])}")
        time.sleep(0.1)


_INETD_TEXT = """\
[Unit]
Description=Telnet to this host by BusyBox inetd, on {place}
After=network.target

[Service]
"""

_FOREGROUND = """\
# -f: inetd stays in the foreground, so systemd knows the process it started.
ExecStart={folder}/busybox inetd -f {folder}/inetd.conf
Type=simple
# Stopping kills inetd alone: people who are logged in stay. systemd's default, control-group, would
# end every process of the unit, their shells among them.
KillMode=process
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""

_FORKING = """\
# inetd forks and its parent ends; systemd takes the process that is left for the main one.
ExecStart={folder}/busybox inetd {folder}/inetd.conf
Type=forking
# The default, said aloud: stopping ends every process of the unit, sessions too.
KillMode=control-group
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""

_SOCKET_TEXT = """\
[Unit]
Description=Telnet to this host, on {place}

[Socket]
ListenStream={place}
# A service of its own for each connection, with nothing running in between.
Accept=yes
MaxConnections=16

[Install]
WantedBy=sockets.target
"""

_SERVICE_TEXT = """\
[Unit]
Description=A telnet session

[Service]
# The - says that no exit status of a session is a failure.
ExecStart=-{folder}/busybox telnetd -i -l {login}
StandardInput=socket
# Each session is a unit: stopping the socket leaves it, stopping the session ends all of it.
KillMode=control-group
"""
