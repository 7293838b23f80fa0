"""Whose /etc/resolv.conf is not the host's any more: a running instance keeps the one it had.

The file is bound when an instance starts. NetworkManager, dhclient and resolvconf do not write
into it, they put another in its place, and a mount of a file keeps the old one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import some
from pipeline.host.doctor.rows import Row, Status
from pipeline.host.doctor.site import Place, mounts_of
from pipeline.host.units import cgroup
from pipeline.host.units.unit_files import group_of
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.host.doctor.site import Mount
    from pipeline.host.state.records import Instance

RESOLVER = "/etc/resolv.conf"
_NAMED = 20


def resolver_row(running: Iterable[Instance]) -> Row | None:
    """Which of *running* have another resolver than this host has now; None if nothing runs."""
    there = tuple(running)
    if not there:
        return None
    now = _of_host(Path("/proc/self/mountinfo"))
    old = [one for one in there if now is not None and _is_older(one, now)]
    names = [one.name for one in old]
    chosen = ",".join(one.suffix or one.name for one in old)
    return Row(
        name="resolver of instances",
        found=f"older in {some(names)}" if old else "the host's",
        needed="the host's",
        status=Status.WARN if old else Status.OK,
        why=f"{RESOLVER} was replaced since they started: names may not be found inside",
        todo=to_type(f"restart{f' names={chosen}' if len(old) <= _NAMED else ''}") if old else "",
    )


def _is_older(instance: Instance, now: Place) -> bool:
    outer = Path("/proc/self/ns/mnt").readlink()
    for process in cgroup.processes(cgroup.hierarchy() / group_of(instance)):
        with suppress(OSError):  # ended while we look
            if Path(f"/proc/{process}/ns/mnt").readlink() == outer:
                continue  # systemd-nspawn itself
            mounts = _mounts(Path(f"/proc/{process}/mountinfo"))
            return _at(mounts, RESOLVER) != now
    return False


def _of_host(table: Path, resolver: str = RESOLVER) -> Place | None:
    """Where the host's file is now, by its list of mounts; None if it has none."""
    real = os.path.realpath(resolver)
    if not Path(real).is_file():
        return None
    found = None
    for mount in _mounts(table):
        if Path(real).is_relative_to(mount.point):
            inner = os.path.relpath(real, mount.point)
            above = mount.place.path
            path = above if inner == "." else f"{above.rstrip('/')}/{inner}"
            # the longest, and of those the last, lies on top
            depth = len(mount.point.parts)
            if found is None or depth >= found[0]:
                found = (depth, Place(mount.place.device, path))
    return found[1] if found else None


def _at(mounts: Sequence[Mount], point: str) -> Place | None:
    """What was mounted last at *point*."""
    return next((one.place for one in reversed(mounts) if one.point == Path(point)), None)


def _mounts(table: Path) -> tuple[Mount, ...]:
    return mounts_of(table.read_text(encoding="utf-8", errors="replace"))
