"""What is laid over an image: shared files below /cbin/dropin, and links that lead there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.image.rootfs import Directory, File, Symlink, printable, settled
from pipeline.paths import beneath

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.image.rootfs import Entry, Rootfs

SHARED = "cbin/dropin"


class Layer:
    """Entries added to *base*; what *base* has stays as it is.

    A path of *base* that does not exist becomes a link into SHARED, as high up as possible, so that
    an instance's own root has few entries, however much is taken.
    """

    def __init__(self, base: Rootfs) -> None:
        self._base = {entry.path: entry for entry in base}
        self._links = {entry.path: entry.target for entry in base if isinstance(entry, Symlink)}
        self._added: dict[str, Entry] = {}
        self._conflicts: dict[str, None] = {}

    @property
    def conflicts(self) -> tuple[str, ...]:
        """Places that two things were put to."""
        return tuple(self._conflicts)

    def entries(self) -> tuple[Entry, ...]:
        """What was added; parents may be missing."""
        return tuple(self._added.values())

    def place(self, path: str) -> str:
        """Where *path*, with or without a slash before it, lies in the image."""
        return settled(path, self._links)

    def has_own(self, path: str) -> bool:
        """Whether the base has something at *path*."""
        return self.place(path) in self._base

    def content(self, place: str) -> bytes:
        """The content of a file that was added; nothing for anything else."""
        entry = self._added.get(place)
        return entry.content if isinstance(entry, File) else b""

    def put(self, entry: Entry) -> str:
        """Add *entry*, whose path is a `place`; where it lies in the end."""
        path = entry.path
        if path in self._base:
            if entry != self._base[path] and not isinstance(entry, Directory):
                self._conflicts[f"/{printable(path)}: the image has one of its own"] = None
            return path
        first = self._first_missing(path)
        if path.startswith("cbin/") or (first == path and isinstance(entry, Symlink)):
            return self._add(entry, path)
        self._add(Symlink(path=first, target=f"/{SHARED}/{first}"), first)
        return self._add(entry, f"{SHARED}/{path}")

    def _first_missing(self, path: str) -> str:
        parts = path.split("/")
        names = ("/".join(parts[: n + 1]) for n in range(len(parts)))
        return next(name for name in names if name not in self._base)

    def _add(self, entry: Entry, path: str) -> str:
        moved = _at(entry, path)
        there = self._added.setdefault(path, moved)
        if there != moved and not isinstance(moved, Directory):
            self._conflicts[f"/{printable(path)}: two drop-ins bring something else there"] = None
        return path

    def write_programs(self, folder: Path) -> None:
        """The image below *folder* as far as ld.so and the kernel look at it."""
        everything = {**self._base, **self._added}
        for path in sorted(everything):
            entry = everything[path]
            is_needed = not isinstance(entry, File) or entry.content.startswith((b"\x7fELF", b"#!"))
            if not is_needed:
                continue
            place = beneath(folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            match entry:
                case Directory():
                    place.mkdir(exist_ok=True)
                case Symlink():
                    place.symlink_to(entry.target)
                case File():
                    place.write_bytes(entry.content)


def _at(entry: Entry, path: str) -> Entry:
    match entry:
        case Directory():
            return Directory(path=path, mode=entry.mode)
        case Symlink():
            return Symlink(path=path, target=entry.target)
        case File():
            return File(path=path, content=entry.content, mode=entry.mode)
