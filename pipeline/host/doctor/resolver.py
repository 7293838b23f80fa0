"""Whose /etc/resolv.conf is not the host's any more: a running instance keeps the one it had.

The file is bound when an instance starts. NetworkManager, dhclient and resolvconf do not write
into it, they put another in its place, and a mount of a file keeps the old one.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import some
from pipeline.host.doctor.rows import Row, Status
from pipeline.host.units import cgroup
from pipeline.host.units.unit_files import group_of
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.host.state.records import Instance

RESOLVER = "/etc/resolv.conf"
_NAMED = 20


@dataclass(frozen=True, slots=True)
class _Place:
    """A file as the kernel has it in its list of mounts: *path* within the file system *device*."""

    device: str
    path: str


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


def _is_older(instance: Instance, now: _Place) -> bool:
    outer = Path("/proc/self/ns/mnt").readlink()
    for process in cgroup.processes(cgroup.hierarchy() / group_of(instance)):
        with suppress(OSError):  # ended while we look
            if Path(f"/proc/{process}/ns/mnt").readlink() == outer:
                continue  # systemd-nspawn itself
            mounts = _mounts(Path(f"/proc/{process}/mountinfo"))
            return _at(mounts, RESOLVER) != now
    return False


def _of_host(table: Path, resolver: str = RESOLVER) -> _Place | None:
    """Where the host's file is now, by its list of mounts; None if it has none."""
    real = os.path.realpath(resolver)
    if not Path(real).is_file():
        return None
    found = None
    for point, place in _mounts(table):
        if Path(real).is_relative_to(point):
            inner = os.path.relpath(real, point)
            path = place.path if inner == "." else f"{place.path.rstrip('/')}/{inner}"
            # the longest, and of those the last, lies on top
            if found is None or len(point) >= found[0]:
                found = (len(point), _Place(place.device, path))
    return found[1] if found else None


def _at(mounts: Sequence[tuple[str, _Place]], point: str) -> _Place | None:
    """What was mounted last at *point*."""
    return next((place for where, place in reversed(mounts) if where == point), None)


def _mounts(table: Path) -> list[tuple[str, _Place]]:
    """Mount points and what lies there (proc_pid_mountinfo(5)); gone files end in `//deleted`."""
    found = []
    for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split(" ")
        if len(words) > 5:
            path, point = (
                re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)
                for word in words[3:5]
            )
            found.append((point, _Place(words[2], path)))
    return found
