"""Limits that are numbers: of the kernel, of systemd, of the system bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.host.doctor.probe import UNLIMITED
from pipeline.host.doctor.rows import Asked, Row, Stage, Status, unreadable
from pipeline.host.state.records import Users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.host.doctor.probe import Host

    Need = Callable[[Asked, Host], int]

# What an instance may have while somebody works in it: its own tasks, a login, a pipe or two.
TASKS_IN_USE = 8
PID_MAX = 4194304  # PID_MAX_LIMIT of a 64-bit kernel (include/linux/threads.h)
# systemd reads the whole list again at every change of a mount
MANY_MOUNTS = 2000
NEIGHBOURS = "net.ipv4.neigh.default.gc_thresh3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One sysctl: below *must* starting fails, below *should* something else does, some day.

    *target* is the least that fix=yes sets: the known good value for a thousand containers, so that
    a few more of them need no further change. *ceiling* is what the kernel allows at most.
    """

    key: str
    should: Need
    must: Need = lambda _asked, _host: 0
    why: str
    target: int = 0
    ceiling: int = UNLIMITED


def _tasks_must(asked: Asked, host: Host) -> int:
    # 2048: launchers on their way and servers asked for their banners, all at the same time
    return (host.threads or 0) + asked.to_start * asked.tasks + 2048


