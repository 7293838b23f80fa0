"""`doit status`: how instances are, one row each, for a thousand in a second or two."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands.choose import is_choosing, known_there, selected, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.tables import print_table
from pipeline.host import status
from pipeline.host.doctor import standing
from pipeline.host.roots import quota
from pipeline.host.roots.quota import MIB
from pipeline.host.state import owed
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from pipeline.host.state.records import Known
    from pipeline.host.status import Row
    from pipeline.settings import Settings


@tells_damaged
def run(settings: Settings) -> Known:
    """A table of the instances meant, or JSON."""
    # a program that reads this takes none for an answer
    known = known_there(settings)
    is_none = settings.format == "json" and not is_choosing(settings) and not known.instances
    chosen = () if is_none else selected(settings, known)
    found = status.read(chosen, known=known.instances, prefix=settings.prefix)
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
