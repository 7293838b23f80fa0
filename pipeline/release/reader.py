"""Reads the files of a release, from a web server or from a directory of this host."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline import files
from pipeline.errors import NiftyError, readable
from pipeline.net import https
from pipeline.net.transport import HttpError, Transport

if TYPE_CHECKING:
    from pipeline.net.https import Expected
    from pipeline.progress import Step
    from pipeline.release.cache import Fetch

_CHUNK = 1 << 20


class RemoteError(NiftyError):
    """What a server or a directory has is not to be had, or not what is trusted."""


def read(url: str, *, limit: int, transport: Transport) -> bytes:
    """All of *url*, which may be an absolute path, at most *limit* bytes. Raises RemoteError."""
    try:
        if url.startswith("/"):
            return files.read(url, limit=limit)
        return https.read(url, limit=limit, transport=transport)
    except HttpError as error:
        raise RemoteError(f"{url}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise RemoteError(f"{url}: {error.strerror}", hint=readable(error)) from error


def fetcher(url: str, expected: Expected, transport: Transport) -> Fetch:
    """What writes *url*, which may be an absolute path, *expected* bytes; raises RemoteError."""

    def fetch(sink: BinaryIO, step: Step, begun: int) -> None:
        try:
            https.download(url, sink, expected, transport=transport, step=step, begun=begun)
        except HttpError as error:
            raise RemoteError(f"{url}: {error.message}", hint=error.hint) from error

    def copy(sink: BinaryIO, step: Step, begun: int) -> None:
        sink.seek(begun)
        with _opened(Path(url), expected) as file:
            file.seek(begun)
            done = begun
            while chunk := file.read(_CHUNK):
                done += len(chunk)
                if done > expected.size:
                    raise RemoteError(f"{url}: more than the {expected.size} bytes {expected.by}")
                sink.write(chunk)
                step(len(chunk))
        if done < expected.size and not expected.is_most:
            raise RemoteError(f"{url}: ends after {done} of {expected.size} bytes")

    return copy if url.startswith("/") else fetch


def _opened(path: Path, expected: Expected) -> BinaryIO:
    """A regular file, and no link to one: who made a drive decides what lies on it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise RemoteError(f"{path}: {error.strerror}", hint=readable(error)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise RemoteError(f"{path}: not a regular file")
    size = os.fstat(file.fileno()).st_size
    if size > expected.size or (size != expected.size and not expected.is_most):
        file.close()
        told = f"at most {expected.size}" if expected.is_most else expected.size
        raise RemoteError(f"{path}: has {size} bytes, {told} {expected.by}")
    return file
