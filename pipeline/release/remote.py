"""An image from a web server: signed by who is trusted, or pinned by its sha256; never unverified.

Order: SHA256SUMS, its signature, what release.json says, then the archive, each bounded and none
used before what vouches for it holds.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline import files
from pipeline.errors import NiftyError, UsageError, shown, some
from pipeline.image import archive
from pipeline.net import https
from pipeline.net.https import Expected
from pipeline.net.reference import is_loopback
from pipeline.net.transport import HttpError, Transport
from pipeline.progress import bar
from pipeline.release import check, names
from pipeline.trust import keyring, memory, sums, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from pipeline.trust.keyring import Keyring
    from pipeline.trust.verify import Signed

LARGEST = archive.DEFAULT_LIMITS.max_bytes
_KEPT = 5
_CHUNK = 1 << 20


class RemoteError(NiftyError):
    """What a server has is not to be had, or not what is trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an image is: *base* ends with a slash; *file* in it, empty for the newest one.

    *pin* is the archive's sha256, or empty.
    """

    base: str
    file: str
    pin: str

    @property
    def url(self) -> str:
        """That of the file, or of the directory."""
        return f"{self.base}{self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """An archive on this host; *signed* and *named* are None for one that was pinned alone."""

    path: Path
    place: Place
    signed: Signed | None = None
    named: names.Named | None = None

    @property
    def seen(self) -> memory.Seen | None:
        """What is to be remembered of it."""
        if self.signed is None or self.named is None:
            return None
        return memory.Seen(version=self.named.version, signed=self.signed.created)


def place(url: str, *, variable: str = "image") -> Place:
    """What *url*, given as *variable*, means. Raises UsageError if it cannot be used."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{variable}={url}: no URL: {error}") from error
    if not host:
        raise UsageError(f"{variable}={url}: no URL: no host")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{variable}=: a password in a URL is seen by every user of this machine",
            hint="a ~/.netrc (mode 0600) holds it",
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        told = f"{variable}={url}: {parts.scheme}:, only https: is used"
        raise UsageError(told, hint="https://…")
    if parts.query:
        raise UsageError(f"{variable}={url}: a query cannot be used, files lie beside one another")
    pin = ""
    if parts.fragment:
        found = re.fullmatch(r"sha256=([0-9a-f]{64})", parts.fragment)
        if found is None:
            raise UsageError(f"{variable}={url}: after # expected sha256= and 64 hex digits")
        pin = found[1]
    before, _slash, last = parts.path.rpartition("/")
    is_file = ".tar" in last
    path = f"{before}/" if is_file or not last else f"{parts.path}/"
    if pin and not is_file:
        raise UsageError(f"{variable}={url}: #sha256= pins an archive, this is a directory")
    file = unquote(last) if is_file else ""
    if file and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]*", file):
        raise UsageError(f"{variable}={url}: no name of an archive: {shown(file, most=80)}")
    return Place(base=f"{parts.scheme}://{parts.netloc}{path}", file=file, pin=pin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """How something is pulled: *cache* is a directory of one's own, *machine* uname's word."""

    cache: Path
    machine: str
    now: datetime
    transport: Transport = field(default_factory=Transport)

    def pinned(self, where: Place) -> Pulled:
        """The archive with the sha256 that *where* pins; nobody is asked if it is in the cache."""
        expected = Expected(size=LARGEST, by="are taken", is_most=True)
        return Pulled(path=self._archive(where.url, where.pin, expected), place=where)

    def published_keyring(self, where: Place) -> Keyring:
        """What the server itself says its keyring is: to be trusted by who was asked only."""
        content = self._read(f"{where.base}{names.KEYRING}", keyring.LIMIT)
        return keyring.read(content, name=f"{where.base}{names.KEYRING}")

    def signed(
        self, where: Place, ring: Keyring, accept: Callable[[Pulled], None] | None = None
    ) -> Pulled:
        """The archive that *where* names, or the newest for this machine, signed by *ring*.

        *accept* may refuse it, by an exception, before it is downloaded.
        """
        content = self._read(f"{where.base}{sums.NAME}", sums.LIMIT)
        signature = self._read(f"{where.base}{sums.SIGNATURE}", verify.LIMIT)
        name = f"{where.base}{sums.NAME}"
        signed = verify.verify(content, signature, ring, name=name, now=self.now)
        listed = sums.read(content, name=name)
        file = where.file or newest(listed, self.machine, where.base)
        if file not in listed:
            raise RemoteError(
                f"{where.base}: the release has no {shown(file)}",
                hint=f"it has {some(one for one in listed if '.tar' in one)}",
            )
        digest = listed[file]
        if where.pin and where.pin != digest:
            raise RemoteError(f"{where.url}: signed with the sha256 {digest}, not the pinned one")
        found = Place(base=where.base, file=file, pin=digest)
        pulled = Pulled(
            path=self.cache / digest, place=found, signed=signed, named=names.parse(file)
        )
        if accept is not None:
            accept(pulled)
        self._archive(found.url, digest, self._expected(where, listed, file))
        return pulled

    def release(self, where: Place, ring: Keyring, folder: Path) -> None:
        """Bring a whole release into *folder*, which is empty; nothing before its signature holds.

        Whether the files are those that are signed, `check` finds out.
        """
        content = self._read(f"{where.base}{sums.NAME}", sums.LIMIT)
        signature = self._read(f"{where.base}{sums.SIGNATURE}", verify.LIMIT)
        name = f"{where.base}{sums.NAME}"
        verify.verify(content, signature, ring, name=name, now=self.now)
        files.write(folder / sums.NAME, content)
        files.write(folder / sums.SIGNATURE, signature)
        left = LARGEST
        for file in sums.read(content, name=name):
            expected = Expected(size=left, by="are taken in all", is_most=True)
            self._download(f"{where.base}{file}", folder / file, expected, 0)
            left -= (folder / file).stat().st_size

    def _expected(self, where: Place, listed: Mapping[str, str], file: str) -> Expected:
        """How large *file* is, by release.json if that is signed too."""
        if names.INDEX not in listed:
            return Expected(size=LARGEST, by="are taken", is_most=True)
        content = self._read(f"{where.base}{names.INDEX}", sums.LIMIT)
        if hashlib.sha256(content).hexdigest() != listed[names.INDEX]:
            raise RemoteError(f"{where.base}{names.INDEX}: not the one whose sum is signed")
        entry = check.index(content).get(file)
        if entry is None:
            raise RemoteError(f"{where.base}{names.INDEX}: does not know {file}")
        if not 0 < entry["size"] <= LARGEST:
            raise RemoteError(f"{file}: {entry['size']} bytes, at most {LARGEST} are taken")
        return Expected(size=entry["size"], by="the release names")

    def _read(self, url: str, limit: int) -> bytes:
        try:
            return https.read(url, limit=limit, transport=self.transport)
        except HttpError as error:
            raise RemoteError(f"{url}: {error.message}", hint=error.hint) from error

    def _archive(self, url: str, digest: str, expected: Expected) -> Path:
        """The file with *digest* in the cache, where an interrupted download goes on."""
        own(self.cache)
        path, part = self.cache / digest, self.cache / f"{digest}.part"
        with files.locked(self.cache / ".lock", mode=0o600):
            if path.is_file() and not path.is_symlink() and _sha256(path) == digest:
                os.utime(path)
                return path
            path.unlink(missing_ok=True)
            begun = part.stat().st_size if part.is_file() and not part.is_symlink() else 0
            found = self._download(url, part, expected, begun if begun < expected.size else 0)
            if begun and found != digest:
                found = self._download(url, part, expected, 0)
            if found != digest:
                part.unlink(missing_ok=True)
                raise RemoteError(
                    f"{url}: has the sha256 {found}, expected {digest}",
                    hint="use nothing of this: the file is not the one that was published",
                )
            files.sync_folder(self.cache)
            part.replace(path)
            _forget(self.cache)
        return path

    def _download(self, url: str, part: Path, expected: Expected, begun: int) -> str:
        """The sha256 of what *part* holds then."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        total = None if expected.is_most else expected.size
        with os.fdopen(os.open(part, flags, 0o600), "r+b") as sink:
            sink.truncate(begun)
            try:
                with bar(url.rpartition("/")[2], total, unit="bytes") as step:
                    step(begun)
                    https.download(
                        url, sink, expected, transport=self.transport, step=step, begun=begun
                    )
            except HttpError as error:
                raise RemoteError(f"{url}: {error.message}", hint=error.hint) from error
            sink.flush()
            os.fsync(sink.fileno())
        return _sha256(part)


def newest(listed: Mapping[str, str], machine: str, where: str) -> str:
    """The name of the newest image for *machine*, an uname's word. Raises RemoteError."""
    fitting = {
        name: named
        for name in listed
        if (named := names.parse(name)) and named.ending == "tar.zst"
        if named.architecture == machine
    }
    images = sorted({named.image for named in fitting.values()})
    if not images:
        raise RemoteError(
            f"{where}: the release has no image for {machine}",
            hint=f"it has {some(one for one in listed if '.tar' in one) or 'none at all'}",
        )
    if len(images) > 1:
        raise RemoteError(
            f"{where}: the release has several images: {some(images)}",
            hint=f"name one file of it, such as image={where}{min(fitting)}",
        )
    return max(fitting, key=lambda name: memory.order(fitting[name].version))


def own(folder: Path) -> None:
    """Make *folder* if it is not there, and refuse one that others may write to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise RemoteError(f"{folder}: {error.strerror}") from error
    if state.st_uid != os.geteuid() or state.st_mode & 0o022 or folder.is_symlink():
        raise RemoteError(
            f"{folder}: others may write there", hint=f"chmod 700 {folder}, or CACHE_DIRECTORY="
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _forget(folder: Path) -> None:
    """Keep the archives that were used last."""
    kept = [path for path in folder.iterdir() if re.fullmatch(r"[0-9a-f]{64}(\.part)?", path.name)]
    for path in sorted(kept, key=lambda path: path.stat().st_mtime_ns, reverse=True)[_KEPT:]:
        path.unlink(missing_ok=True)
