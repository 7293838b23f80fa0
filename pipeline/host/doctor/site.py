"""Where instances go and what they share with all others of a host: room, ports, user numbers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.host.roots import quota
from pipeline.host.state import layout
from pipeline.host.units import sockets
from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Place:
    """What the kernel says is mounted: *path* within the file system *device*, as `8:1`."""

    device: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of a list of mounts (proc_pid_mountinfo(5)); gone files end in `//deleted`."""

    point: Path
    kind: str
    options: frozenset[str]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRange:
    """Numbers *start* … *start* + *count* - 1 of *file* belong to *owner*."""

    owner: str
    start: int
    count: int
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixFacts:
    """The directory instances go to; *free_inodes* is None where inodes are made as needed.

    *fault*: why nothing can be made there, and what to do. *block* and *directory*: bytes that the
    smallest file and an empty directory take. *quota*: how directories there could be bounded.
    """

    path: Path
    exists: bool
    fault: tuple[str, str] | None = None
    mount: Mount | None = None
    free_bytes: int = 0
    free_inodes: int | None = None
    block: int = 4096
    directory: int = 4096
    quota: quota.Ability = quota.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What was read; None is what could not be read.

    *listening*: TCP ports, each with the user numbers of who listens. *ephemeral*: the range the
    kernel gives to outgoing connections. *open_ports*: the first port that needs no
    CAP_NET_BIND_SERVICE (ip_unprivileged_port_start in Documentation/networking/ip-sysctl.rst).
    *projects*: numbers in projid(5) and projects(5).
    """

    prefix: PrefixFacts
    listening: Mapping[int, frozenset[int]] | None = None
    ephemeral: tuple[int, int] | None = None
    open_ports: int = 1024
    user_ranges: tuple[UserRange, ...] = ()
    projects: frozenset[int] = frozenset()
    mounts: int | None = None


def read(root: Path = Path("/"), *, prefix: Path = Path("/home")) -> Site:
    """The site of the host whose file tree is *root*, with the user's rights; runs no program."""
    mounts = mounts_of(text(root, "proc/self/mountinfo"))
    return Site(
        prefix=_prefix(root, prefix, mounts),
        listening=sockets.listening(root),
        ephemeral=_pair(text(root, "proc/sys/net/ipv4/ip_local_port_range")),
        open_ports=_first_open(text(root, "proc/sys/net/ipv4/ip_unprivileged_port_start")),
        user_ranges=tuple(_user_ranges(root)),
        projects=frozenset(_projects(root)),
        mounts=len(mounts) or None,
    )


def text(root: Path, name: str) -> str:
    """The file *name* below *root*; empty if it cannot be read."""
    try:
        return beneath(root, name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _pair(text: str) -> tuple[int, int] | None:
    words = text.split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def _first_open(text: str) -> int:
    # kernels before 4.11 have no such setting
    return int(text) if text.strip().isdecimal() else 1024


def mounts_of(table: str) -> tuple[Mount, ...]:
    """The lines of a mountinfo, in the order in which they were mounted."""
    found = []
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        words, ends = left.split(" "), right.split(" ")
        if len(words) < 6 or len(ends) < 3:
            continue
        # blanks in names are written as \040 (proc_pid_mountinfo(5))
        path, point = (
            re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)
            for word in words[3:5]
        )
        options = frozenset(words[5].split(",")) | frozenset(ends[2].split(","))
        place = Place(words[2], path)
        found.append(Mount(point=Path(point), kind=ends[0], options=options, place=place))
    return tuple(found)


def _prefix(root: Path, prefix: Path, mounts: tuple[Mount, ...]) -> PrefixFacts:
    path = root / prefix.relative_to("/")
    # where links on the way lead, what the kernel has in its list
    real = Path(os.path.normpath(f"/{os.path.relpath(os.path.realpath(path), root.resolve())}"))
    # the last mount of the longest path wins: what was mounted later lies on top
    above = [mount for mount in mounts if real.is_relative_to(mount.point)]
    mount = max(reversed(above), key=lambda one: len(one.point.parts), default=None)
    fault = layout.fault(path)
    told = None if fault is None else (fault.message, fault.hint or "")
    try:
        room, facts, bound = os.statvfs(path), _sample(path).stat(), quota.ability(path)
    except OSError:
        return PrefixFacts(path=prefix, exists=False, fault=told, mount=mount)
    return PrefixFacts(
        path=prefix,
        exists=True,
        fault=told,
        mount=mount,
        free_bytes=room.f_bavail * room.f_frsize,
        # btrfs and others make inodes as they go and say 0 of 0
        free_inodes=room.f_favail if room.f_files else None,
        block=room.f_frsize,
        # none on tmpfs, and on xfs for a small one: it lies in the inode
        directory=min(facts.st_blocks * 512, room.f_frsize),
        quota=bound,
    )


def _sample(prefix: Path) -> Path:
    new = layout.Layout(prefix).new
    return new if new.exists() else prefix


def _user_ranges(root: Path) -> Iterator[UserRange]:
    """subuid(5), subgid(5), and every account above the system's own numbers."""
    for name in ("etc/subuid", "etc/subgid"):
        for line in text(root, name).splitlines():
            owner, *numbers = line.strip().split(":")
            if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
                start, count = map(int, numbers)
                yield UserRange(owner=owner, start=start, count=count, file=f"/{name}")
    for name in ("etc/passwd", "etc/group"):
        for line in text(root, name).splitlines():
            words = line.split(":")
            if len(words) > 2 and words[2].isdecimal():
                yield UserRange(owner=words[0], start=int(words[2]), count=1, file=f"/{name}")


def _projects(root: Path) -> Iterator[int]:
    """Lines are `name:number` in projid(5), `number:path` in projects(5)."""
    for name, place in (("etc/projid", 1), ("etc/projects", 0)):
        for line in text(root, name).splitlines():
            words = [word.strip() for word in line.split(":")]
            if len(words) > place and words[place].isdecimal():
                yield int(words[place])
