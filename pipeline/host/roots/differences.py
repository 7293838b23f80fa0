"""What differs between two images, and how it is laid over a root that has the first of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline import trees
from pipeline.host.roots import identity, images
from pipeline.host.roots.access import Access
from pipeline.host.roots.guest import BESIDE, GuestRoot
from pipeline.host.roots.merge import Verdict, decide, merge_table
from pipeline.host.state.records import Share
from pipeline.image.rootfs import File

if TYPE_CHECKING:
    from pipeline.host.roots.images import Image
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance
    from pipeline.image.rootfs import Entry


@dataclass(frozen=True, slots=True)
class Kept:
    """A path that both the user and the image changed; *beside*: the image's lies next to it."""

    name: str
    path: str
    beside: bool

    def __str__(self) -> str:
        """One line for the report."""
        where = f"; the image's is {self.path}{BESIDE}" if self.beside else ""
        return f"{self.name}: /{self.path} was changed there and stays{where}"


class Differences:
    """What differs between images, worked out once for each pair."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._images: dict[str, Image] = {}
        self._pairs: dict[tuple[str, str], Difference] = {}

    def between(self, old: str, new: str) -> Difference:
        """From image *old* to *new*, by their digests. Raises ImageError."""
        pair = (old, new)
        if pair not in self._pairs:
            self._pairs[pair] = Difference(self._image(old), self._image(new))
        return self._pairs[pair]

    def login(self, digest: str) -> str:
        """The first account of an image that may log in. Raises ImageError."""
        return self._image(digest).login

    def _image(self, digest: str) -> Image:
        if digest not in self._images:
            self._images[digest] = images.stored(self._layout, digest)
        return self._images[digest]


class Difference:
    """From one image to another, in any instance."""

    def __init__(self, old: Image, new: Image) -> None:
        self._old, self._new = old, new
        self._owned = {
            (image.digest, share): _Owned(image, share) for image in (old, new) for share in Share
        }

    def apply(
        self, prefix: int, one: Instance, *, going_back: bool, root: type[GuestRoot] = GuestRoot
    ) -> list[Kept]:
        """Make the root of *one*, below directory *prefix*, the new image's; what was kept.

        With *root* `Staging` nothing is changed, only laid ready. Raises OSError. Repeating it
        changes nothing more.
        """
        old, new = (
            self._owned[image.digest, one.share].by(one) for image in (self._old, self._new)
        )
        paths = sorted(old.keys() | new.keys(), key=lambda path: path.split("/"))
        changed = [path for path in paths if old.get(path) != new.get(path)]
        kept = []
        with trees.opened(one.name, at=prefix) as top:
            guest = root(top, one.base)
            # what goes makes room first: a directory may become a file
            for path in reversed(changed):
                disk = guest.find(path, old.get(path), new.get(path))
                if decide(disk, old.get(path), new.get(path)) is Verdict.REMOVE:
                    guest.remove(path)
            for path in changed:
                entry = new.get(path)
                if entry is None:
                    continue
                disk = guest.find(path, old.get(path), entry)
                verdict = decide(disk, old.get(path), entry)
                if verdict is Verdict.PUT and guest.put(entry):
                    continue
                if verdict in (Verdict.PUT, Verdict.KEEP):
                    resolved = self._table(path, disk, old.get(path), entry, one.port)
                    if resolved is None:
                        beside = guest.put_beside(entry, going_back=going_back)
                        kept.append(Kept(one.name, path, beside))
                    elif resolved != disk:
                        guest.put(resolved)
        return kept

    def _table(
        self, path: str, disk: object, old: Entry | None, new: Entry, port: int
    ) -> File | None:
        """Init's table with the user's own lines, if *path* is that and they can be told apart."""
        ssh = self._old.manifest.ssh, self._new.manifest.ssh
        if path != ssh[1].file or path != ssh[0].file:
            return None
        if not (isinstance(disk, File) and isinstance(old, File) and isinstance(new, File)):
            return None
        merged = merge_table(
            disk.content.decode(errors="surrogateescape"),
            old.content.decode(),
            new.content.decode(),
            places=(ssh[0].place, ssh[1].place),
            port=port,
        )
        if merged is None:
            return None
        return replace(disk, content=merged.encode(errors="surrogateescape"))


class _Owned:
    """What *image* owns in an instance, as it was or would be deployed: all but keys."""

    def __init__(self, image: Image, share: Share) -> None:
        self._blank = image.blank
        keys = {self._blank.host_key_path}
        for account in image.manifest.ssh.accounts:
            folder = f"{account.home}/.ssh".lstrip("/")
            keys |= {account.home, folder, f"{folder}/authorized_keys"}
        entries = images.entries_of(image, share, Access(lines=()))
        self._entries = {entry.path: entry for entry in entries if entry.path not in keys}

    def by(self, one: Instance) -> dict[str, Entry]:
        """Its entries in *one*, by path."""
        key = identity.HostKey(bytes(32), bytes(32))
        contents = self._blank.fill(one.name, one.port, one.machine_id, key)
        owned = dict(self._entries)
        for path, content in zip(self._blank.paths, contents, strict=True):
            entry = owned.get(path)
            if isinstance(entry, File):
                owned[path] = replace(entry, content=content)
        return owned
