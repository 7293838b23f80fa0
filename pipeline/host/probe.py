"""What doctor reads on a host, below any root, so that a made-up tree can stand for one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.host import sockets
from pipeline.host.runners import RUNNERS
from pipeline.paths import beneath
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# systemd's number for "infinity" (CGROUP_LIMIT_MAX)
UNLIMITED = 2**64 - 1

SYSCTL_FILE = "etc/sysctl.d/90-nifty.conf"
BUS_FILE = "etc/dbus-1/system.d/nifty.conf"
SLICE_FILE = "etc/systemd/system/nifty.slice.d/50-limits.conf"
OWN_FILES = (SYSCTL_FILE, BUS_FILE, SLICE_FILE)

SYSCTLS = (
    *("kernel.pid_max", "kernel.threads-max"),
    *("kernel.pty.max", "kernel.pty.reserve", "kernel.pty.nr"),
    *("kernel.keys.maxkeys", "kernel.keys.maxbytes", "kernel.keys.root_maxkeys"),
    *("fs.inotify.max_user_instances", "fs.inotify.max_user_watches"),
    *("fs.inotify.max_queued_events", "fs.mount-max", "fs.file-max", "fs.nr_open"),
    *(f"user.max_{kind}_namespaces" for kind in ("user", "mnt", "pid", "uts", "ipc", "cgroup")),
    "net.ipv4.neigh.default.gc_thresh3",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    point: Path
    kind: str
    options: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRange:
    """Numbers *start* … *start* + *count* - 1 of *file* belong to *owner*."""

    owner: str
    start: int
    count: int
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BusLimits:
    """What the configuration of the system bus allows; dbus-daemon(1), `limit`."""

    is_broker: bool
    per_user: int = 256
    completed: int = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixFacts:
    """The directory instances go to; *free_inodes* is None where inodes are made as needed."""

    path: Path
    exists: bool
    writable: bool = False
    mount: Mount | None = None
    free_bytes: int = 0
    free_inodes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Everything that was read; None, or a missing key, is what could not be read."""

    prefix: PrefixFacts
    sysctls: Mapping[str, int] = field(default_factory=dict)
    threads: int | None = None
    files_open: int | None = None
    mounts: int | None = None
    memory: int | None = None
    listening: frozenset[int] | None = None
    ephemeral: tuple[int, int] | None = None
    user_ranges: tuple[UserRange, ...] = ()
    controllers: frozenset[str] | None = None
    has_user_namespaces: bool = False
    is_systemd: bool = False
    systemd: int | None = None
    default_tasks: int | None = None
    slice_tasks: int | None = None
    programs: frozenset[str] = frozenset()
    bus: BusLimits | None = None
    audit: bool = False
    is_selinux_enforcing: bool = False
    is_rpm: bool = False
    written: Mapping[str, str] = field(default_factory=dict)


def read(root: Path = Path("/"), *, prefix: Path = Path("/home")) -> Host:
    """The host whose file tree is *root*, seen with the user's rights; writes nothing.

    Asks *root*'s own systemctl, if there is one. What is missing or unreadable is left out.
    """
    mounts = _mounts(root)
    is_systemd = beneath(root, "run/systemd/system").is_dir()  # sd_booted(3)
    listening = sockets.listening(root)
    sysctls = {key: _number(root, f"proc/sys/{key.replace('.', '/')}") for key in SYSCTLS}
    return Host(
        prefix=_prefix(root, prefix, mounts),
        sysctls=MappingProxyType(
            {key: value for key, value in sysctls.items() if value is not None}
        ),
        threads=_match(r"\d+/(\d+)", _text(root, "proc/loadavg")),
        files_open=_match(r"(\d+)", _text(root, "proc/sys/fs/file-nr")),
        mounts=len(mounts) or None,
        memory=_kib(_match(r"MemAvailable:\s*(\d+) kB", _text(root, "proc/meminfo"))),
        listening=None if listening is None else frozenset(listening),
        ephemeral=_pair(_text(root, "proc/sys/net/ipv4/ip_local_port_range")),
        user_ranges=tuple(_user_ranges(root)),
        controllers=_controllers(root),
        has_user_namespaces=os.path.lexists(beneath(root, "proc/self/ns/user")),
        is_systemd=is_systemd,
        systemd=_match(r"systemd (\d+)", _systemctl(root, "--version")),
        default_tasks=_tasks(root, is_systemd, "--property=DefaultTasksMax"),
        slice_tasks=_tasks(root, is_systemd, "--property=TasksMax", "nifty.slice"),
        programs=frozenset(_programs(root)),
        bus=_bus(root),
        audit=_has_audit(root),
        is_selinux_enforcing=_number(root, "sys/fs/selinux/enforce") == 1,
        is_rpm=_is_rpm(_text(root, "etc/os-release")),
        written=MappingProxyType(
            {name: _text(root, name) for name in OWN_FILES if beneath(root, name).exists()}
        ),
    )


def program(root: Path, name: str) -> Path | None:
    """The program *name* of the host below *root*; None if it has none."""
    path = beneath(root, f"usr/bin/{name}")
    return path if path.exists() else None


def _programs(root: Path) -> Iterator[str]:
    """Those that some runner starts and this host has."""
    for need in (need for runner in RUNNERS.values() for need in runner.needs):
        places = (beneath(root, f"{folder}/{need.program}") for folder in ("usr/bin", "usr/sbin"))
        if any(place.exists() for place in places):
            yield need.program


