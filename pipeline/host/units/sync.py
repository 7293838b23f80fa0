"""Brings systemd in line with the state: unit files, and an environment for each instance.

What is on disk decides, so this finishes whatever an earlier run left undone and changes nothing
when everything is as it should be.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.errors import NiftyError, reason
from pipeline.host.binds.rules import UnitError
from pipeline.host.state import clients, kept, records
from pipeline.host.state.batch import Batch
from pipeline.host.state.layout import environment_file, locked, mounts_file
from pipeline.host.units import runners, unit_files
from pipeline.image.rootfs import Directory, File, Symlink
from pipeline.paths import beneath
from pipeline.program import to_type
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from pipeline.host.binds.rules import Bind
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance, Known
    from pipeline.host.units.runner import Runner
    from pipeline.image.rootfs import Entry


class EnvironmentsError(NiftyError):
    """Environments of instances that cannot be written, on a full disk for one."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The state that systemd was told of, and the unit files *written* or, at last, removed."""

    known: Known
    written: tuple[str, ...]


def settle(layout: Layout) -> Settled:
    """Read the state under the lock, and `tell` systemd. Raises StateError, or as that."""
    with locked(layout):
        known = records.look(layout)
        return Settled(known, tell(layout, known))


def tell(layout: Layout, known: Known) -> tuple[str, ...]:
    """Have systemd know all instances and no others; the unit files written or, at last, removed.

    *known* is all the state, read under the lock, which is held until this is done: what was read
    before may be what another run has changed since, and temporary files of ours would be taken for
    a dead one's. An instance that no unit can be written for is told, and stands back. Raises
    EnvironmentsError, UnitError for the prefix, UnitFilesError or SystemdError.
    """
    present = known.instances
    with _told_where(layout):
        write_environments(layout, known)
        # what a damaged one is started by is not known
        used = {unit_files.runner_of(one) for one in present}
        support(layout, used | set(runners.RUNNERS.values()) if known.damaged else used)
    if not present and not known.damaged:
        # those of another prefix of this host are not ours to remove
        with suppress(unit_files.UnitFilesError):
            return unit_files.uninstall(layout.prefix)
        return ()
    return _install(layout, present)


def follow(layout: Layout, suffixes: Collection[str], *, units: bool = False) -> None:
    """As `settle`, for *suffixes* alone, after a change to them, and nothing else is looked at.

    Without *units* what systemd knows of them has stayed. Raises as `settle`.
    """
    with locked(layout):
        known = records.look_at(layout, suffixes)
        with _told_where(layout):
            write_environments(layout, known, among=suffixes)
            if units:
                furnish(layout, {unit_files.runner_of(one) for one in known.instances})
        if units:
            _install(layout, known.instances)


def _install(layout: Layout, some: Iterable[Instance]) -> tuple[str, ...]:
    return unit_files.install(
        ((unit_files.runner_of(one), one.suffix) for one in some), layout.prefix
    )


@contextmanager
def _told_where(layout: Layout) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentsError(
            reason(error, layout.state),
            hint="mend this, then run the same command again",
        ) from error


def write_environments(
    layout: Layout, known: Known, *, among: Collection[str] | None = None
) -> None:
    """Have on the disk what the units of those *known* read, and nothing else.

    *among*: suffixes; files of others are not looked at. Raises OSError.
    """
    folder = environment_file(layout.prefix, "").parent
    _make_folder(folder)
    found = _environments(layout, known)
    for line in found.told:
        say(line)
    gone = [
        path.name
        for path in _there(folder, layout, among)
        if path not in found.wanted and path.name.rpartition(".")[0] not in found.kept
    ]
    with trees.opened(folder) as at:
        for name in gone:
            trees.remove(at, name)
    with Batch(layout) as batch:
        for path, text in found.wanted.items():
            if not files.holds(path, text.encode()):
                batch.put(path, text.encode())
        if not batch.commit() and gone:
            files.sync_folder(folder)


def _there(folder: Path, layout: Layout, among: Iterable[str] | None) -> Iterator[Path]:
    if among is None:
        yield from folder.iterdir()
        return
    for suffix in among:
        for path in (environment_file(layout.prefix, suffix), mounts_file(layout.prefix, suffix)):
            if os.path.lexists(path):
                yield path


def outdated(layout: Layout, known: Known) -> tuple[Path, ...]:
    """What units and ssh read and is not as `settle` would have it; nothing is written."""
    wanted = dict(_environments(layout, known).wanted)
    if known.instances and not known.damaged:
        wanted |= clients.texts(layout, known.instances)
    return tuple(path for path, text in wanted.items() if not files.holds(path, text.encode()))


@dataclass(slots=True)
class _Environments:
    """What units should read: *wanted* texts, and what of it is not known, and *told*.

    *kept*: suffixes of those whose state or image is damaged; they may run by what they have.
    """

    wanted: dict[Path, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)


def _environments(layout: Layout, known: Known) -> _Environments:
    found = _Environments(kept={one.suffix for one in known.damaged})
    binds: dict[str, tuple[Bind, ...]] = {}
    for digest in dict.fromkeys(one.image for one in known.instances):
        try:
            binds[digest] = unit_files.binds_of(kept.described(layout, digest))
        except kept.ImageError as error:
            found.told.append(f"warning: {error}")
    for one in known.instances:
        if one.image not in binds:
            found.kept.add(one.suffix)
            continue
        try:
            found.wanted |= unit_files.files(one, layout, binds[one.image])
        except UnitError as error:
            # the others go on; without the file systemd refuses to start this one
            line = f"{one.name} cannot be started: {error.message}; {_way_out(one)}"
            found.told.append(line)
    return found


def _way_out(instance: Instance) -> str:
    chosen = f"names={instance.suffix or instance.name}"
    return (
        f"{to_type(f'upgrade {chosen} image=…')} gives it another image, "
        f"{to_type(f'undeploy {chosen}')} ends it"
    )


def support(layout: Layout, used: Iterable[Runner]) -> None:
    """Write what the runners in use have beside their units, and remove what the others had."""
    with trees.opened(layout.state) as folder:
        for runner in set(runners.RUNNERS.values()) - set(used):
            for name in runner.support_names:
                trees.remove(folder, name)
    furnish(layout, used)


def furnish(layout: Layout, used: Iterable[Runner]) -> None:
    """Write what the runners in use have beside their units. Raises OSError, UnitFilesError."""
    with Batch(layout) as batch:
        for runner in used:
            for entry in runner.support(layout.prefix, unit_files.programs((runner,))):
                _put(batch, layout, entry)
        batch.commit()


def _put(batch: Batch, layout: Layout, entry: Entry) -> None:
    path = beneath(layout.state, entry.path)
    match entry:
        case Directory():
            _make_folder(path, entry.mode)
        case Symlink():
            if not path.is_symlink() or str(path.readlink()) != entry.target:
                with trees.opened(path.parent) as above:
                    trees.remove(above, path.name)
                path.symlink_to(entry.target)
        case File():
            if not files.holds(path, entry.content):
                batch.put(path, entry.content, mode=entry.mode)


def _make_folder(path: Path, mode: int = 0o755) -> None:
    if not path.is_dir() or path.is_symlink():
        with trees.opened(path.parent) as above:
            trees.remove(above, path.name)
        path.mkdir(mode=mode)
