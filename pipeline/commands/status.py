"""`doit status`: how instances are, one row each, for a thousand in a second or two."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import terminal, trees
from pipeline.commands.choose import is_choosing, known_there, selected, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.tables import print_table
from pipeline.host.doctor import standing
from pipeline.host.roots import quota
from pipeline.host.roots.quota import MIB
from pipeline.host.state import owed
from pipeline.host.state.records import Instance
from pipeline.host.units import banner, cgroup, sockets
from pipeline.host.units.unit_files import group_of
from pipeline.host.units.watch import holders, states
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from pathlib import Path

    from pipeline.host.state.records import Instance, Known
    from pipeline.host.units.cgroup import Memory
    from pipeline.host.units.systemd import State
    from pipeline.settings import Settings

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


def rows(
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
    state = states(instances)
    running = [instance for instance in instances if not state[instance.name].is_at_rest]
    is_asked = len(running) <= MOST_ASKED
    if is_asked:
        answering = banner.answering((instance.port for instance in running), seconds=1.0)
    owners = sockets.listening() or {}
    if not is_asked:
        answering = frozenset(one.port for one in running if one.base in owners.get(one.port, ()))
    held = holders(instances, known or instances, owners)
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


def as_json(rows: Iterable[Row], *, down: Container[str] = ()) -> str:
    """The rows as a JSON list: memory in bytes, and what was counted (see cgroup.Source).

    *down*: names of those that a killed run stopped for a change, and that wait to run again.
    """
    table = [
        {
            "name": row.name,
            "port": row.port,
            "image": row.image,
            "state": row.state.value,
            "stopped_for_change": row.name in down,
            "answers": row.answers,
            "port_holder": row.holder,
            "answer_source": "banner" if row.is_asked else "socket",
            "memory": row.memory.size if row.memory else None,
            "memory_source": row.memory.source.value if row.memory else None,
            "disk": row.disk,
            "disk_limit": row.disk_limit,
        }
        for row in rows
    ]
    return json.dumps(table, indent=1) + "\n"


def as_table(rows: Iterable[Row]) -> tuple[tuple[str, ...], ...]:
    """The rows as words, a header first; digests short, memory in MB; disks if any is bounded."""
    shown = tuple(rows)
    with_disk = any(row.disk_limit for row in shown)
    head = ("name", "port", "image", "state", "ssh", "memory", *(("disk",) if with_disk else ()))
    body = (
        (
            row.name,
            str(row.port),
            row.image[:12],
            row.state.value,
            _told(row),
            f"{row.memory.size / 1e6:.1f} MB ({row.memory.source.value})" if row.memory else "-",
            *((_disk(row),) if with_disk else ()),
        )
        for row in shown
    )
    return (head, *body)


def _disk(row: Row) -> str:
    if row.disk_limit is None:
        return "-"
    used = "?" if row.disk is None else f"{row.disk / MIB:.1f}M"
    return f"{used} of {quota.told(row.disk_limit)}"


def _told(row: Row) -> str:
    if row.holder is not None:
        return f"port taken by {row.holder}"
    if row.answers is None:
        return "-"
    if not row.answers:
        return "silent"
    return "answers" if row.is_asked else "listens"


@tells_damaged
def run(settings: Settings) -> Known:
    """A table of the instances meant, or JSON."""
    # a program that reads this takes none for an answer
    known = known_there(settings)
    is_none = settings.format == "json" and not is_choosing(settings) and not known.instances
    chosen = () if is_none else selected(settings, known)
    found = rows(chosen, known=known.instances, prefix=settings.prefix)
    running = {row.name for row in found if not row.state.is_at_rest}
    down = owed.forgotten(layout_of(settings), chosen, running)
    for line in standing.forgotten_lines(down):
        say(f"warning: {line}")
    if settings.format == "json":
        terminal.json(as_json(found, down={one.name for one in down}))
        return known
    head, *lines = as_table(found)
    print_table(head, lines)
    return known
