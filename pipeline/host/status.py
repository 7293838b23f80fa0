"""How instances are: what runs, answers, listens, and takes of memory and disk, a row for each.

Beside `console` and the like since it sees both what is on the disk and what systemd has started.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import trees
from pipeline.host.roots import quota
from pipeline.host.units import banner, cgroup, sockets, watch
from pipeline.host.units.unit_files import group_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pipeline.host.state.records import Instance
    from pipeline.host.units.cgroup import Memory
    from pipeline.host.units.systemd import State

MOST_ASKED = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One instance: *image* is its digest; nobody is asked for an answer where nothing runs.

    *is_asked*: the answer is an SSH banner; else that a server of the instance's listens. *holder*:
    who else listens on its port, whatever is answered there. *disk* is what its root holds,
    *disk_limit* what it may hold, in bytes; *disk* None: no bound, or only root can see it.
    """

    name: str
    port: int
    image: str
    state: State
    answers: bool | None
    is_asked: bool
    memory: Memory | None
    holder: str | None = None
    disk: int | None = None
    disk_limit: int | None = None


def read(
    instances: Sequence[Instance],
    *,
    known: Iterable[Instance] = (),
    top: Path | None = None,
    prefix: Path | None = None,
) -> tuple[Row, ...]:
    """A row for each of *instances*, in their order; *top* is where systemd keeps its groups.

    *known*: all there are, one of which may hold the port of another. With *prefix*, below which
    they are, also what is on the disks of those with a bound.

    Asks every running instance's port for an SSH banner, and waits a second for it at most. That
    takes a millisecond of the host's time for each; beyond MOST_ASKED of them it looks whether the
    instance's own root listens there.
    """
    top = top or cgroup.hierarchy()
    used = _used(instances, prefix) if prefix else {}
    state = watch.states(instances)
    running = [instance for instance in instances if not state[instance.name].is_at_rest]
    is_asked = len(running) <= MOST_ASKED
    if is_asked:
        answering = banner.answering((instance.port for instance in running), seconds=1.0)
    owners = sockets.listening() or {}
    if not is_asked:
        answering = frozenset(one.port for one in running if one.base in owners.get(one.port, ()))
    held = watch.holders(instances, known or instances, owners)
    return tuple(
        Row(
            name=instance.name,
            port=instance.port,
            image=instance.image,
            state=state[instance.name],
            answers=None
            if is_at_rest
            else instance.port in answering and instance.name not in held,
            is_asked=is_asked,
            memory=None if is_at_rest else cgroup.memory(top / group_of(instance)),
            holder=held.get(instance.name),
            disk=used.get(instance.name),
            disk_limit=instance.disk or None,
        )
        for instance in instances
        for is_at_rest in (state[instance.name].is_at_rest,)
    )


def _used(instances: Iterable[Instance], prefix: Path) -> Mapping[str, int]:
    """Bytes on the disk of each of *instances* with a bound, where they can be seen."""
    found = {}
    with suppress(OSError), trees.opened(prefix) as at:
        for one in instances:
            if one.disk:
                with suppress(OSError), trees.opened(one.name, at=at) as root:
                    if use := quota.use(root):
                        found[one.name] = use.used
    return found
