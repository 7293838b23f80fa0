"""`doit restore`: the instances in a file are made on this host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import terminal
from pipeline.commands import choose
from pipeline.commands.choose import known_there, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root, typed
from pipeline.errors import UsageError, ends
from pipeline.host.backup import restorable, scanning, sections
from pipeline.host.backup import restore as making
from pipeline.host.doctor.rows import Stage
from pipeline.host.state.records import Instance, Known, Runner
from pipeline.host.units import control, sync
from pipeline.program import to_type
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.backup.restorable import Todo
    from pipeline.settings import Settings


@tells_damaged
def run(settings: Settings) -> Known:
    """Make the instances in a file, and start them if asked to."""
    if not settings.source:
        raise UsageError("from what?", hint=to_type("restore from=FILE, which backup made"))
    if not settings.dry:
        as_root("restore")
    layout = layout_of(settings)
    wish = scanning.Wish(
        choose=lambda listed: _listed(settings, listed),
        runner=Runner(settings.runner) if settings.runner else None,
        boot=settings.boot if "boot" in settings.given else None,
        disk=settings.disk,
        host_users=settings.users == "host",
    )
    with sections.opened(Path(settings.source)) as backup:
        scanned = scanning.scan(backup, layout, wish, typed=typed(settings))
        todo = restorable.decide(scanned, layout, Stage.START if settings.start else Stage.DEPLOY)
        if settings.dry:
            _tell_planned(settings, todo)
            return known_there(settings)
        for warning in todo.warnings:
            say(f"warning: {warning}")
        todo = making.restore(backup, scanned, layout)
    names = {one.name for one in (*todo.make, *todo.done)}
    known = sync.settle(layout).known
    chosen = tuple(one for one in known.instances if one.name in names)
    control.enable([one for one in chosen if one.boot])
    making.end(layout)
    say(f"{len(todo.make)} restored, {len(todo.done)} were restored already")
    if settings.start:
        control.start(chosen)
        say(f"{len(chosen)} answer SSH")
    if settings.format == "json":
        terminal.json(json.dumps([_row(one) for one in chosen], indent=1) + "\n")
    elif chosen:
        terminal.lines(f"ssh -F {layout.ssh_config} {chosen[0].name}")
    return known


def _listed(settings: Settings, listed: Sequence[Instance]) -> tuple[Instance, ...]:
    names = settings.names if settings.name is None else (f"nifty{settings.name}",)
    try:
        return choose.select(listed, names=names, count=settings.count, first=settings.first)
    except choose.UnknownError as error:
        raise choose.UnknownError(
            f"{settings.source}: {error.summary}",
            error.problems,
            hint=f"in it are {ends([one.name for one in listed])}: "
            f"{to_type(f'restore from={settings.source} dry=yes')}",
        ) from None


def _tell_planned(settings: Settings, todo: Todo) -> None:
    if settings.format == "json":
        rows = [_row(one) for one in todo.make]
        terminal.json(json.dumps({"restore": rows, "warnings": todo.warnings}, indent=1) + "\n")
        return
    terminal.lines(*todo.lines())


def _row(one: Instance) -> dict[str, Any]:
    return {
        "name": one.name,
        "port": one.port,
        "image": one.image,
        "runner": one.runner,
        "users": one.users,
        "base": one.base,
        "boot": one.boot,
        "disk_limit": one.disk or None,
    }
