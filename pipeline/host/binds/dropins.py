"""What this host gives to the drop-ins of an image: libraries and data, bound read-only.

An image says what its programs need (`needs` in the manifest); where that lies is this host's
business, and is worked out anew whenever an environment is written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pipeline import libraries
from pipeline.errors import NiftyError
from pipeline.host.binds.rules import Bind, refusal
from pipeline.image.manifest import DropinRecord, ProgramRecord
from pipeline.image.rootfs import Directory, File, Symlink, settled
from pipeline.libraries import LibraryRoot, requirements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pipeline.image.manifest import EntryRecord, Manifest
    from pipeline.image.rootfs import Entry
    from pipeline.libraries import Closure, Link, Needs

# Read by ld.so where a library lies in no directory that it searches anyway; instances have none.
CACHE = "/etc/ld.so.cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What an instance gets of its host: *binds*, and the mount points and links of its own root.

    *problems* are the reasons, a line each, why something would not start here.
    """

    binds: tuple[Bind, ...] = ()
    entries: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = ()


def bound(manifest: Manifest, root: LibraryRoot | None = None) -> Bound:
    """What the host below *root* (None: this one, as its own ld.so sees it) gives to an image.

    Among the problems are directories that an image may not ask for. Raises LibraryError for a
    manifest whose needs are not of the form that this program writes.
    """
    refused = tuple(
        why
        for record in manifest.needs.binds
        if (why := refusal(Bind(source=record.source, target=f"/{record.target}")))
    )
    records = [record for record in manifest.dropins if record.libraries == "bind"]
    if not records:
        return Bound(problems=refused)
    host = libraries.this_host() if root is None else root
    wanted = [
        requirements.from_json(program.needs) for record in records for program in record.programs
    ]
    found = _Search(host, _Image.of(manifest)).bound(wanted, records)
    return replace(found, problems=(*refused, *found.problems))


def would_give(
    manifest: Manifest, target: str, closure: Closure, root: LibraryRoot | None = None
) -> Bound:
    """What *root* would give to the image if *closure*'s program were its drop-in *target*.

    A script's interpreter is the image's own where it has one at that path.
    """
    image = _Image.of(manifest)
    programs = []
    for each in (closure, *closure.launchers):
        if each.program is None or each.libc is None:
            continue
        path = each.program.path
        if not closure.scripts or image.place(path) not in image.entries:
            needs = libraries.needs(each, program=PurePosixPath(path))
            programs.append(ProgramRecord(path=path.lstrip("/"), needs=requirements.as_json(needs)))
    record = DropinRecord(target=target, libraries="bind", programs=tuple(programs))
    given = bound(manifest.model_copy(update={"dropins": (record,)}), root)
    machine = closure.program.facts.machine if closure.program else None
    if machine not in (None, manifest.needs.architecture):
        other = f"{closure.binary}: is for {machine}, the image for {manifest.needs.architecture}"
        return replace(given, problems=(other, *given.problems))
    if closure.program is None:
        return replace(given, problems=tuple(map(str, closure.problems)))
    return given


@dataclass(frozen=True, slots=True)
class _Image:
    """Where things lie in an image's root."""

    entries: Mapping[str, EntryRecord]
    links: Mapping[str, str]

    @classmethod
    def of(cls, manifest: Manifest) -> _Image:
        entries = {entry.path: entry for entry in manifest.entries}
        links = {path: entry.target for path, entry in entries.items() if entry.target is not None}
        return cls(entries, links)

    def place(self, path: PurePosixPath | str) -> str:
        return settled(str(path), self.links)


