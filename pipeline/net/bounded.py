"""A session of requests in which every read of the network knows when its time is over.

http.client reads as long as a server sends: any number of `100 Continue`, lines of a header or of a
trailer, a byte now and then. A timeout of the socket bounds one wait, not their sum.
"""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer


@dataclass(slots=True)
class Clock:
    """When (time.monotonic) what is read must have come."""

    end: float = math.inf


class Session(requests.Session):
    """As requests' own; no read goes on when *clock* is at its end, then it is a TimeoutError."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter(self.clock))


class _Reader(io.RawIOBase):
    """What comes from *sock* by way of *raw*, each time for no longer than there is time left."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, clock: Clock) -> None:
        super().__init__()
        self._raw, self._sock, self._clock = raw, sock, clock
        self._most = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        left = self._clock.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("takes too long")
        if self._most is not None:
            self._sock.settimeout(min(self._most, left))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Adapter(HTTPAdapter):
    """Its connections answer through a `_Reader`, those to a proxy as well."""

    def __init__(self, clock: Clock) -> None:
        self._pools = _pools(clock)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _pools(clock: Clock) -> dict[str, type[HTTPConnectionPool]]:
    class Response(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock, clock))

    class Plain(HTTPConnection):
        response_class = Response

    class Secure(HTTPSConnection):
        response_class = Response

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
