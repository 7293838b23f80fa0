"""What runs in a unit's control group, and how much memory that has (cgroups(7))."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS = Path("/sys/fs/cgroup")


class Source(Enum):
    """Where a figure for memory comes from.

    CGROUP is memory.current: all that is charged to the group, kernel memory and page cache, too.
    PSS is the sum over its processes (proc_pid_smaps(5)): a page shared by n counts 1/n, kernel
    memory not at all. It stands in where the memory controller is missing.
    """

    CGROUP = "cgroup"
    PSS = "pss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How much memory something has, in bytes, and what was counted."""

    size: int
    source: Source


def hierarchy(mounted: Path = CGROUPS) -> Path:
    """The directory in which systemd keeps its groups: unified, hybrid or legacy."""
    if (mounted / "cgroup.controllers").exists():
        return mounted
    unified = mounted / "unified"
    return unified if (unified / "cgroup.controllers").exists() else mounted / "systemd"


def processes(group: Path) -> tuple[int, ...]:
    """Everything that runs in *group* and below; empty if there is no such group."""
    return tuple(_processes(group))


def memory(group: Path) -> Memory | None:
    """The memory of *group*; None if there is no such group, or we may not look (not root)."""
    with suppress(OSError):
        return Memory(size=int((group / "memory.current").read_bytes()), source=Source.CGROUP)
    size = pss(group)
    return Memory(size=size, source=Source.PSS) if size else None


def pss(group: Path) -> int:
    """The PSS of all that runs in *group*, in bytes; 0 if nothing does, or we may not look."""
    return sum(map(_pss, _processes(group)))


def _processes(group: Path) -> Iterator[int]:
    for directory, _, _ in os.walk(group):
        with suppress(OSError):  # gone while we look
            yield from map(int, Path(directory, "cgroup.procs").read_bytes().split())


def _pss(process: int) -> int:
    with suppress(OSError):  # ended while we look, or somebody else's
        for line in Path(f"/proc/{process}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0