class _Search:
    """Collects what one image needs of *host*."""

    def __init__(self, host: LibraryRoot, image: _Image) -> None:
        self._host, self._image = host, image
        # without the host's ld.so.cache, which an instance does not have
        self._bare = LibraryRoot(path=host.path, hwcaps=host.hwcaps, has_ldconfig=False)
        self._entries: dict[str, Entry] = {}
        self._sources: dict[str, str] = {}
        self._problems: dict[str, None] = {}

    def bound(self, wanted: Iterable[Needs], records: Iterable[DropinRecord]) -> Bound:
        closures: list[Closure] = []
        needs_cache = False
        for needs in wanted:
            closure = libraries.resolve_needs(needs, self._host)
            self._problems |= dict.fromkeys(map(str, closure.problems))
            closures.append(closure)
            bare = libraries.resolve_needs(needs, self._bare)
            needs_cache = needs_cache or _files(bare) != _files(closure)
        data = dict.fromkeys((record.target, path) for record in records for path in record.data)
        for target, path in data:
            for plugin in self._data(target, path):
                closures.append(plugin)
                bare = libraries.closure(PurePosixPath(plugin.binary), self._bare)
                needs_cache = needs_cache or _files(bare) != _files(plugin)
        found = libraries.binding(*closures)
        for file in (*found.directories, *found.files):
            self._bind(str(file), str(file))
        self._link(found.links)
        if needs_cache:
            self._bind(CACHE, CACHE)
        return Bound(
            binds=tuple(
                Bind(source=source, target=f"/{place}") for place, source in self._outermost()
            ),
            entries=tuple(self._entries[path] for path in sorted(self._entries)),
            problems=tuple(self._problems),
        )

    def _data(self, target: str, path: str) -> Iterator[Closure]:
        """Bind a data file or directory; the closures of ELF files in it."""
        located = self._host.locate(path)
        if located is None:
            self._problems[f"{target}: {path}: not on this host"] = None
            return
        if not self._bind(str(located.file), str(located.file)):
            return  # nor looked at: an image may name all of /
        self._link(located.links)
        top = self._host.outside(located.file)
        folders = [(top.parent, [top.name])] if located.is_regular else _walk(top)
        for folder, names in folders:
            for name in names:
                if _is_elf(folder / name):
                    inside = PurePosixPath("/", (folder / name).relative_to(self._host.path))
                    try:
                        yield libraries.closure(inside, self._host)
                    except NiftyError:
                        continue  # an object file, debug information: nothing that is loaded

    def _bind(self, source: str, path: str) -> bool:
        """Bind *source* at *path*, or tell why not; whether it is bound."""
        place = self._image.place(path)
        if place in self._sources and self._sources[place] != source:
            self._problems[
                f"{source} and {self._sources[place]} would both lie at /{place} of the image"
            ] = None
        elif why := refusal(Bind(source=source, target=f"/{place}")):
            self._problems[why] = None
        elif place.startswith("cbin/") or self._is_occupied(place):
            self._problems[f"{source}: the image has /{place} itself"] = None
        else:
            self._sources[place] = source
            return True
        return False

    def _is_occupied(self, place: str) -> bool:
        entry = self._image.entries.get(place)
        below = any(path.startswith(f"{place}/") for path in self._image.entries)
        return below or (entry is not None and entry.kind != "directory")

    def _outermost(self) -> Iterator[tuple[str, str]]:
        """Binds that do not lie in another one, and their mount points."""
        for place in sorted(self._sources):
            above = ("/".join(place.split("/")[:n]) for n in range(1, place.count("/") + 1))
            if any(self._sources.get(folder) for folder in above):
                continue
            source = self._sources[place]
            is_file = self._host.outside(PurePosixPath(source)).is_file()
            self._put(File(path=place, content=b"") if is_file else Directory(path=place))
            yield place, source

    def _link(self, links: Iterable[Link]) -> None:
        for link in links:
            self._put(Symlink(path=self._image.place(link.path), target=link.target))

    def _put(self, entry: Entry) -> None:
        """*entry* and the directories above it; the image's own stay as they are."""
        parts = entry.path.split("/")
        for size in range(1, len(parts)):
            path = "/".join(parts[:size])
            if path not in self._image.entries:
                self._entries.setdefault(path, Directory(path=path))
        if entry.path not in self._image.entries:
            self._entries.setdefault(entry.path, entry)


def _files(closure: Closure) -> frozenset[PurePosixPath]:
    return frozenset(each.file for each in closure.files())


def _walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, _folders, names in os.walk(top):
        yield Path(folder), sorted(names)


def _is_elf(path: Path) -> bool:
    try:
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(4) == b"\x7fELF"
    except OSError:
        return False
