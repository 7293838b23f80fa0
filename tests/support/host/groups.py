"""Control groups of the test machine, on unified, hybrid and legacy hosts (cgroups(7))."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def hierarchies() -> tuple[Path, ...]:
    """Where cgroup2 is mounted (first), and, on a legacy host, name=systemd and pids."""
    unified, legacy = [], []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            unified.append(Path(left.split(" ")[4]))
        elif kind == "cgroup" and {"name=systemd", "pids"} & set(options.split(",")):
            legacy.append(Path(left.split(" ")[4]))
    return (*unified[:1], *legacy) if unified else ()


def limit_tasks(groups: tuple[Path, ...]) -> None:
    """Hold *groups* to three quarters of the host's process numbers, where pids is available."""
    limit = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii")) * 3 // 4
    # Hand on what the unified hierarchy has: the machine's systemd then limits its units, too.
    for controller in ("cpu", "io", "memory", "pids"):
        with suppress(OSError):  # used by a legacy hierarchy, or refused to this cgroup namespace
            (groups[0].parent / "cgroup.subtree_control").write_text(f"+{controller}")
    for group in groups:
        with suppress(OSError):
            (group / "pids.max").write_text(str(limit))


def groups_of(leader: int) -> tuple[Path, ...]:
    """A new group beside systemd's own for entering processes, and the leader's legacy groups."""
    paths = {}
    for line in Path(f"/proc/{leader}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path.lstrip("/")
    unified, *legacy = hierarchies()
    entered = unified / Path(paths[""]).parent / "entered"
    if "payload" not in entered.parts:
        raise OSError("systemd has not moved itself yet")
    entered.mkdir(exist_ok=True)
    named = {name: path for key, path in paths.items() for name in key.split(",")}
    return (
        entered,
        *(top / named["name=systemd" if top.name == "systemd" else top.name] for top in legacy),
    )


def remove_group(group: Path) -> None:
    """Kill what is in *group* and remove it as far as that is possible by now."""
    for path, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(path, "cgroup.kill").write_text("1", encoding="ascii")
        with suppress(OSError):
            Path(path).rmdir()
