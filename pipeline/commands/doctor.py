"""`doit doctor`: what this host lacks, and what is damaged; mended with fix=yes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands import obtain
from pipeline.commands.choose import is_choosing, known_there
from pipeline.commands.places import is_there, layout_of
from pipeline.commands.ready import as_root, of_those, typed, wanted_of
from pipeline.commands.tables import print_table
from pipeline.errors import NiftyError, ProblemsError, UsageError, reason
from pipeline.host.doctor import examination, heal, limits, remedy, standing
from pipeline.host.doctor.remedy import Fixed
from pipeline.host.doctor.rows import Row, Status
from pipeline.host.roots import images
from pipeline.host.state import records
from pipeline.host.state.records import Runner
from pipeline.host.units import sync, systemd
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline.host.doctor.examination import Examination
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """What this host lacks for so many, mended with fix=yes."""
    if settings.fix and settings.undo:
        raise UsageError("fix=yes and undo=yes contradict each other")
    found = _examined(settings)
    left: tuple[str, ...] = ()
    if settings.fix or settings.undo:
        as_root("doctor")
        fleet = _mended_fleet(settings) if settings.fix else remedy.Fixed()
        told = remedy.fix(found.asked) if settings.fix else remedy.Fixed(done=remedy.undo())
        left = (*fleet.left, *told.left)
        for line in (*fleet.done, *told.done) or (() if left else ("nothing to change",)):
            say(line)
        found = _examined(settings)
    rows = (*found.rows, *standing.rows(layout_of(settings), found.known))
    if settings.format == "json":
        terminal.json(limits.as_json(rows) + "\n")
    else:
        print_table(("", "what", "found", "needed", "or else"), [_line(row) for row in rows])
        for row in rows:
            if row.todo:
                terminal.lines(f"{row.name}: {row.found}; {row.todo}")
    failed = [row for row in rows if row.status is Status.FAIL]
    hint = found.asked.command if any(row.fixable for row in failed) and not settings.fix else None
    told_last = f"{len(failed)} of {len(rows)} would fail for {found.asked.words}"
    if left:
        raise ProblemsError("this host does not let all be mended:", [*left, told_last])
    if failed:
        raise NiftyError(told_last, hint=hint)


def _mended_fleet(settings: Settings) -> Fixed:
    """Mend what is damaged of the instances, and have systemd know them."""
    where = layout_of(settings)
    done: tuple[str, ...] = ()
    try:
        done = heal.heal(where)
        known = records.look(where)
        old = sync.outdated(where, known)
        if systemd.is_booted() and known.instances:
            done += tuple(f"wrote {path}" for path in (*old, *sync.settle(where).written))
    except OSError as error:
        return Fixed(done=done, left=(reason(error),))
    except NiftyError as error:
        return Fixed(done=done, left=(error.message,))
    return Fixed(done=done)


def _examined(settings: Settings) -> Examination:
    """What this host has for those that the command line means: to be deployed, or all there."""
    known = known_there(settings)
    if not is_choosing(settings) and known.instances:
        return of_those(settings, known.instances, known)
    is_counted = settings.name is None and not settings.names
    wanted = wanted_of(replace(settings, count=settings.count or 1) if is_counted else settings)
    # a host may be looked at before there is an image
    image = images.load(obtain.image(settings).path) if is_there(settings) else None
    return examination.examine(
        wanted,
        image,
        known=known,
        typed=typed(settings),
        runner=Runner(settings.runner) if settings.runner else None,
    )


def _line(row: Row) -> tuple[str, ...]:
    return (row.status.value, row.name, row.found, row.needed, row.why)
