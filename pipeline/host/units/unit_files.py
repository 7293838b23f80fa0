"""The files in /etc/systemd/system: what they say, and how they get there and away.

A template for all instances of a runner, or for a hundred of them. Each file's first line says who
wrote it and for which prefix; a file without that line is somebody else's and stays as it is.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import distribution
from pipeline.errors import NiftyError
from pipeline.files import put, read
from pipeline.host.binds import dropins
from pipeline.host.binds.rules import Bind, check_plain
from pipeline.host.state import records
from pipeline.host.state.layout import environment_file, mounts_file
from pipeline.host.units import systemd
from pipeline.host.units.runner import SLICE, Launch, Runner, environment_text, place
from pipeline.host.units.runners import RUNNERS
from pipeline.program import to_type
from pipeline.run import CLEAN_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance
    from pipeline.image.manifest import Manifest

DIRECTORY = Path("/etc/systemd/system")
TARGET = "nifty.target"
MARK = "# written by nifty for the prefix "
# Bytes of a unit; ours have some 2000.
_LIMIT = 1 << 18


class UnitFilesError(NiftyError):
    """Unit files that cannot be written or removed: somebody else's, or another prefix's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFile:
    """One file of DIRECTORY."""

    name: str
    text: str


def runner_of(instance: Instance) -> Runner:
    """What starts *instance*. Raises UnitFilesError for one this program does not have."""
    try:
        return RUNNERS[instance.runner]
    except KeyError:
        known = ", ".join(RUNNERS)
        raise UnitFilesError(
            f"{instance.name}: runner={instance.runner} is not there yet", hint=f"there is: {known}"
        ) from None


def unit_of(instance: Instance) -> str:
    """The unit that runs *instance*."""
    return place(runner_of(instance), instance.suffix).unit


def group_of(instance: Instance) -> Path:
    """The control group of *instance*, below the directory in which systemd has its groups."""
    where = place(runner_of(instance), instance.suffix)
    return Path(*where.slices, where.unit)


def patterns() -> tuple[str, ...]:
    """Patterns (glob(7)) that the unit of every instance matches."""
    return tuple(
        f"{runner.stem}{rest}"
        for runner in RUNNERS.values()
        for rest in ("-*@*.service" if runner.is_grouped else "@*.service", ".service")
    )


def launch_of(instance: Instance, layout: Layout, binds: Iterable[Bind]) -> Launch:
    """What a runner must know of *instance*; *binds* are its image's, as `binds_of` gives them."""
    return Launch(
        base=None if instance.users is records.Users.HOST else instance.base,
        cbin=layout.cbin(instance.image) if instance.share is records.Share.CBIN else None,
        binds=tuple(binds),
        register=instance.register,
    )


def files(instance: Instance, layout: Layout, binds: Iterable[Bind]) -> Mapping[Path, str]:
    """Every file that *instance*'s unit reads when it starts, and its text. Raises UnitError."""
    runner = runner_of(instance)
    launch = launch_of(instance, layout, binds)
    found = {environment_file(layout.prefix, instance.suffix): environment_text(runner, launch)}
    table = runner.mounts(layout.prefix, instance.suffix, launch)
    if table is not None:
        found[mounts_file(layout.prefix, instance.suffix)] = table
    return found


def binds_of(manifest: Manifest) -> tuple[Bind, ...]:
    """What this host has of a manifest's `needs.binds`, and what it gives to the drop-ins."""
    present = (
        Bind(source=record.source, target=f"/{record.target}")
        for record in manifest.needs.binds
        if Path(record.source).is_dir()
    )
    return (*present, *dropins.bound(manifest).binds)


def programs(runners: Iterable[Runner]) -> Mapping[str, Path]:
    """Where this host has what *runners* start; raises UnitFilesError naming what is missing."""
    found: dict[str, Path] = {}
    for need in (need for runner in dict.fromkeys(runners) for need in runner.needs):
        path = shutil.which(need.program, path=CLEAN_ENVIRONMENT["PATH"])
        if path is None:
            raise UnitFilesError(
                f"{need.program}: not on this host",
                hint=distribution.install_here((need.program,)),
            )
        found[need.program] = Path(path)
    return found


def wanted(
    served: Iterable[tuple[Runner, str]], prefix: Path, where: Mapping[str, Path]
) -> tuple[UnitFile, ...]:
    """Every file for instances below *prefix*, given as runner and suffix.

    *where* is what `programs` found.

    Raises UnitError for a prefix that cannot stand in a unit.
    """
    check_plain(str(prefix))
    texts = {SLICE: _SLICE_TEXT, TARGET: _TARGET_TEXT}
    services: dict[str, str] = {}
    for runner, suffix in served:
        if runner.name not in services:
            services[runner.name] = runner.service(prefix, where)
        # one text for all: where there is no instance name, %i is empty (systemd.unit(5))
        texts[place(runner, suffix).file] = services[runner.name]
    return tuple(
        UnitFile(name=name, text=f"{MARK}{prefix}\n{text}") for name, text in texts.items()
    )


