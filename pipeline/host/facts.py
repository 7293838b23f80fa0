"""What is so on this host before a deploy: read once, so that a plan is a pure function of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.host import clients, sockets, state
from pipeline.host.layout import LayoutError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.host.layout import Layout
    from pipeline.host.state import Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A file system's room for the current user; *inodes* is None where they are not counted.

    *directory* is what an empty directory takes, in bytes.
    """

    free: int
    block: int
    inodes: int | None
    directory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubordinateIds:
    """A range that a user of this host may give to containers of his own (subuid(5))."""

    owner: str
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything a plan asks for.

    *instances*: in the state. *roots*: names below the prefix that begin with `nifty`, whatever
    they are. *listening*: TCP ports. *ephemeral*: the range the kernel gives to outgoing
    connections. *images*: digests stored here. *leftovers*: names in `new`, dead if the lock is
    ours. *lists_current*: known_hosts and ssh_config say what the state says. *has_fleet_key*:
    a key for the fleet was made before.
    """

    instances: tuple[Instance, ...] = ()
    roots: frozenset[str] = frozenset()
    listening: frozenset[int] = frozenset()
    ephemeral: tuple[int, int] = (32768, 60999)
    space: Space
    images: frozenset[str] = frozenset()
    leftovers: tuple[str, ...] = ()
    lists_current: bool = True
    has_fleet_key: bool = False
    is_root: bool = True
    subordinate: tuple[SubordinateIds, ...] = ()


def gather(layout: Layout) -> Facts:
    """The facts of this host; changes nothing. Raises StateError, or LayoutError with the path."""
    instances = state.read_all(layout)
    try:
        return Facts(
            instances=instances,
            roots=roots(layout),
            listening=frozenset(sockets.listening() or ()),
            ephemeral=_ephemeral(),
            space=_space(layout),
            images=frozenset(
                name.removesuffix(".json")
                for name in _names(layout.images)
                if name.endswith(".json")
            ),
            leftovers=tuple(sorted(_names(layout.new))),
            lists_current=not (instances or layout.known_hosts.exists())
            or clients.are_current(layout, instances),
            has_fleet_key=layout.fleet_key.is_file(),
            is_root=os.geteuid() == 0,
            subordinate=tuple(_subordinate()),
        )
    except OSError as error:
        raise LayoutError(f"{error.filename}: {error.strerror}") from error


def roots(layout: Layout) -> frozenset[str]:
    """Names below the prefix that an instance could have."""
    return frozenset(name for name in _names(layout.prefix) if name.startswith("nifty"))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (bare names, ten times as fast)
    except FileNotFoundError:
        return []
    except PermissionError:
        # only `new` is closed; a dry run of somebody else is still worth having
        return []


def _ephemeral() -> tuple[int, int]:
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(low), int(high)


def _space(layout: Layout) -> Space:
    room = os.statvfs(layout.prefix)
    sample = layout.new if layout.new.exists() else layout.prefix
    return Space(
        free=room.f_bavail * room.f_frsize,
        block=room.f_frsize,
        # btrfs and others make inodes as they go and say 0 of 0
        inodes=room.f_favail if room.f_files else None,
        # none on tmpfs, and on xfs for a small one: it lies in the inode
        directory=min(sample.stat().st_blocks * 512, room.f_frsize),
    )


def _subordinate() -> Iterable[SubordinateIds]:
    seen = set()
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            owner, first, count, *_rest = [*line.split(":"), "", "", ""]
            if first.isdecimal() and count.isdecimal():
                seen.add((owner, int(first), int(count)))
    return [
        SubordinateIds(owner=owner, first=first, count=count)
        for owner, first, count in sorted(seen)
    ]
