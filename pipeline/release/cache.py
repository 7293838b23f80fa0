"""Archives that were fetched, by their sha256, in a directory of one's own.

What is there is hashed whenever it is used. A download that was interrupted goes on; two runs that
want the same archive fetch it once, those that want others do not wait.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from pipeline import files
from pipeline.errors import NiftyError, reason
from pipeline.progress import bar, say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.net.https import Expected
    from pipeline.progress import Step

_KEPT = 5


class CacheError(NiftyError):
    """A cache that cannot be used, or a file that is not the one that was expected."""


class Fetch(Protocol):
    """Writes a file to *sink*, whose first *begun* bytes are there; tells *step* of bytes."""

    def __call__(self, sink: BinaryIO, step: Step, begun: int, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """The directory *folder*, made when it is used."""

    folder: Path

    def have(self, sha256: str) -> Path | None:
        """The file with that *sha256*, whole; None if it is not there."""
        path = self.folder / sha256
        is_there = path.is_file() and not path.is_symlink() and hashed(path) == sha256
        return path if is_there else None

    def get(self, sha256: str, url: str, expected: Expected, fetch: Fetch) -> Path:
        """The file with that *sha256*, by *fetch* if it is not there; *url* is for messages.

        Raises CacheError, and what *fetch* raises: what it got until then stays for the next run.
        """
        own(self.folder)
        try:
            return self._got(sha256, url, expected, fetch)
        except OSError as error:
            raise CacheError(reason(error, self.folder)) from error

    def _got(self, sha256: str, url: str, expected: Expected, fetch: Fetch) -> Path:
        path, part = self.folder / sha256, self.folder / f"{sha256}.part"
        with _alone(part, url) as file:
            if self.have(sha256):
                os.utime(path)
                part.unlink(missing_ok=True)
                return path
            path.unlink(missing_ok=True)
            begun = os.fstat(file).st_size
            begun = begun if begun < expected.size else 0
            found = _fetched(file, url, expected, fetch, begun)
            if begun and found != sha256:
                found = _fetched(file, url, expected, fetch, 0)
            if found != sha256:
                part.unlink(missing_ok=True)
                raise CacheError(
                    f"{url}: has the sha256 {found}, expected {sha256}",
                    hint="use nothing of this: the file is not the one that was published",
                )
            files.sync_folder(self.folder)
            part.replace(path)
            self._forget()
        return path

    def _forget(self) -> None:
        """Keep the archives that were used last, and what others are fetching."""
        kept = [
            path
            for path in self.folder.iterdir()
            if re.fullmatch(r"[0-9a-f]{64}(\.part)?", path.name)
        ]
        kept.sort(key=lambda path: path.lstat().st_mtime_ns, reverse=True)
        for path in kept[_KEPT:]:
            if not files.is_locked(path):
                path.unlink(missing_ok=True)


def own(folder: Path) -> None:
    """Make *folder* if it is not there, and refuse one that others may write to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise CacheError(f"{folder}: {error.strerror}") from error
    if state.st_uid != os.geteuid() or state.st_mode & 0o022 or folder.is_symlink():
        raise CacheError(
            f"{folder}: others may write there", hint=f"chmod 700 {folder}, or CACHE_DIRECTORY="
        )


def hashed(path: Path) -> str:
    """The sha256 of a file's content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(part: Path, url: str) -> Iterator[int]:
    """Alone with the file *part*, open for reading and writing: no other run fetches the same."""

    def busy(_file: int) -> None:
        say(f"{url}: another run fetches it; waiting for it")

    while True:
        with files.locked(part, busy=busy, mode=0o600) as file:
            # who had the lock before may have renamed or removed it meanwhile
            if _is_at(file, part):
                yield file
                return


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


def _fetched(file: int, url: str, expected: Expected, fetch: Fetch, begun: int) -> str:
    """The sha256 of what the open *file* holds then."""
    total = None if expected.is_most else expected.size
    with os.fdopen(file, "r+b", closefd=False) as sink:
        sink.truncate(begun)
        with bar(url.rpartition("/")[2], total, unit="bytes") as step:
            step(begun)
            fetch(sink, step, begun)
        sink.flush()
        os.fsync(file)
        sink.seek(0)
        return hashlib.file_digest(sink, "sha256").hexdigest()
