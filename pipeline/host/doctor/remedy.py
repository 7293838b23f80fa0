"""What fix=yes writes and undo=yes removes: three files, and the values they stand for.

A value is only ever raised. What was in force before is kept as a comment in the sysctl file, so
that undoing restores it at once; the rest goes back because the file that changed it is gone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, counted, reason
from pipeline.host.doctor.kernel import LIMITS, TASKS_IN_USE
from pipeline.host.doctor.probe import BUS_FILE, SLICE_FILE, SYSCTL_FILE, UNLIMITED, program, read
from pipeline.paths import beneath
from pipeline.program import to_type_as_root
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.host.doctor.probe import Host
    from pipeline.host.doctor.rows import Asked

MARK = "Written by nifty: doit doctor fix=yes"
RELOAD_BUS = (
    *("call", "org.freedesktop.DBus", "/org/freedesktop/DBus"),
    *("org.freedesktop.DBus", "ReloadConfig"),
)


class RemedyError(NiftyError):
    """A change to this host's settings that cannot be made or undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToWrite:
    """A whole file, *name* relative to the host's root; owned by root, mode 0644."""

    name: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What our sysctl file says: *values* it sets, and what was in force *before* it did."""

    values: Mapping[str, int]
    before: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """A sentence for each change that was *done*, and for each that this host did not allow."""

    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def remedy(
    asked: Asked, host: Host, *, without: frozenset[str] = frozenset()
) -> tuple[FileToWrite, ...]:
    """The files *host* should have for *asked*, each whole; those that are there need no writing.

    *without*: limits of the kernel that cannot be set here. Raises RemedyError when a file of that
    name is not ours.
    """
    _refuse_foreign(host.written)
    sysctl = _sysctl_file(asked, host, without)
    found = (sysctl, _slice_file(asked, host), _bus_file(asked, host))
    return tuple(file for file in found if file)


def fix(asked: Asked, *, root: Path = Path("/")) -> Fixed:
    """Write and apply `remedy` on the host below *root*, as far as it lets itself be changed.

    A container has no say in most of the kernel's limits: those are left and told, and stand in no
    file; all else is done. Raises RemedyError when a file of that name is not ours.
    """
    host = read(root, prefix=asked.prefix)
    raised = {
        key: value
        for key, value in _sysctl_values(asked, host)[0].items()
        if host.sysctls.get(key, value) < value
    }
    fixed = {key for key in raised if not os.access(_sysctl(root, key), os.W_OK)}
    left = [
        f"{key}: stays {host.sysctls[key]}, read-only here: set {raised[key]} on the host of this "
        "container"
        for key in raised
        if key in fixed
    ]
    done: list[str] = []
    for file in remedy(asked, host, without=frozenset(fixed)):
        try:
            if host.written.get(file.name) != file.content:
                _write(root, file)
                done += [f"wrote /{file.name}", *_reload(root, host, (file.name,))]
            if file.name == SYSCTL_FILE:
                done += [
                    _set(root, key, host.sysctls[key], value)
                    for key, value in raised.items()
                    if key not in fixed
                ]
        except OSError as error:
            left.append(reason(error, file.name))
    return Fixed(done=tuple(done), left=tuple(left))


def undo(*, root: Path = Path("/")) -> tuple[str, ...]:
    """Remove our files from the host below *root* and restore what was; a sentence for each change.

    A value that somebody else changed since stays. Raises RemedyError, before anything is touched,
    when a file of that name is not ours.
    """
    host = read(root)
    _refuse_foreign(host.written)
    done: list[str] = []
    try:
        done += _restore_values(root, host)
        for name in host.written:
            beneath(root, name).unlink()
            done.append(f"removed /{name}")
        folder = beneath(root, SLICE_FILE).parent
        if SLICE_FILE in host.written and not any(folder.iterdir()):
            folder.rmdir()
        done += _reload(root, host, host.written)
    except OSError as error:
        raise _not_done(error) from error
    return tuple(done)


def parse(text: str) -> Earlier:
    """What a sysctl file of ours says (sysctl.d(5), and our own comments)."""
    before = re.findall(r"^# before: (\S+) = (\d+)$", text, flags=re.MULTILINE)
    values = re.findall(r"^([^#\s]\S*) = (\d+)$", text, flags=re.MULTILINE)
    return Earlier(
        values={key: int(value) for key, value in values},
        before={key: int(value) for key, value in before},
    )


def _sysctl_values(
    asked: Asked, host: Host, without: frozenset[str] = frozenset()
) -> tuple[dict[str, int], dict[str, int]]:
    """What our file is to set, and what was in force before it."""
    earlier = parse(host.written.get(SYSCTL_FILE, ""))
    values, before = {}, {}
    for limit in LIMITS:
        found = host.sysctls.get(limit.key)
        ours = earlier.values.get(limit.key, 0)
        need = min(limit.should(asked, host), limit.ceiling)
        if found is None or (found >= need and not ours) or limit.key in without:
            continue
        # A need that depends on what runs just now must not move a value that is enough.
        values[limit.key] = ours if ours >= need else max(found, limit.target, _round(need))
        before[limit.key] = earlier.before.get(limit.key, found)
    return values, before


def _sysctl_file(asked: Asked, host: Host, without: frozenset[str]) -> FileToWrite | None:
    old = host.written.get(SYSCTL_FILE, "")
    values, before = _sysctl_values(asked, host, without)
    if not values:
        return None
    if values == dict(parse(old).values):
        return FileToWrite(name=SYSCTL_FILE, content=old)
    lines = [
        f"# {MARK}, for {counted(asked.count)}",
        f"# Values are only raised. 'doctor undo=yes' removes this file (/{SYSCTL_FILE})",
        "# and restores what was in force before:",
        *(f"# before: {key} = {value}" for key, value in before.items()),
        *(f"{key} = {value}" for key, value in values.items()),
    ]
    return FileToWrite(name=SYSCTL_FILE, content="\n".join(lines) + "\n")


def _slice_file(asked: Asked, host: Host) -> FileToWrite | None:
    if SLICE_FILE in host.written:
        return FileToWrite(name=SLICE_FILE, content=host.written[SLICE_FILE])
    found = host.slice_tasks
    if found is None or asked.count * TASKS_IN_USE <= found < UNLIMITED:
        return None
    # 75 % of what kernel.pid_max and kernel.threads-max allow (systemd.resource-control(5)):
    # enough for the instances at any count, and never all the host has
    content = (
        f"# {MARK}\n"
        f"# 'doctor undo=yes' removes this file again (/{SLICE_FILE}).\n"
        "[Slice]\n"
        "TasksMax=75%\n"
    )
    return FileToWrite(name=SLICE_FILE, content=content)


def _bus_file(asked: Asked, host: Host) -> FileToWrite | None:
    old = host.written.get(BUS_FILE, "")
    ours = dict(re.findall(r'<limit name="(\w+)">(\d+)<', old))
    if not asked.registered or host.bus is None:
        return FileToWrite(name=BUS_FILE, content=old) if old else None
    limits = {}
    for name, found, need in (
        ("max_connections_per_user", host.bus.per_user, asked.registered + 256),
        ("max_completed_connections", host.bus.completed, asked.registered + 512),
    ):
        if found < need or name in ours:
            limits[name] = max(found, need)
    if not limits:
        return None
    if limits == {name: int(value) for name, value in ours.items()}:
        return FileToWrite(name=BUS_FILE, content=old)
    lines = [
        f"<!-- {MARK} register=yes, for {asked.registered}",
        f"     'doctor undo=yes' removes this file (/{BUS_FILE}). -->",
        "<busconfig>",
        *(f'  <limit name="{name}">{value}</limit>' for name, value in limits.items()),
        "</busconfig>",
    ]
    return FileToWrite(name=BUS_FILE, content="\n".join(lines) + "\n")


def _round(need: int) -> int:
    """The next power of two, so that a few instances more need no new value."""
    return 1 << (need - 1).bit_length() if need > 1 else need


def _refuse_foreign(written: Mapping[str, str]) -> None:
    for name, text in written.items():
        if MARK not in text.partition("\n")[0]:
            raise RemedyError(
                f"/{name} is not ours: its first line does not say '{MARK}'",
                hint=f"look at it, and move it away: mv /{name} /root/",
            )


def _write(root: Path, file: FileToWrite) -> None:
    path = beneath(root, file.name)
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o755)
    # Neither systemd nor sysctl nor dbus reads a name that does not end in .conf.
    files.put(path, file.content.encode())


def _restore_values(root: Path, host: Host) -> list[str]:
    earlier = parse(host.written.get(SYSCTL_FILE, ""))
    return [
        _set(root, key, earlier.values[key], value)
        for key, value in earlier.before.items()
        if key in earlier.values and host.sysctls.get(key) == earlier.values[key] != value
    ]


def _set(root: Path, key: str, found: int, value: int) -> str:
    _sysctl(root, key).write_text(f"{value}\n", encoding="ascii")
    return f"{key}: {found} -> {value}"


def _sysctl(root: Path, key: str) -> Path:
    return beneath(root, f"proc/sys/{key.replace('.', '/')}")


def _reload(root: Path, host: Host, names: Iterable[str]) -> list[str]:
    """Have systemd and the bus read their files again; where systemd does not run, at boot."""
    done = []
    if not host.is_systemd:
        return []
    systemctl, busctl = program(root, "systemctl"), program(root, "busctl")
    if SLICE_FILE in names and systemctl:
        run([systemctl, "daemon-reload"], timeout=120)
        done.append("systemd has read its units again")
    if BUS_FILE in names and busctl:
        run([busctl, *RELOAD_BUS], timeout=120)
        is_broker = host.bus is not None and host.bus.is_broker
        done.append(
            "dbus-broker takes its limits at its own start only: boot this host"
            if is_broker
            else "the system bus has read its configuration again"
        )
    return done


def _not_done(error: OSError) -> RemedyError:
    hint = f"changing a host's limits needs root: {to_type_as_root('doctor …')}"
    is_denied = isinstance(error, PermissionError)
    return RemedyError(reason(error), hint=hint if is_denied else None)
