"""Who answers SSH: the first line of RFC 4253, section 4.2, from many ports at once."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BANNER = b"SSH-2.0-"
HOST = "127.0.0.1"
# Well below the usual 1024 open files, and enough that no port waits for another's time-out.
MOST_SOCKETS = 256


def answering(ports: Iterable[int], *, seconds: float = 2.0) -> frozenset[int]:
    """Those of *ports* on this host that send an SSH banner within *seconds* of being connected to.

    One connection each, in one thread. No answer, a refusal and another protocol are all a no.
    """
    waiting = deque(dict.fromkeys(ports))
    found = set()
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or selector.get_map():
                while waiting and len(selector.get_map()) < MOST_SOCKETS:
                    _connect(selector, waiting.popleft(), deadline=time.monotonic() + seconds)
                for key, _ in selector.select(timeout=0.05):
                    if _settle(selector, key.data) and key.data.has_banner:
                        found.add(key.data.port)
                _give_up_late(selector)
        finally:
            for key in tuple(selector.get_map().values()):
                key.data.close(selector)
    return frozenset(found)


class _Probe:
    """One connection and what it has said so far."""

    __slots__ = ("deadline", "port", "said", "socket")

    def __init__(self, port: int, deadline: float) -> None:
        self.port = port
        self.deadline = deadline
        self.said = b""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    @property
    def has_banner(self) -> bool:
        return self.said.startswith(BANNER)

    def close(self, selector: selectors.BaseSelector) -> None:
        selector.unregister(self.socket)
        self.socket.close()


def _connect(selector: selectors.BaseSelector, port: int, *, deadline: float) -> None:
    probe = _Probe(port, deadline)
    # a refusal shows when reading (connect(2), EINPROGRESS)
    probe.socket.connect_ex((HOST, port))
    selector.register(probe.socket, selectors.EVENT_READ, probe)


def _settle(selector: selectors.BaseSelector, probe: _Probe) -> bool:
    """Read what there is; whether that was all this probe needs, and it is closed."""
    try:
        piece = probe.socket.recv(256)
    except BlockingIOError:
        return False
    except OSError:
        piece = b""
    probe.said += piece
    is_wanting = piece and BANNER.startswith(probe.said)  # the banner's beginning, cut short
    if is_wanting and not probe.has_banner:
        return False
    probe.close(selector)
    return True


def _give_up_late(selector: selectors.BaseSelector) -> None:
    now = time.monotonic()
    # the map keeps the order of connecting, which is the order of the deadlines
    while oldest := next(iter(selector.get_map().values()), None):
        if oldest.data.deadline >= now:
            return
        oldest.data.close(selector)
