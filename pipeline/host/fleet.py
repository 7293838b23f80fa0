"""Brings systemd in line with the state: unit files, and an environment for each instance.

What is on disk decides, so this finishes whatever an earlier run left undone and changes nothing
when everything is as it should be.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.host import images, runners, state, trees, units
from pipeline.host.layout import locked
from pipeline.host.runner import UnitError, environment_file
from pipeline.image.rootfs import Directory, File, Symlink
from pipeline.paths import beneath
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pipeline.host.layout import Layout
    from pipeline.host.runner import Bind, Runner
    from pipeline.host.state import Instance
    from pipeline.image.rootfs import Entry


class EnvironmentsError(NiftyError):
    """Environments of instances that cannot be written, on a full disk for one."""


def settle(layout: Layout) -> tuple[str, ...]:
    """Have systemd know all instances and no others; the unit files written or, at last, removed.

    An instance that no unit can be written for is told, and stands back. Raises EnvironmentsError,
    UnitError for the prefix, UnitFilesError, StateError or SystemdError.
    """
    # All under the lock: what was read before may be what another run has changed since, and
    # temporary files of ours would be taken for a dead one's.
    with locked(layout):
        present = state.read_all(layout)
        try:
            _write_environments(layout, present)
            used = {units.runner_of(one) for one in present}
            support(layout, used)
        except OSError as error:
            raise EnvironmentsError(
                f"{error.filename or layout.state}: {error.strerror}",
                hint="mend this, then run the same command again",
            ) from error
        if not present:
            # those of another prefix of this host are not ours to remove
            with suppress(units.UnitFilesError):
                return units.uninstall(layout.prefix)
            return ()
        return units.install(((units.runner_of(one), one.suffix) for one in present), layout.prefix)


def _write_environments(layout: Layout, present: tuple[Instance, ...]) -> None:
    folder = environment_file(layout.prefix, "").parent
    folder.mkdir(mode=0o755, exist_ok=True)
    binds: dict[str, tuple[Bind, ...]] = {}
    wanted: dict[Path, str] = {}
    for instance in present:
        if instance.image not in binds:
            binds[instance.image] = units.binds_of(images.described(layout, instance.image))
        try:
            wanted |= units.files(instance, layout, binds[instance.image])
        except UnitError as error:
            # the others go on; without the file systemd refuses to start this one
            say(f"{instance.name} cannot be started: {error.message}; {_way_out(instance)}")
    for path in folder.iterdir():
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        if not path.is_file() or path.read_text("utf-8") != text:
            state.write_atomic(layout, path, text.encode())


def _way_out(instance: Instance) -> str:
    chosen = f"names={instance.suffix or instance.name}"
    return f"doit upgrade {chosen} image=… gives it another image, doit undeploy {chosen} ends it"


def support(layout: Layout, used: Iterable[Runner]) -> None:
    """Write what the runners in use have beside their units, and remove what the others had."""
    with trees.opened(layout.state) as folder:
        for runner in set(runners.RUNNERS.values()) - set(used):
            for name in runner.support_names:
                trees.remove(folder, name)
    for runner in used:
        for entry in runner.support(layout.prefix, units.programs((runner,))):
            _put(layout, entry)


def _put(layout: Layout, entry: Entry) -> None:
    path = beneath(layout.state, entry.path)
    match entry:
        case Directory():
            path.mkdir(mode=entry.mode, exist_ok=True)
        case Symlink():
            if not path.is_symlink() or str(path.readlink()) != entry.target:
                path.unlink(missing_ok=True)
                path.symlink_to(entry.target)
        case File():
            if not path.is_file() or path.read_bytes() != entry.content:
                state.write_atomic(layout, path, entry.content, mode=entry.mode)
