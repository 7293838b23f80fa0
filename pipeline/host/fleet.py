"""Brings systemd in line with the state: unit files, and an environment for each instance.

What is on disk decides, so this finishes whatever an earlier run left undone and changes nothing
when everything is as it should be.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.host import dropins, images, state, units
from pipeline.host.layout import locked
from pipeline.host.runner import environment_file

if TYPE_CHECKING:
    from pipeline.host.layout import Layout
    from pipeline.host.runner import Bind
    from pipeline.host.state import Instance


class EnvironmentsError(NiftyError):
    """Environments of instances that cannot be written, on a full disk for one."""


def settle(layout: Layout) -> tuple[str, ...]:
    """Have systemd know all instances and no others; the unit files written or, at last, removed.

    Raises EnvironmentsError, UnitError, UnitFilesError, StateError or SystemdError.
    """
    # All under the lock: what was read before may be what another run has changed since, and
    # temporary files of ours would be taken for a dead one's.
    with locked(layout):
        present = state.read_all(layout)
        try:
            _write_environments(layout, present)
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
        return units.install({units.runner_of(one) for one in present}, layout.prefix)


def _write_environments(layout: Layout, present: tuple[Instance, ...]) -> None:
    folder = environment_file(layout.prefix, "").parent
    folder.mkdir(mode=0o755, exist_ok=True)
    binds: dict[str, tuple[Bind, ...]] = {}
    wanted = {}
    for instance in present:
        if instance.image not in binds:
            manifest = images.described(layout, instance.image)
            given = dropins.bound(manifest).binds
            binds[instance.image] = (*units.present(manifest.needs.binds), *given)
        path = environment_file(layout.prefix, instance.suffix)
        wanted[path.name] = units.environment(
            instance, layout, binds[instance.image], register=instance.register
        )
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            state.write_atomic(layout, path, text.encode())
