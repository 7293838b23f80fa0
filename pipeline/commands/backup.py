"""`doit backup`: instances are written into one file."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands import rolling
from pipeline.commands.choose import known_there, selected, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root
from pipeline.commands.tables import print_table
from pipeline.errors import NiftyError, UsageError, counted, ends
from pipeline.host.backup import save as saving
from pipeline.host.doctor import examination
from pipeline.program import to_type
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.host.backup.save import Preview, Report
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance, Known
    from pipeline.settings import Settings


@tells_damaged
def run(settings: Settings) -> Known:
    """Write the instances meant into one file."""
    if not (settings.to or settings.dry):
        raise UsageError("where to?", hint=to_type("backup to=FILE, or to=- for a pipe"))
    as_root("backup")
    layout = layout_of(settings)
    known = known_there(settings)
    chosen = selected(settings, known)
    names = [one.name for one in chosen]
    is_pipe = settings.to == "-"
    target = Path(settings.to)
    if settings.to and not is_pipe:
        saving.check_target(target, layout, overwrite=settings.overwrite)
    up = examination.running(chosen)
    running = [one for one in chosen if one.name in up]
    if settings.dry:
        _tell_preview(settings, saving.preview(layout, names))
    _refuse_running(settings, running)
    if settings.dry:
        return known
    file = (
        nullcontext(terminal.binary())
        if is_pipe
        else saving.target(target, layout, overwrite=settings.overwrite)
    )
    stopped = _stopped(layout, chosen, running) if settings.stop else nullcontext()
    with stopped, file as sink:
        live = () if settings.stop else [one.name for one in running]
        report = saving.backup(layout, names, sink, live=live)
    _tell_saved(settings, report)
    return known


def _tell_preview(settings: Settings, preview: Preview) -> None:
    if settings.format == "json":
        rows = [
            {"name": one.name, "entries": one.entries, "size": one.size} for one in preview.saved
        ]
        table = {"instances": rows, "images": dict(preview.images), "size_at_most": preview.size}
        terminal.json(json.dumps(table | {"notes": preview.notes}, indent=1) + "\n")
    else:
        lines = [(one.name, f"{one.entries:,}", f"{one.size:,}") for one in preview.saved]
        print_table(("name", "entries", "bytes"), lines)
        for note in preview.notes:
            say(note)
    count = len(preview.images)
    say(
        f"{len(preview.saved)} would be backed up with {counted(count, 'image')}: "
        f"{preview.size / 1e6:.1f} MB at most, less as far as it can be compressed"
    )


def _refuse_running(settings: Settings, running: Sequence[Instance]) -> None:
    if settings.stop and settings.live:
        raise UsageError("stop=yes and live=yes contradict each other")
    if running and not (settings.stop or settings.live):
        raise NiftyError(
            f"nothing was backed up: {ends([one.name for one in running])} "
            f"{'runs' if len(running) == 1 else 'run'}",
            hint="stop=yes stops them for as long as it takes; live=yes copies them as they run, "
            "and files that change meanwhile may be half written",
        )


@contextmanager
def _stopped(
    layout: Layout, chosen: Sequence[Instance], running: Sequence[Instance]
) -> Iterator[None]:
    """Within the block *running* are stopped; they are started again however it ends.

    So are those of *chosen* that an earlier run had stopped that was killed.
    """
    with rolling.finishing(layout, chosen):
        rolling.take_down(layout, rolling.anew(layout, running))
        yield


def _tell_saved(settings: Settings, report: Report) -> None:
    if settings.format == "json" and settings.to != "-":
        table = {
            "to": settings.to,
            "size": report.size,
            "sha256": report.sha256,
            "instances": [
                {"name": one.name, "entries": one.entries, "size": one.size} for one in report.saved
            ],
            "notes": report.notes,
            "left_out": report.left_out,
        }
        terminal.json(json.dumps(table, indent=1) + "\n")
    for note in report.notes:
        say(note)
    if report.left_out > len(report.notes):
        say(f"and {report.left_out - len(report.notes)} more")
    secret = "; it holds private keys" if settings.to != "-" else ""
    say(
        f"{len(report.saved)} backed up, {report.size / 1e6:.1f} MB, sha256 {report.sha256}{secret}"
    )