def _text(root: Path, name: str) -> str:
    try:
        return beneath(root, name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _match(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def _number(root: Path, name: str) -> int | None:
    return _match(r"^(\d+)\s*$", _text(root, name))


def _pair(text: str) -> tuple[int, int] | None:
    words = text.split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def _kib(value: int | None) -> int | None:
    return None if value is None else value * 1024


def _mounts(root: Path) -> tuple[Mount, ...]:
    found = []
    for line in _text(root, "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        words, ends = left.split(" "), right.split(" ")
        if len(words) < 6 or len(ends) < 3:
            continue
        # blanks in names are written as \040 (proc_pid_mountinfo(5))
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[4])
        options = frozenset(words[5].split(",")) | frozenset(ends[2].split(","))
        found.append(Mount(point=Path(point), kind=ends[0], options=options))
    return tuple(found)


def _prefix(root: Path, prefix: Path, mounts: tuple[Mount, ...]) -> PrefixFacts:
    path = root / prefix.relative_to("/")
    # the last mount of the longest path wins: what was mounted later lies on top
    above = [mount for mount in mounts if prefix.is_relative_to(mount.point)]
    mount = max(reversed(above), key=lambda one: len(one.point.parts), default=None)
    try:
        if not path.is_dir():
            return PrefixFacts(path=prefix, exists=False, mount=mount)
        room = os.statvfs(path)
    except OSError:
        return PrefixFacts(path=prefix, exists=False, mount=mount)
    return PrefixFacts(
        path=prefix,
        exists=True,
        writable=os.access(path, os.W_OK | os.X_OK),
        mount=mount,
        free_bytes=room.f_bavail * room.f_frsize,
        free_inodes=room.f_favail if room.f_files else None,
    )


def _user_ranges(root: Path) -> Iterator[UserRange]:
    """subuid(5), subgid(5), and every account above the system's own numbers."""
    for name in ("etc/subuid", "etc/subgid"):
        for line in _text(root, name).splitlines():
            owner, *numbers = line.strip().split(":")
            if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
                start, count = map(int, numbers)
                yield UserRange(owner=owner, start=start, count=count, file=f"/{name}")
    for name in ("etc/passwd", "etc/group"):
        for line in _text(root, name).splitlines():
            words = line.split(":")
            if len(words) > 2 and words[2].isdecimal():
                yield UserRange(owner=words[0], start=int(words[2]), count=1, file=f"/{name}")


def _controllers(root: Path) -> frozenset[str] | None:
    """Controllers of the unified hierarchy; None on a legacy or hybrid host (cgroups(7))."""
    path = beneath(root, "sys/fs/cgroup/cgroup.controllers")
    return (
        frozenset(_text(root, "sys/fs/cgroup/cgroup.controllers").split())
        if (path.exists())
        else None
    )


def _systemctl(root: Path, *words: str) -> str:
    systemctl = program(root, "systemctl")
    if systemctl is None:
        return ""
    try:
        return run([systemctl, *words], check=False, timeout=30).stdout
    except NiftyError:
        return ""


def _tasks(root: Path, is_systemd: bool, *words: str) -> int | None:  # noqa: FBT001 (private)
    """A property that is a number of tasks, percentages already resolved by systemd."""
    told = _systemctl(root, "show", *words) if is_systemd else ""
    return UNLIMITED if told.strip().endswith("=infinity") else _match(r"=(\d+)", told)


def _bus(root: Path) -> BusLimits | None:
    """The limits of the system bus's configuration: the last one named wins, as in dbus-daemon."""
    texts = [_text(root, f"{place}/dbus-1/system.conf") for place in ("usr/share", "etc")]
    if not any(texts):
        return None
    for place in ("usr/share", "etc"):
        folder = beneath(root, f"{place}/dbus-1/system.d")
        names = sorted(path.name for path in folder.glob("*.conf")) if folder.is_dir() else []
        texts += [_text(root, f"{place}/dbus-1/system.d/{name}") for name in names]
    texts.append(_text(root, "etc/dbus-1/system-local.conf"))
    limits: dict[str, int] = {}
    for text in texts:
        bare = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
        pairs = re.findall(r'<limit\s+name="(\w+)"\s*>\s*(\d+)\s*</limit>', bare)
        limits.update((name, int(value)) for name, value in pairs)
    return BusLimits(
        is_broker=_is_broker(root),
        per_user=limits.get("max_connections_per_user", 256),
        completed=limits.get("max_completed_connections", 2048),
    )


def _is_broker(root: Path) -> bool:
    """dbus-broker's unit carries the alias dbus.service where it is the bus."""
    places = ("etc/systemd/system/dbus.service", "usr/lib/systemd/system/dbus.service")
    links = [path for place in places if (path := beneath(root, place)).is_symlink()]
    return any(link.readlink().name == "dbus-broker.service" for link in links)


def _has_audit(root: Path) -> bool:
    """Whether a process may open an audit socket: compiled in, and not switched off at boot."""
    words = _text(root, "proc/cmdline").split()
    is_off = any(word in words for word in ("audit=0", "audit=off"))
    return beneath(root, "proc/self/loginuid").exists() and not is_off


def _is_rpm(release: str) -> bool:
    kinds = re.findall(r'^(?:ID|ID_LIKE)="?([^"\n]*)', release, flags=re.MULTILINE)
    words = {word for kind in kinds for word in kind.split()}
    return bool(words & {"fedora", "rhel", "centos", "ol", "suse", "opensuse"})
