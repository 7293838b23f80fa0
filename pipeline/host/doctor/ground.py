"""What instances stand on: systemd, the kernel, the file system, and room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import distribution
from pipeline.errors import counted
from pipeline.host.doctor import bounds
from pipeline.host.doctor.rows import Asked, Row, Stage, Status, unreadable
from pipeline.host.roots.quota import MIB
from pipeline.host.state.records import Users
from pipeline.host.units.runners import RUNNERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.host.doctor.probe import Host
    from pipeline.host.doctor.site import PrefixFacts, Site

OLDEST_SYSTEMD = 252
# The last systemd whose nspawn slept 5 s when audit was on (since 205; 209 filters it by seccomp)
LAST_SLEEPING = 208
# File systems that cannot hold a root: no owners and modes, or owners the server decides on.
UNFIT = frozenset(
    ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "nfs", "nfs4", "cifs", "smb3", "9p")
)
ELSEWHERE = "choose another prefix="


def system_rows(asked: Asked, host: Host) -> Iterator[Row]:
    """The kernel and systemd: there, new enough, with what the runner needs."""
    yield _truth(
        "systemd as PID 1",
        is_so=host.is_systemd,
        why="this host was not booted by systemd, which is what starts instances",
        todo=distribution.boot(host.release),
        stage=Stage.DEPLOY,
    )
    yield _version(host)
    for need in RUNNERS[asked.runner].needs:
        yield _truth(
            need.program,
            is_so=need.program in host.programs,
            why="the unit cannot start: 'Failed to locate executable', status=203/EXEC",
            todo=distribution.install((need.program,), host.release),
            stage=Stage.DEPLOY,
        )
    yield _truth(
        "user namespaces",
        is_so=host.has_user_namespaces or asked.users is Users.HOST,
        why="root inside an instance would be root of the host: it does not start",
        todo="use a kernel with CONFIG_USER_NS=y, or users=host where instances are trusted",
        needed="yes" if asked.users is Users.PRIVATE else "any",
    )
    yield _cgroup(host)
    yield _audit(host)
    yield Row(
        name="SELinux",
        found="enforcing" if host.is_selinux_enforcing else "not enforcing",
        needed="any",
        status=Status.WARN if host.is_selinux_enforcing else Status.OK,
        why="labels of the prefix may keep systemd from running what lies there",
        todo="if instances do not start: ausearch -m avc -ts recent, or try prefix=/var/lib/nifty"
        if host.is_selinux_enforcing
        else "",
    )


def prefix_rows(asked: Asked, site: Site) -> Iterator[Row]:
    """The file system below the prefix, and room for what is wanted on it."""
    facts = site.prefix
    yield _prefix(facts)
    if not facts.exists:
        return
    many = len(asked.new)
    once = 0 if asked.is_stored or not many else 1
    # the state, and what its unit reads
    beside = 2 + RUNNERS[asked.runner].has_mounts
    each = asked.needs.bytes_each(facts.block, facts.directory, beside=beside)
    needed = many * each + once * asked.needs.once
    yield _room(
        f"free disk on {facts.path}",
        found=facts.free_bytes,
        needed=needed,
        why="deploying stops with 'No space left on device'",
        stage=Stage.DEPLOY,
        detail=f"not enough disk: {_take(many)} {_mib(needed)}, {_mib(facts.free_bytes)} are free",
    )
    inodes = many * asked.needs.inodes_each(beside=beside) + once * asked.needs.once_inodes
    yield _inodes(inodes, many, facts)
    yield bounds.row(asked, facts)


def memory_row(asked: Asked, host: Host) -> Row:
    """Room in memory for those that are to be started."""
    needed = asked.to_start * asked.bytes_running
    if host.memory is None:
        return unreadable("free memory", _size(needed), "instances are killed for want of memory")
    return _room(
        "free memory",
        found=host.memory,
        needed=needed,
        why="the kernel kills processes, instances and others: 'Out of memory'",
        stage=Stage.START,
    )


def _version(host: Host) -> Row:
    why = "older ones lack options of the units"
    if host.systemd is None:
        return unreadable("systemd version", str(OLDEST_SYSTEMD), why)
    is_new = host.systemd >= OLDEST_SYSTEMD
    return Row(
        name="systemd version",
        found=str(host.systemd),
        needed=str(OLDEST_SYSTEMD),
        status=Status.OK if is_new else Status.FAIL,
        why=why,
        todo="" if is_new else "use a newer release: Debian 12, RHEL 9 or later",
    )


def _cgroup(host: Host) -> Row:
    name, needed = "cgroup version 2", frozenset(("memory", "pids"))
    if host.controllers is None:
        return Row(
            name=name,
            found="not at /sys/fs/cgroup (version 1)",
            needed=", ".join(sorted(needed)),
            status=Status.FAIL,
            why="instances can neither be limited nor stopped as a whole",
            todo="boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
        )
    has_all = host.controllers >= needed
    return Row(
        name=name,
        found=", ".join(sorted(host.controllers & needed)) or "no controller",
        needed=", ".join(sorted(needed)),
        # without them systemd starts units all the same
        status=Status.OK if has_all else Status.WARN,
        why="TasksMax= limits nobody, and status shows no memory",
        todo="" if has_all else "boot without cgroup_disable= and version 1 mounts (/proc/cgroups)",
    )


def _audit(host: Host) -> Row:
    old = host.systemd is not None and host.systemd <= LAST_SLEEPING
    sleeps = host.audit and old
    return Row(
        name="kernel audit",
        found="on" if host.audit else "off",
        needed="off" if old else "any",
        status=Status.WARN if sleeps else Status.OK,
        why=f"up to systemd {LAST_SLEEPING} nspawn slept 5 s for it at each start; newer ones do"
        " not mind",
        todo="boot with audit=0 on the kernel's command line" if sleeps else "",
    )


def _prefix(facts: PrefixFacts) -> Row:
    kind = facts.mount.kind if facts.mount else "unknown file system"
    options = facts.mount.options if facts.mount else frozenset()
    problems: list[tuple[str, str]] = []
    if facts.fault is not None:
        what, todo = facts.fault
        problems.append((what.removeprefix(f"{facts.path}: "), todo))
    if kind in UNFIT:
        problems.append(("keeps no owners and modes", ELSEWHERE))
    if "ro" in options:
        problems.append(("read-only", f"mount -o remount,rw {_point(facts)}, or {ELSEWHERE}"))
    if "noexec" in options:
        problems.append(("noexec", f"mount -o remount,exec {_point(facts)}, or {ELSEWHERE}"))
    volatile = kind in ("tmpfs", "ramfs")
    mild = "instances are gone after a boot; choose another prefix= if that is not meant"
    status = Status.FAIL if problems else Status.WARN if volatile else Status.OK
    return Row(
        name=f"prefix {facts.path}",
        found=", ".join((kind, *(what for what, _ in problems))),
        needed="writable, exec, with owners and modes",
        status=status,
        why="roots cannot be written there, or nothing in them can be run",
        todo="; ".join(todo for _, todo in problems) or (mild if volatile else ""),
        stage=Stage.DEPLOY,
    )


def _point(facts: PrefixFacts) -> str:
    return str(facts.mount.point) if facts.mount else "/"


def _take(many: int) -> str:
    return counted(many, "instance takes", "instances take")


def _inodes(needed: int, many: int, facts: PrefixFacts) -> Row:
    enough = facts.free_inodes is None or facts.free_inodes >= needed
    return Row(
        name=f"free inodes on {facts.path}",
        found="as many as needed" if facts.free_inodes is None else str(facts.free_inodes),
        needed=str(needed),
        status=Status.OK if enough else Status.FAIL,
        why="deploying stops with 'No space left on device' though df shows room: see df -i",
        todo="" if enough else f"remove files, or {ELSEWHERE}",
        stage=Stage.DEPLOY,
        detail=()
        if enough
        else (f"not enough inodes: {_take(many)} {needed}, {facts.free_inodes} are free",),
    )


def _room(name: str, *, found: int, needed: int, why: str, stage: Stage, detail: str = "") -> Row:
    # the last tenth is not ours to plan with: others write to the same disk and memory
    tight = Status.OK if found * 9 >= needed * 10 else Status.WARN
    status = tight if found >= needed else Status.FAIL
    return Row(
        name=name,
        found=_size(found),
        needed=_size(needed),
        status=status,
        why=why,
        todo="" if status is Status.OK else "free some, or fewer instances",
        stage=stage,
        detail=(detail,) if detail and status is Status.FAIL else (),
    )


def _truth(
    name: str,
    *,
    is_so: bool,
    why: str,
    todo: str,
    needed: str = "yes",
    stage: Stage = Stage.START,
) -> Row:
    return Row(
        name=name,
        found="yes" if is_so else "no",
        needed=needed,
        status=Status.OK if is_so else Status.FAIL,
        why=why,
        todo="" if is_so else todo,
        stage=stage,
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def _size(count: int) -> str:
    return f"{count / MIB:.0f} MiB"
