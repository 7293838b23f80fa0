"""The tasks that move instances from one host to another: backup and restore."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import terminal
from pipeline.errors import NiftyError, UsageError
from pipeline.progress import say
from pipeline.tasks import before
from pipeline.tasks.host import as_root, layout_of, selected, some, task, tells_damaged
from pipeline.tasks.report import print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.host.backup import Preview, Report
    from pipeline.host.layout import Layout
    from pipeline.host.restorable import Todo
    from pipeline.host.state import Instance
    from pipeline.settings import Settings


@task
@tells_damaged
def backup(settings: Settings) -> None:
    """Write the instances meant into one file."""
    from pipeline.host import backup as saving  # noqa: PLC0415
    from pipeline.host import examination  # noqa: PLC0415

    if not (settings.to or settings.dry):
        raise UsageError("where to?", hint="doit backup to=FILE, or to=- for a pipe")
    as_root("backup")
    layout = layout_of(settings)
    chosen = selected(settings)
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
        return
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
        f"{len(preview.saved)} would be backed up with {count} image{'s' * (count != 1)}: "
        f"{preview.size / 1e6:.1f} MB at most, less as far as it can be compressed"
    )


def _refuse_running(settings: Settings, running: Sequence[Instance]) -> None:
    if settings.stop and settings.live:
        raise UsageError("stop=yes and live=yes contradict each other")
    if running and not (settings.stop or settings.live):
        raise NiftyError(
            f"nothing was backed up: {some(running)} {'runs' if len(running) == 1 else 'run'}",
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
    from pipeline.host import rolling  # noqa: PLC0415

    with rolling.finishing(layout, chosen):
        rolling.take_down(layout, running)
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


@task
@tells_damaged
def restore(settings: Settings) -> None:
    """Make the instances in a file, and start them if asked to."""
    from pipeline.host import fleet, instances, restorable, scanning, sections  # noqa: PLC0415
    from pipeline.host import restore as making  # noqa: PLC0415
    from pipeline.host.layout import check_link  # noqa: PLC0415
    from pipeline.host.rows import Stage  # noqa: PLC0415
    from pipeline.host.state import Runner, read_all  # noqa: PLC0415

    if not settings.source:
        raise UsageError("from what?", hint="doit restore from=FILE, as 'doit backup' made it")
    if not settings.dry:
        as_root("restore")
    layout = layout_of(settings)
    check_link(settings.prefix)
    wish = scanning.Wish(
        choose=lambda listed: _chosen(settings, listed),
        runner=Runner(settings.runner) if settings.runner else None,
        boot=settings.boot if "boot" in settings.given else None,
        disk=settings.disk,
        host_users=settings.users == "host",
    )
    with sections.opened(Path(settings.source)) as backup:
        scanned = scanning.scan(backup, layout, wish, typed=before.typed(settings))
        todo = restorable.decide(scanned, layout, Stage.START if settings.start else Stage.DEPLOY)
        if settings.dry:
            _tell_planned(settings, todo)
            return
        for warning in todo.warnings:
            say(f"warning: {warning}")
        todo = making.restore(backup, scanned, layout)
    names = {one.name for one in (*todo.make, *todo.done)}
    fleet.settle(layout)
    chosen = tuple(one for one in read_all(layout) if one.name in names)
    instances.enable([one for one in chosen if one.boot])
    making.end(layout)
    say(f"{len(todo.make)} restored, {len(todo.done)} were restored already")
    if settings.start:
        instances.start(chosen)
        say(f"{len(chosen)} answer SSH")
    if settings.format == "json":
        terminal.json(json.dumps([_row(one) for one in chosen], indent=1) + "\n")
    elif chosen:
        terminal.lines(f"ssh -F {layout.ssh_config} {chosen[0].name}")


def _chosen(settings: Settings, listed: Sequence[Instance]) -> tuple[Instance, ...]:
    from pipeline.host import instances  # noqa: PLC0415

    names = settings.names if settings.name is None else (f"nifty{settings.name}",)
    try:
        return instances.select(listed, names=names, count=settings.count, first=settings.first)
    except instances.UnknownError as error:
        raise instances.UnknownError(
            f"{settings.source}: {error.summary}",
            error.problems,
            hint=f"in it are {some(listed)}: doit restore from={settings.source} dry=yes",
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
