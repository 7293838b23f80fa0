"""Brings systemd in line with the state: unit files, and an environment for each instance.

What is on disk decides, so this finishes whatever an earlier run left undone and changes nothing
when everything is as it should be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.host import images, state, units
from pipeline.host.layout import locked
from pipeline.host.runner import environment_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.host.layout import Layout
    from pipeline.host.runner import Bind
    from pipeline.host.state import Instance


def settle(layout: Layout, instances: Iterable[Instance]) -> tuple[str, ...]:
    """Have systemd know all *instances*; the unit files that had to be written.

    Environments of instances that are gone are removed. Raises UnitError, UnitFilesError,
    StateError or SystemdError.
    """
    present = tuple(instances)
    with locked(layout):  # another run would take a temporary file of ours for a dead one's
        _write_environments(layout, present)
    runners = {units.runner_of(one) for one in present}
    return units.install(runners, layout.prefix) if present else ()


def _write_environments(layout: Layout, present: tuple[Instance, ...]) -> None:
    folder = environment_file(layout.prefix, "").parent
    folder.mkdir(mode=0o755, exist_ok=True)
    binds: dict[str, tuple[Bind, ...]] = {}
    wanted = {}
    for instance in present:
        if instance.image not in binds:
            needs = images.described(layout, instance.image).needs
            binds[instance.image] = units.present(needs.binds)
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
