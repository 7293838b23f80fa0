"""Reads a backup once, from end to end, before it is decided what to do with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.host.backup import inventory
from pipeline.host.backup.parcel import Kind, Member
from pipeline.host.doctor import site
from pipeline.host.roots import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.host.backup.inventory import Inventory
    from pipeline.host.backup.sections import Backup
    from pipeline.host.doctor.site import PrefixFacts
    from pipeline.host.roots.images import Image
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance, Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for: *choose* picks some of the instances of a backup.

    *runner*, *boot* and *disk* None: as recorded. *host_users*: those that share the host's users
    may.
    """

    choose: Callable[[Sequence[Instance]], tuple[Instance, ...]]
    runner: Runner | None = None
    boot: bool | None = None
    disk: int | None = None
    host_users: bool = False


@dataclass(slots=True)
class Room:
    """What instances take on a disk, in *size* bytes and *inodes*."""

    size: int = 0
    inodes: int = 0


class Scan:
    """Reads all of a backup once: what is in it, and what of that cannot be."""

    def __init__(self, chosen: Sequence[Instance], space: PrefixFacts) -> None:
        self._names = {one.name for one in chosen}
        self._needed = set(inventory.used(chosen))
        self._space = space
        self._room = Room()
        self.images: dict[str, Image] = {}
        self.refused: dict[str, str] = {}
        self.secret: bytes | None = None
        self.rooms: dict[str, Room] = {}
        self.attributed = False

    def image(self, digest: str, archive: bytes) -> None:
        """Unpack one that is needed, or say why it is refused."""
        if digest not in self._needed:
            return
        try:
            image = images.unpacked(archive, name=f"image {digest[:12]}")
        except NiftyError as error:
            self.refused[digest] = error.message
            return
        if image.digest != digest:
            self.refused[digest] = f"image {digest[:12]}: holds another, {image.digest[:12]}"
            return
        self.images[digest] = image

    def key(self, text: bytes) -> None:
        """Remember it."""
        self.secret = text

    def begin(self, one: Instance) -> None:
        """Count from nothing."""
        # its state, and the directory that it is renamed from
        self._room = Room(self._space.block, 1)
        if one.name in self._names:
            self.rooms[one.name] = self._room

    def member(self, member: Member, _parts: list[bytes], _content: Iterator[bytes]) -> None:
        """Count what it takes."""
        room, block = self._room, self._space.block
        if member.kind is Kind.DIRECTORY:
            room.size += self._space.directory
        extents = member.extents or ((0, member.size),)
        room.size += sum(-(-size // block) * block for _offset, size in extents)
        room.inodes += member.kind is not Kind.HARD_LINK
        self.attributed = self.attributed or bool(member.attributes)

    def end(self, _one: Instance) -> None:
        """Nothing is left to be done for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A backup that was read to its end and is whole; *chosen* are those that the user means."""

    listed: Inventory
    chosen: tuple[Instance, ...]
    scan: Scan
    seal: str
    wish: Wish
    typed: tuple[str, ...] = ()


def scan(backup: Backup, layout: Layout, wish: Wish, *, typed: tuple[str, ...] = ()) -> Scanned:
    """Read all of *backup*; *typed* are the variables of the command line.

    Raises RestoreError for a file that is no whole backup.
    """
    listed = backup.inventory()
    chosen = wish.choose(listed.instances)
    found = Scan(chosen, site.read(prefix=layout.prefix).prefix)
    seal = backup.read(found, "check")
    return Scanned(listed=listed, chosen=chosen, scan=found, seal=seal, wish=wish, typed=typed)
