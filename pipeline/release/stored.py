"""An image in a registry: signed by who is trusted, or pinned by a digest; never less.

The signature is that of the release: SHA256SUMS and SHA256SUMS.gpg refer to the index, and name the
layer, which is the published archive itself.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.net import login
from pipeline.net.https import Expected
from pipeline.net.registry import Registry
from pipeline.net.transport import Transport
from pipeline.release import check_stored, names
from pipeline.release import repository as contents
from pipeline.release.cache import Cache
from pipeline.release.laid_out import Keeping, Layout
from pipeline.release.place import Place
from pipeline.release.reader import RemoteError
from pipeline.release.remote import Pulled
from pipeline.trust import keyring, sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    from pipeline.progress import Step
    from pipeline.release import oci
    from pipeline.release.check import Check
    from pipeline.release.repository import Repository
    from pipeline.trust.keyring import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """As `remote.Client`, of images in a registry."""

    cache: Path
    machine: str
    now: datetime
    transport: Transport = field(default_factory=Transport)

    def pinned(self, where: Place) -> Pulled:
        """The archive below the digest that *where* pins, or with the sha256 that it pins.

        The latter needs nobody if it is in the cache.
        """
        if where.pin and (path := Cache(folder=self.cache).have(where.pin)):
            return Pulled(path=path, place=where, title=where.url)
        with self._opened(where) as repository:
            found = self._layer(repository, where, contents.top(repository, where.file[1:]))
            return Pulled(
                path=self._archive(repository, where, found), place=where, title=where.url
            )

    def published_keyring(self, where: Place) -> Keyring:
        """What the registry itself has as the keyring: to be trusted by who was asked only."""
        with self._opened(where) as repository:
            index = contents.top(repository, where.file[1:])
            for one in contents.signatures(repository, index.digest):
                if one.ring:
                    return keyring.read(one.ring, name=f"{where.url}: {names.KEYRING}")
        raise RemoteError(
            f"{where.url}: no {names.KEYRING} refers to it", hint="keyring=FILE of the publisher"
        )

    def signed(
        self, where: Place, ring: Keyring, accept: Callable[[Pulled], None] | None = None
    ) -> Pulled:
        """The archive for this machine below what *where* names, signed by *ring*.

        *accept* may refuse it, by an exception, before it is downloaded.
        """
        with self._opened(where) as repository:
            index = contents.top(repository, where.file[1:])
            found = self._layer(repository, where, index)
            signed, listed, _sums = contents.vouched(repository, index, ring, self.now)
            digest = _sha256(found)
            file = contents.archive_of(listed, digest)
            about = names.parse(file)
            if about is None or about.architecture != self.machine:
                raise RemoteError(
                    f"{where.url}: its layer {digest} is not the archive of an image for "
                    f"{self.machine} in the {sums.NAME} that are signed",
                    hint="use nothing of this: ask the publisher, over another way",
                )
            pulled = Pulled(
                path=self.cache / digest,
                place=Place(base=where.base, file=where.file, pin=digest),
                title=f"{where.url}: {file}",
                signed=signed,
                named=about,
            )
            if accept is not None:
                accept(pulled)
            self._archive(repository, where, found)
            return pulled

    def checked(
        self,
        where: Place,
        ring: Keyring,
        *,
        fresh: int | None = None,
        seen: check_stored.Seen | None = None,
        kept: Path | None = None,
    ) -> Iterator[Check]:
        """Each check of the release that *where* names, for whatever machine.

        What was looked at is put into *seen*. What of it lies in the layout *kept* is not asked for
        again, and what is fetched is put there.
        """
        with self._opened(where) as repository:
            source = Keeping(source=repository, folder=kept) if kept else repository
            name = where.file[1:]
            yield from check_stored.stored(source, name, ring, now=self.now, fresh=fresh, seen=seen)

    def _opened(self, where: Place) -> AbstractContextManager[Repository]:
        return opened(where, self.transport)

    def _layer(self, repository: Repository, where: Place, index: oci.Blob) -> dict[str, Any]:
        found = contents.layer(repository, index, self.machine)
        if where.pin and where.pin != _sha256(found):
            told = f"{where.url}: its archive has the sha256 {_sha256(found)}, not the pinned one"
            raise RemoteError(told)
        return found

    def _archive(self, repository: Repository, where: Place, found: Mapping[str, Any]) -> Path:
        digest, size = found["digest"], found["size"]

        def fetch(sink: BinaryIO, step: Step, begun: int) -> None:
            repository.download_blob(digest, size, sink, step=step, begun=begun)

        expected = Expected(size=size, by="its manifest names")
        return Cache(folder=self.cache).get(_sha256(found), where.url, expected, fetch)


def opened(where: Place, transport: Transport) -> AbstractContextManager[Repository]:
    """The repository that *where* names, for as long as the block runs."""
    if where.is_layout:
        return nullcontext(Layout(folder=Path(where.base)))
    meant = where.reference
    return Registry(meant, login=login.find(meant.host, meant.name), transport=transport)


def _sha256(descriptor: Mapping[str, Any]) -> str:
    return str(descriptor["digest"]).removeprefix("sha256:")
