"""What doctor reads on a host, below any root, so that a made-up tree can stand for one."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline import distribution
from pipeline.errors import NiftyError
from pipeline.host.doctor import site
from pipeline.host.doctor.site import Site
from pipeline.host.units import systemd
from pipeline.host.units.runners import RUNNERS
from pipeline.paths import beneath
from pipeline.run import CLEAN_ENVIRONMENT, run

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
class BusLimits:
    """What the configuration of the system bus allows; dbus-daemon(1), `limit`."""

    is_broker: bool
    per_user: int = 256
    completed: int = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Host(Site):
    """Everything that was read; None, or a missing key, is what could not be read."""

    sysctls: Mapping[str, int] = field(default_factory=dict)
    threads: int | None = None
    files_open: int | None = None
    memory: int | None = None
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
    release: str = ""
    written: Mapping[str, str] = field(default_factory=dict)


def read(root: Path = Path("/"), *, prefix: Path = Path("/home")) -> Host:
    """The host whose file tree is *root*, seen with the user's rights; writes nothing.

    Asks *root*'s own systemctl, if there is one. What is missing or unreadable is left out.
    """
    where = site.read(root, prefix=prefix)
    is_systemd = systemd.is_booted(root)
    sysctls = {key: _number(root, f"proc/sys/{key.replace('.', '/')}") for key in SYSCTLS}
    return Host(
        **{field.name: getattr(where, field.name) for field in fields(Site)},
        sysctls=MappingProxyType(
            {key: value for key, value in sysctls.items() if value is not None}
        ),
        threads=_match(r"\d+/(\d+)", site.text(root, "proc/loadavg")),
        files_open=_match(r"(\d+)", site.text(root, "proc/sys/fs/file-nr")),
        memory=_kib(_match(r"MemAvailable:\s*(\d+) kB", site.text(root, "proc/meminfo"))),
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
        release=distribution.release(root),
        written=MappingProxyType(
            {name: site.text(root, name) for name in OWN_FILES if beneath(root, name).exists()}
        ),
    )


def program(root: Path, name: str) -> Path | None:
    """The program *name* of the host below *root*; None if it has none."""
    path = beneath(root, f"usr/bin/{name}")
    return path if path.exists() else None


def _programs(root: Path) -> Iterator[str]:
    """Those that some runner starts and this host has."""
    folders = CLEAN_ENVIRONMENT["PATH"].split(":")
    path = ":".join(str(beneath(root, folder.lstrip("/"))) for folder in folders)
    for need in (need for runner in RUNNERS.values() for need in runner.needs):
        if shutil.which(need.program, path=path):
            yield need.program


def _match(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def _number(root: Path, name: str) -> int | None:
    return _match(r"^(\d+)\s*$", site.text(root, name))


def _kib(value: int | None) -> int | None:
    return None if value is None else value * 1024


def _controllers(root: Path) -> frozenset[str] | None:
    """Controllers of the unified hierarchy; None on a legacy or hybrid host (cgroups(7))."""
    path = beneath(root, "sys/fs/cgroup/cgroup.controllers")
    return (
        frozenset(site.text(root, "sys/fs/cgroup/cgroup.controllers").split())
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
    texts = [site.text(root, f"{place}/dbus-1/system.conf") for place in ("usr/share", "etc")]
    if not any(texts):
        return None
    for place in ("usr/share", "etc"):
        folder = beneath(root, f"{place}/dbus-1/system.d")
        names = sorted(path.name for path in folder.glob("*.conf")) if folder.is_dir() else []
        texts += [site.text(root, f"{place}/dbus-1/system.d/{name}") for name in names]
    texts.append(site.text(root, "etc/dbus-1/system-local.conf"))
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
    words = site.text(root, "proc/cmdline").split()
    is_off = any(word in words for word in ("audit=0", "audit=off"))
    return beneath(root, "proc/self/loginuid").exists() and not is_off
