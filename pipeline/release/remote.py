"""An image of a release of files: signed by who is trusted, or pinned by its sha256; never less.

Order: SHA256SUMS, its signature, what release.json says, then the archive, each bounded and none
used before what vouches for it holds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.errors import shown, some
from pipeline.net.https import Expected
from pipeline.net.transport import Transport
from pipeline.progress import say
from pipeline.release import check, envelope, names, reader
from pipeline.release.bringer import LARGEST, Bringer
from pipeline.release.cache import Cache
from pipeline.release.place import Place
from pipeline.release.reader import RemoteError
from pipeline.trust import keyring, memory, sums, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from pipeline.release.check import Check
    from pipeline.release.rebuilders import Wanted
    from pipeline.trust.keyring import Keyring
    from pipeline.trust.verify import Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """An archive on this host; *title* is what it is called where it is from.

    *signed* and *named* are None for one that was pinned alone.
    """

    path: Path
    place: Place
    title: str
    signed: Signed | None = None
    named: names.Named | None = None

    @property
    def seen(self) -> memory.Seen | None:
        """What is to be remembered of it."""
        if self.signed is None or self.named is None:
            return None
        return memory.Seen(version=self.named.version, signed=self.signed.created)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """How something is pulled: *cache* is a directory of one's own, *machine* uname's word."""

    cache: Path
    machine: str
    now: datetime
    transport: Transport = field(default_factory=Transport)
    rebuilt: Wanted | None = None

    def pinned(self, where: Place) -> Pulled:
        """The archive with the sha256 that *where* pins; nobody is asked if it is in the cache."""
        expected = Expected(size=LARGEST, by="are taken", is_most=True)
        path = self._archive(where.url, where.pin, expected)
        return Pulled(path=path, place=where, title=where.file)

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
            path=self.cache / digest,
            place=found,
            title=file,
            signed=signed,
            named=names.parse(file),
        )
        if accept is not None:
            accept(pulled)
        if self.rebuilt is not None:
            limit = envelope.LIMIT
            told = self.rebuilt.check(
                file, listed, lambda name: self._read(f"{where.base}{name}", limit)
            )
            say(f"{file}: built again by {told}")
        self._archive(found.url, digest, self._expected(where, listed, file))
        return pulled

    def checked(
        self,
        where: Place,
        ring: Keyring,
        folder: Path,
        *,
        fresh: int | None = None,
        old: Path | None = None,
    ) -> Iterator[Check]:
        """Each check of a whole release, which is brought into *folder*.

        Nothing is asked for before the signature over it holds. What of it an earlier run has left
        in *folder*, or lies in *old*, is not asked for again.
        """
        bring = Bringer(base=where.base, folder=folder, transport=self.transport, old=old)
        return check.directory(folder, ring, now=self.now, fresh=fresh, bring=bring)

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
        return reader.read(url, limit=limit, transport=self.transport)

    def _archive(self, url: str, digest: str, expected: Expected) -> Path:
        fetch = reader.fetcher(url, expected, self.transport)
        return Cache(folder=self.cache).get(digest, url, expected, fetch)


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