def check(served: Iterable[tuple[Runner, str]], prefix: Path) -> tuple[UnitFile, ...]:
    """What `install` would write; raises what that would, before there is anything to start."""
    chosen = tuple(served)
    return changes(wanted(chosen, prefix, programs(runner for runner, _ in chosen)))


def install(served: Iterable[tuple[Runner, str]], prefix: Path) -> tuple[str, ...]:
    """Have systemd know the units of instances below *prefix*, given as runner and suffix.

    Returns the files that had to be written. Raises UnitError and UnitFilesError as `wanted` and
    `changes` do, before anything is touched.
    """
    todo = check(served, prefix)
    write(todo)
    # a run killed between writing and reloading is finished by the next one
    if todo or systemd.needs_reload((SLICE, TARGET, *patterns())):
        systemd.reload()
    return tuple(file.name for file in todo)


def uninstall(prefix: Path) -> tuple[str, ...]:
    """Undo `install`, once no instance is left; the files that were there. Raises as `remove`."""
    ours = owned((SLICE, TARGET), prefix)
    if TARGET in ours:
        systemd.disable((TARGET,))
    # else the empty slice stays active, and its control group with it
    systemd.end(ours)
    gone = remove(prefix)
    if gone:
        systemd.reload()
    return gone


def changes(files: Iterable[UnitFile], directory: Path = DIRECTORY) -> tuple[UnitFile, ...]:
    """Those of *files* that *directory* does not have, or has with another text of ours.

    Raises UnitFilesError for a file of somebody else's, or of another prefix of this host.
    """
    todo = []
    for file in files:
        path = directory / file.name
        there = _read(path)
        if there == file.text:
            continue
        if there:
            _check_ours(path, there, prefix=_prefix_of(file.text))
        todo.append(file)
    return tuple(todo)


def write(todo: Iterable[UnitFile], directory: Path = DIRECTORY) -> None:
    """Write each of *todo*, whole or not at all; systemd sees them after a daemon-reload."""
    for file in todo:
        try:
            put(directory / file.name, file.text.encode())
        except OSError as error:
            raise UnitFilesError(f"{directory / file.name}: {error.strerror}") from error


def remove(prefix: Path, directory: Path = DIRECTORY) -> tuple[str, ...]:
    """Remove every file of ours for *prefix*, whatever version of us wrote it; their names.

    Raises UnitFilesError, and removes nothing, if one is somebody else's or another prefix's.
    """
    ours = owned((SLICE, TARGET, *_service_files(directory)), prefix, directory)
    for name in ours:
        (directory / name).unlink()
    return ours


def owned(names: Iterable[str], prefix: Path, directory: Path = DIRECTORY) -> tuple[str, ...]:
    """Those of *names* that are there. Raises UnitFilesError for one that *prefix* does not own."""
    ours = []
    for name in names:
        path = directory / name
        there = _read(path)
        if there:
            _check_ours(path, there, prefix=str(prefix))
        if there is not None:
            ours.append(name)
    return tuple(ours)


def _service_files(directory: Path) -> Iterator[str]:
    for runner in RUNNERS.values():
        yield f"{runner.stem}.service"
        if runner.is_grouped:
            found = sorted(directory.glob(f"{runner.stem}-*@.service"))
            # an administrator may have called one so
            yield from (path.name for path in found if _prefix_of(_read(path) or "") is not None)
        else:
            yield f"{runner.stem}@.service"


def _read(path: Path) -> str | None:
    if path.is_symlink():
        # `systemctl mask` makes a link to /dev/null; an administrator's links are not ours either
        return f"link to {path.readlink()}"
    try:
        content = read(path, limit=_LIMIT)
        # empty, or NUL bytes alone: it was ours, and a power failure took its content
        return content.strip(b"\0").decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnitFilesError(f"{path}: {error.strerror}") from error


def _prefix_of(text: str) -> str | None:
    first = text.partition("\n")[0]
    return first.removeprefix(MARK) if first.startswith(MARK) else None


def _check_ours(path: Path, text: str, *, prefix: str | None) -> None:
    theirs = _prefix_of(text)
    if theirs is None:
        raise UnitFilesError(
            f"{path}: there already, and not written by nifty: left as it is",
            hint=f"move it away, if nobody needs it: mv {path} {path}.old",
        )
    if theirs != prefix:
        raise UnitFilesError(
            f"{path}: this host already has instances below {theirs}; one prefix for each host",
            hint=f"use prefix={theirs}, or remove those first: "
            f"{to_type(f'undeploy prefix={theirs}')}",
        )


_SLICE_TEXT = """\
[Unit]
Description=All nifty instances

[Slice]
MemoryAccounting=yes
TasksAccounting=yes
"""

_TARGET_TEXT = """\
[Unit]
Description=All nifty instances that start with the host

[Install]
WantedBy=multi-user.target
"""