def _tasks_should(asked: Asked, host: Host) -> int:
    # the slice may use three quarters of what there is (see remedy): they must be enough, too
    in_slice = -(-asked.count * TASKS_IN_USE * 4 // 3)
    return max((host.threads or 0) + asked.to_start * TASKS_IN_USE + 1024, in_slice)


def _terminals(asked: Asked, host: Host) -> int:
    # what other instances of devpts may use ends at max - reserve (fs/devpts/inode.c)
    taken = host.sysctls.get("kernel.pty.nr", 0) + host.sysctls.get("kernel.pty.reserve", 1024)
    return taken + asked.count


def _namespaces(kind: str) -> Limit:
    name = "user namespace" if kind == "user" else f"{kind} namespace"
    return Limit(
        key=f"user.max_{kind}_namespaces",
        # one while it is set up, one that stays
        must=lambda asked, _host: 2 * asked.count if _is_used(kind, asked) else 0,
        should=lambda asked, _host: 2 * asked.count + 256 if _is_used(kind, asked) else 0,
        why=f"an instance without a {name} of its own does not start: 'No space left on device'",
    )


def _is_used(kind: str, asked: Asked) -> bool:
    if kind == "user":
        return asked.users is Users.PRIVATE
    return kind in asked.cost.namespaces


def _keys(asked: Asked, usual: int, each: int) -> int:
    # the quota counts by user number on the host: a range of its own is a quota of its own
    return usual if asked.users is Users.PRIVATE else each * asked.count


LIMITS: tuple[Limit, ...] = (
    Limit(
        key="kernel.pid_max",
        must=_tasks_must,
        should=_tasks_should,
        why="no process number is left: instances stop starting, and no shell can fork to mend it",
        target=PID_MAX,
        ceiling=PID_MAX,
    ),
    Limit(
        key="kernel.threads-max",
        must=_tasks_must,
        should=_tasks_should,
        why="fork fails for everybody: 'Resource temporarily unavailable'",
    ),
    Limit(
        key="kernel.pty.max",
        should=_terminals,
        why="SSH logins get no terminal: 'PTY allocation request failed'",
        target=16384,
    ),
    Limit(
        key="kernel.keys.maxkeys",
        should=lambda asked, _host: _keys(asked, 200, 2),
        why="programs that keep keys in the kernel fail with 'Disk quota exceeded'",
        target=2000,
    ),
    Limit(
        key="kernel.keys.maxbytes",
        should=lambda asked, _host: _keys(asked, 20000, 2000),
        why="programs that keep keys in the kernel fail with 'Disk quota exceeded'",
        target=2_000_000,
    ),
    Limit(
        key="kernel.keys.root_maxkeys",
        # KeyringMode=private: systemd makes a session keyring for every service
        must=lambda asked, _host: 2 * asked.count,
        should=lambda asked, _host: 2 * asked.count + 256,
        why="systemd cannot set up a service's keyring: status=237/KEYRING",
        target=1_000_000,
    ),
    Limit(
        key="fs.inotify.max_user_instances",
        should=lambda asked, _host: asked.count + 128,
        why="programs that watch files fail with 'Too many open files', on the host as well",
        target=8192,
    ),
    Limit(
        key="fs.inotify.max_user_watches",
        # systemd watches two files of every unit's control group
        must=lambda asked, _host: 2 * asked.count + 512,
        should=lambda asked, _host: 2 * asked.count + 4096,
        why="systemd does not see an instance end: stopping waits for its time limit",
        target=1_048_576,
    ),
    Limit(
        key="fs.inotify.max_queued_events",
        should=lambda asked, _host: 8 * asked.count + 4096,
        why="when all stop at once systemd misses some: they stay 'deactivating' for long",
        target=1_048_576,
    ),
    Limit(
        key="fs.mount-max",
        must=lambda _asked, host: (host.mounts or 0) + 64,
        should=lambda _asked, host: (host.mounts or 0) + 1024,
        why="an instance begins with a copy of the host's mounts: 'No space left on device'",
        target=100_000,
    ),
    Limit(
        key="fs.file-max",
        must=lambda asked, host: (host.files_open or 0) + 64 * asked.to_start,
        should=lambda asked, host: (host.files_open or 0) + 128 * asked.to_start + 8192,
        why="'Too many open files in system', for every process of the host",
    ),
    Limit(
        key="fs.nr_open",
        should=lambda asked, _host: 8 * asked.count + 4096,
        why="systemd and its journal hold files for every service: 'Too many open files'",
        target=1_048_576,
    ),
    *(_namespaces(kind) for kind in ("user", "mnt", "pid", "uts", "ipc", "cgroup")),
)


def kernel_rows(asked: Asked, host: Host) -> Iterator[Row]:
    """One row for each of LIMITS, the mounts there are, and the neighbour table."""
    for limit in LIMITS:
        yield _limit_row(limit, asked, host)
    yield _mounts_row(host)
    neighbours = host.sysctls.get(NEIGHBOURS)
    yield Row(
        name=NEIGHBOURS,
        found="unreadable" if neighbours is None else str(neighbours),
        needed="any",
        status=Status.OK,
        why="instances share the host's network; bridged ones would want 8192",
    )


def systemd_rows(asked: Asked, host: Host) -> Iterator[Row]:
    """Task limits of units; none where systemd does not run, which is another row's business."""
    if not host.is_systemd:
        return
    slice_why = "the kernel refuses to fork in instances: 'fork rejected by pids controller'"
    if host.slice_tasks == UNLIMITED:
        yield Row(
            name="TasksMax of nifty.slice",
            found="infinity",
            needed="a limit below the host's",
            status=Status.WARN,
            why="a fork bomb in one instance takes the host's last process number",
            todo=f"{asked.command} (sets 75%)",
            fixable=True,
        )
    else:
        yield numbered(
            name="TasksMax of nifty.slice",
            found=host.slice_tasks,
            must=asked.count * asked.tasks,
            should=asked.count * TASKS_IN_USE,
            why=slice_why,
            todo=f"{asked.command} (sets 75%)",
            fixable=True,
        )
    yield numbered(
        name="systemd DefaultTasksMax",
        found=host.default_tasks,
        must=asked.tasks,
        should=TASKS_IN_USE,
        why="an instance cannot fork: 'fork rejected by pids controller'",
        todo="raise DefaultTasksMax= in /etc/systemd/system.conf",
    )


def bus_rows(asked: Asked, host: Host) -> Iterator[Row]:
    """Limits of the system bus, which only registered nspawn instances have to do with."""
    if not asked.registered:
        return
    name, needed = "D-Bus max_connections_per_user", asked.registered + 256
    why = "each registered nspawn holds a connection: at about 253 instances starting stops"
    if host.bus is None:
        yield unreadable(name, str(needed), why)
        return
    todo = f"{asked.command} (sets {needed})"
    if host.bus.is_broker:
        # dbus-broker counts no connections; it multiplies its quotas by this, when it starts
        why = "dbus-broker's quotas of one user grow with this: beyond them it cuts connections"
        todo += ", then boot: dbus-broker reads it at its start only"
    must = 0 if host.bus.is_broker else asked.registered + 32
    yield numbered(
        name=name,
        found=host.bus.per_user,
        must=must,
        should=needed,
        why=why,
        todo=todo,
        fixable=True,
    )
    if not host.bus.is_broker:
        yield numbered(
            name="D-Bus max_completed_connections",
            found=host.bus.completed,
            must=asked.registered + 64,
            should=asked.registered + 512,
            why="the bus takes no further connection from anybody",
            todo=f"{asked.command} (sets {asked.registered + 512})",
            fixable=True,
        )


def numbered(
    *,
    name: str,
    found: int | None,
    must: int,
    should: int,
    why: str,
    todo: str,
    stage: Stage = Stage.START,
    fixable: bool = False,
) -> Row:
    """The row of a number: FAIL below *must*, WARN below *should*."""
    if found is None:
        return unreadable(name, str(should), why, stage=stage)
    enough = Status.OK if found >= should else Status.WARN
    status = Status.FAIL if found < must else enough
    return Row(
        name=name,
        found="infinity" if found == UNLIMITED else str(found),
        needed=str(should),
        status=status,
        why=why,
        todo="" if status is Status.OK else todo,
        stage=stage,
        fixable=fixable and status is not Status.OK,
    )


def _limit_row(limit: Limit, asked: Asked, host: Host) -> Row:
    should = limit.should(asked, host)
    possible = should <= limit.ceiling
    fix = f"{asked.command} (sets {max(limit.target, should)})"
    never = f"fewer instances: no kernel allows more than {limit.ceiling}"
    return numbered(
        name=limit.key,
        found=host.sysctls.get(limit.key),
        must=limit.must(asked, host),
        should=should,
        why=limit.why,
        todo=fix if possible else never,
        fixable=possible,
    )


def _mounts_row(host: Host) -> Row:
    name, why = "mounts of the host", "systemd reads the whole list at each change: all gets slow"
    if host.mounts is None:
        return unreadable(name, f"below {MANY_MOUNTS}", why)
    many = host.mounts >= MANY_MOUNTS
    return Row(
        name=name,
        found=str(host.mounts),
        needed=f"below {MANY_MOUNTS}",
        status=Status.WARN if many else Status.OK,
        why=why,
        todo="unmount what is not needed: findmnt shows it" if many else "",
    )
