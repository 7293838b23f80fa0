"""A root filesystem as a value: an immutable, sorted sequence of entries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import ProblemsError
from pipeline.paths import PathError, relative

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Of the setuid, setgid and sticky bits only sticky may stand in an image: see docs/security.md.
MODE_MASK = 0o1777
MAX_ID = 65535  # an instance's user range is 65536 wide
# limits.h: what Linux takes as one name, and as a whole path or a link's target, in bytes
NAME_MAX = 255
PATH_MAX = 4095


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory; *path* is relative to the root and has no leading slash."""

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file with all of its content."""

    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @property
    def sha256(self) -> str:
        """Hex digest of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink:
    """A symbolic link; an absolute *target* starts at the image's root."""

    path: str
    target: str
    uid: int = 0
    gid: int = 0

    @property
    def mode(self) -> int:
        """Links have no mode of their own on Linux (symlink(7))."""
        return 0o777


Entry = Directory | File | Symlink


class RootfsError(ProblemsError):
    """Entries that do not make a root filesystem; each problem is one line."""


@dataclass(frozen=True, slots=True)
class Rootfs:
    """Entries sorted by path, parents first; made by `Rootfs.of`, which checks them.

    The root directory itself is no entry: it is always 0755 root:root.
    """

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Rootfs:
        """A root filesystem of *entries* in any order.

        Raises RootfsError with every duplicate, escaping path, missing or wrong parent, link out
        of the root, and impossible mode or owner.
        """
        ordered = tuple(sorted(entries, key=lambda entry: entry.path.split("/")))
        problems = [*_path_problems(ordered), *_parent_problems(ordered), *_field_problems(ordered)]
        if problems:
            raise RootfsError("this is not a root filesystem:", problems)
        return cls(ordered)

    def __iter__(self) -> Iterator[Entry]:
        """Entries in order: every directory before what is in it."""
        return iter(self.entries)

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self.entries)

    def find(self, path: str) -> Entry | None:
        """The entry at exactly *path* (links are not followed)."""
        return next((entry for entry in self.entries if entry.path == path), None)

    def resolve(self, path: str) -> Entry | None:
        """The entry that *path* leads to, links followed inside the root (path_resolution(7)).

        None if there is nothing, or after 40 links, as the kernel does.
        """
        table = {entry.path: entry for entry in self.entries}
        todo = path.split("/")[::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if done and not isinstance(table["/".join(done)], Directory):
                return None  # even `file/.` and `file/..` are ENOTDIR
            if part in ("", "."):
                continue
            if part == "..":
                done = done[:-1]  # the root's parent is the root
                continue
            entry = table.get("/".join([*done, part]))
            if isinstance(entry, Symlink):
                links += 1
                if links > 40:
                    return None
                done = [] if entry.target.startswith("/") else done
                todo += entry.target.split("/")[::-1]
            elif entry is None:
                return None
            else:
                done.append(part)
        return table.get("/".join(done))

    @property
    def digest(self) -> str:
        """Hex sha256 that says whether two images are equal: of all entries, not of an archive.

        The time stamps and compression of an archive do not enter; see docs/image.md.
        """
        total = hashlib.sha256()
        for entry in self.entries:
            match entry:
                case Directory():
                    kind, rest = "d", ""
                case File():
                    kind, rest = "f", entry.sha256
                case Symlink():
                    kind, rest = "l", entry.target
            fields = (kind, entry.path, f"{entry.mode:04o}", str(entry.uid), str(entry.gid), rest)
            total.update("\0".join(fields).encode() + b"\n")
        return total.hexdigest()


def settled(path: str, links: Mapping[str, str]) -> str:
    """Where *path* is once the links of its directories are followed (path_resolution(7)).

    *links* are those of a root, path and target; what is not among them is taken for a directory
    or absent. The last part is not followed. After 40 links: as far as that came.
    """
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    done: list[str] = []
    left = 40  # as the kernel has it
    while todo:
        part = todo.pop()
        if part == "..":
            done = done[:-1]
            continue
        done.append(part)
        target = links.get("/".join(done))
        if todo and target is not None and left:
            left -= 1
            done = [] if target.startswith("/") else done[:-1]
            todo += [part for part in target.split("/") if part not in ("", ".")][::-1]
    return "/".join(done)


def _path_problems(entries: tuple[Entry, ...]) -> Iterator[str]:
    before = None
    for entry in entries:
        try:
            relative(entry.path)
        except PathError as error:
            yield error.message
        shown = printable(entry.path)
        if shown != entry.path:
            yield f"{shown}: characters that cannot be printed"
        if _bytes(entry.path) > PATH_MAX or any(
            _bytes(part) > NAME_MAX for part in entry.path.split("/")
        ):
            yield f"{shown[:60]}...: longer than {NAME_MAX} bytes a name, {PATH_MAX} in all"
        if entry.path == before:
            yield f"{shown}: stands there twice"
        before = entry.path


def printable(text: str) -> str:
    """*text* as it may stand in a message: hostile names must not reach a terminal."""
    return text if text.isprintable() else repr(text)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _parent_problems(entries: tuple[Entry, ...]) -> Iterator[str]:
    kinds = {entry.path: entry for entry in entries}
    for entry in entries:
        parent = entry.path.rpartition("/")[0]
        if not parent:
            continue
        shown, above = printable(entry.path), printable(parent)
        if parent not in kinds:
            yield f"{shown}: its parent {above} is missing"
        elif not isinstance(kinds[parent], Directory):
            yield f"{shown}: its parent {above} is not a directory"


def _field_problems(entries: tuple[Entry, ...]) -> Iterator[str]:
    links = {entry.path for entry in entries if isinstance(entry, Symlink)}
    for entry in entries:
        shown = printable(entry.path)
        if not isinstance(entry, Symlink) and entry.mode & ~MODE_MASK:
            yield f"{shown}: mode {entry.mode:o} has bits outside {MODE_MASK:o} (setuid?)"
        if not (0 <= entry.uid <= MAX_ID and 0 <= entry.gid <= MAX_ID):
            yield f"{shown}: owner {entry.uid}:{entry.gid} is outside 0-{MAX_ID}"
        if isinstance(entry, Symlink) and (problem := _link_problem(entry, links)):
            yield f"{shown}: {problem}"


def _link_problem(link: Symlink, links: set[str]) -> str | None:
    """Why the target is refused: it must not climb above the root.

    `..` behind another link is refused too: where that leads cannot be seen in the names, and a
    link to a shallower place makes it a way out.
    """
    if not link.target or not link.target.isprintable():
        return f"link target {link.target!r} is empty or cannot be printed"
    if _bytes(link.target) > PATH_MAX:
        return f"link target {link.target[:60]}... is longer than {PATH_MAX} bytes"
    # absolute targets start at the image's root
    done = [] if link.target.startswith("/") else link.path.split("/")[:-1]
    through_link = False
    for part in link.target.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if through_link or not done:
                return f"link target {link.target} leaves the root, or may"
            done.pop()
        else:
            done.append(part)
            through_link = through_link or "/".join(done) in links
    return None
