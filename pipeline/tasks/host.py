"""The tasks of the second half: deploy, start, stop, status, upgrade, undeploy, doctor, ssh.

All of them always run: the host's own state is the truth, doit's database knows nothing of it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import terminal
from pipeline.errors import NiftyError, ProblemsError, UsageError
from pipeline.progress import say
from pipeline.tasks import before, build
from pipeline.tasks.actions import PLAIN_IO, Task, action

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.host.examination import Examination
    from pipeline.host.images import Image
    from pipeline.host.layout import Layout
    from pipeline.host.remedy import Fixed
    from pipeline.host.rows import Row
    from pipeline.host.state import Damaged, Instance
    from pipeline.host.wanted import Wanted
    from pipeline.settings import Settings


def task(function: Callable[[Settings], Any]) -> Callable[[Settings], Task]:
    """A maker of a task that runs *function* with this run's settings, whatever doit remembers."""

    def maker(settings: Settings) -> Task:
        return {
            "actions": [(action(function), [settings])],
            "uptodate": [False],
            "io": PLAIN_IO,
            "meta": {"quiet": True},
        }

    return maker


def as_root(what: str) -> None:
    if os.geteuid() != 0:
        raise NiftyError(
            f"{what} needs root: it writes below the prefix and tells systemd",
            hint=f"sudo .venv/bin/doit {what} …",
        )


def layout_of(settings: Settings) -> Layout:
    from pipeline.host.layout import Layout  # noqa: PLC0415

    return Layout(settings.prefix)


def _known(settings: Settings) -> tuple[Instance, ...]:
    from pipeline.host import state  # noqa: PLC0415

    return state.read_all(layout_of(settings))


def _chosen(settings: Settings) -> tuple[tuple[Instance, ...], tuple[Damaged, ...]]:
    """The instances the command line means, and the state files of such that cannot be used."""
    from pipeline.host import instances, state  # noqa: PLC0415

    known = state.look(layout_of(settings))
    names = settings.names if settings.name is None else (f"nifty{settings.name}",)
    count, first = settings.count, settings.first
    lost = [one.suffix for one in known.damaged]
    chosen = instances.select(known.instances, names=names, count=count, first=first, damaged=lost)
    damaged = (
        one
        for one in known.damaged
        if instances.means(one.suffix, names=names, count=count, first=first)
    )
    return chosen, tuple(damaged)


def selected(settings: Settings) -> tuple[Instance, ...]:
    """The instances the command line means: all, or name=, names=, count= and first=.

    Those whose state cannot be used are left out. Raises DamagedError if no other is meant.
    """
    from pipeline.host import state  # noqa: PLC0415

    chosen, damaged = _chosen(settings)
    if not chosen:
        state.refuse(damaged)
    return chosen


def tells_damaged(function: Callable[[Settings], None]) -> Callable[[Settings], None]:
    """*function*, after which all state files that cannot be used are an error."""

    @wraps(function)
    def telling(settings: Settings) -> None:
        from pipeline.host import state  # noqa: PLC0415

        function(settings)
        state.refuse(state.look(layout_of(settings)).damaged)

    return telling


def _is_choosing(settings: Settings) -> bool:
    """Whether the command line means certain instances, not all there are."""
    some = settings.name is not None or bool(settings.names) or settings.count is not None
    return some or settings.first != 1


def image_path(settings: Settings) -> Path:
    if settings.image_is_path:
        return Path(settings.image)
    path = build.artifacts(settings)[0]
    if not path.is_file():
        raise NiftyError(
            f"{path}: not built yet", hint="doit build, as an ordinary user; or image=PATH"
        )
    return path


def _wanted(settings: Settings) -> Wanted:
    from pipeline.host import wanted  # noqa: PLC0415
    from pipeline.host.state import Runner, Share, Users  # noqa: PLC0415

    if settings.name is not None:
        targets = wanted.named([f"nifty{settings.name}"], port=settings.port)
    elif settings.names:
        targets = wanted.named(settings.names, port=settings.port)
    else:
        if settings.count is None:
            raise UsageError("how many?", hint="doit deploy count=10, or name=slick port=2100")
        targets = wanted.numbered(settings.count, first=settings.first, port=settings.port)
    keys = Path(settings.authorized_keys) if settings.authorized_keys else None
    return wanted.Wanted(
        targets=targets,
        prefix=settings.prefix,
        share=Share(settings.share),
        users=Users(settings.users),
        runner=Runner(settings.runner or Runner.NSPAWN),
        boot=settings.boot,
        register=settings.register,
        authorized_keys=keys,
        disk=settings.disk,
    )


@task
@tells_damaged
def deploy(settings: Settings) -> None:
    """Plan, check the host, apply, tell systemd, and start if asked to."""
    from pipeline.host import deploy as deploying  # noqa: PLC0415
    from pipeline.host import fleet, images, instances  # noqa: PLC0415

    wanted = _wanted(settings)
    image = images.load(image_path(settings))
    if not settings.dry:
        as_root("deploy")
    before.refuse_deploy(settings, wanted, image)
    if settings.dry:
        for item in deploying.preview(wanted, image).lines():
            terminal.lines(str(item))
        return
    report = deploying.deploy(wanted, image)
    for note in report.notes:
        say(note)
    fleet.settle(layout_of(settings))
    known = _known(settings)
    names = {target.name for target in wanted.targets}
    chosen = tuple(one for one in known if one.name in names)
    if settings.boot:
        instances.enable(chosen)
    say(f"{report.created} made in {report.seconds:.2f} s, {len(chosen)} as wanted")
    if settings.start:
        _start(settings, chosen)
    _tell_how_to_enter(settings, chosen)


def _tell_how_to_enter(settings: Settings, chosen: Sequence[Instance]) -> None:
    if chosen:
        config = layout_of(settings).ssh_config
        terminal.lines(f"ssh -F {config} {chosen[0].name}")


def _healed(
    settings: Settings, chosen: Sequence[Instance], image: Image | None = None
) -> tuple[Instance, ...]:
    """*chosen* as they are once what they would not run without is mended, if that is lost."""
    from pipeline.host import heal  # noqa: PLC0415

    try:
        told = heal.heal_if_needed(layout_of(settings), chosen, image)
    except OSError as error:
        raise _not_mended(error) from error
    for line in told:
        say(line)
    return selected(settings) if told else tuple(chosen)


def _not_mended(error: OSError) -> NiftyError:
    return NiftyError(
        f"what is damaged cannot be mended: {error.filename}: {error.strerror}",
        hint="mend this, then run the same command again",
    )


@task
@tells_damaged
def start(settings: Settings) -> None:
    """Start the instances meant, and wait for their SSH banners."""
    from pipeline.host import fleet, systemd  # noqa: PLC0415

    as_root("start")
    systemd.require()
    chosen = _healed(settings, selected(settings))
    before.refuse_start(settings, chosen)
    fleet.settle(layout_of(settings))
    _start(settings, chosen)


def _start(settings: Settings, chosen: Sequence[Instance]) -> None:
    from pipeline.host import instances, owed  # noqa: PLC0415

    instances.start(chosen, known=_known(settings))
    owed.drop(layout_of(settings), run=[one.suffix for one in chosen])
    say(f"{len(chosen)} answer SSH")


@task
@tells_damaged
def stop(settings: Settings) -> None:
    """Stop the instances meant, and wait until nothing of them runs."""
    from pipeline.host import instances, owed, systemd  # noqa: PLC0415

    as_root("stop")
    systemd.require()
    chosen = selected(settings)
    owed.drop(layout_of(settings), run=[one.suffix for one in chosen])
    instances.stop(chosen)
    say(f"{len(chosen)} stopped")


@task
@tells_damaged
def restart(settings: Settings) -> None:
    """Stop, then start."""
    from pipeline.host import fleet, rolling, systemd  # noqa: PLC0415

    as_root("restart")
    systemd.require()
    chosen = _healed(settings, selected(settings))
    # before any of them is stopped
    before.refuse_start(settings, chosen)
    fleet.settle(layout_of(settings))
    rolling.restart(layout_of(settings), chosen)
    say(f"{len(chosen)} answer SSH")


@task
@tells_damaged
def status(settings: Settings) -> None:
    """A table of the instances meant, or JSON."""
    from pipeline.host import standing  # noqa: PLC0415
    from pipeline.host import status as reading  # noqa: PLC0415
    from pipeline.tasks.report import print_table  # noqa: PLC0415

    # a program that reads this takes none for an answer
    is_none = settings.format == "json" and not _is_choosing(settings) and not _known(settings)
    chosen = () if is_none else selected(settings)
    rows = reading.rows(chosen, known=_known(settings), prefix=settings.prefix)
    running = {row.name for row in rows if not row.state.is_at_rest}
    for line in standing.forgotten_lines(layout_of(settings), chosen, running):
        say(f"warning: {line}")
    if settings.format == "json":
        terminal.json(reading.as_json(rows))
        return
    head, *lines = reading.as_table(rows)
    print_table(head, lines)


@task
def ssh(settings: Settings) -> None:
    """Become ssh, in one instance."""
    from pipeline.host import instances  # noqa: PLC0415
    from pipeline.run import replace  # noqa: PLC0415

    if settings.name is None:
        raise UsageError("which one?", hint="doit ssh name=7")
    (chosen,) = selected(settings)
    terminal.flush()
    replace(instances.ssh_argv(chosen, settings.prefix))


@task
@tells_damaged
def upgrade(settings: Settings) -> None:
    """Move instances to another image or runner, or back, one batch after the other."""
    from pipeline.host import fleet, images, rolling, systemd, units  # noqa: PLC0415

    chosen = selected(settings)
    runner_only = settings.runner and not (settings.rollback or "image" in settings.given)
    image = None if runner_only or settings.rollback else images.load(image_path(settings))
    is_moving = not runner_only
    if settings.dry:
        if settings.runner:
            _preview_runner(settings, chosen)
        if is_moving:
            _preview_move(settings, chosen, image)
        return
    as_root("upgrade")
    systemd.require()
    with rolling.finishing(layout_of(settings), chosen):
        chosen = _healed(settings, chosen, image)
        if settings.runner:
            _change_runner(settings, chosen, image)
        if is_moving:
            _move(settings, selected(settings), image)
    # where nothing moved, there may be units of an older version of this program
    served = [(units.runner_of(one), one.suffix) for one in _known(settings)]
    if units.check(served, settings.prefix):
        fleet.settle(layout_of(settings))


def _preview_runner(settings: Settings, chosen: Sequence[Instance]) -> None:
    for one in chosen:
        if one.runner != settings.runner:
            terminal.lines(f"{one.name}: runner {one.runner} -> {settings.runner}")


def _preview_move(settings: Settings, chosen: Sequence[Instance], image: Image | None) -> None:
    from pipeline.host import owed, rolling  # noqa: PLC0415
    from pipeline.host import upgrade as upgrading  # noqa: PLC0415

    if _is_rollback_of_all(settings):
        chosen = rolling.way_back(chosen, owed.read(layout_of(settings)).back)
    suffixes = [one.suffix for one in chosen]
    for move in upgrading.preview_upgrade(settings.prefix, suffixes, image):
        terminal.lines(str(move))


def _is_rollback_of_all(settings: Settings) -> bool:
    return settings.rollback and not _is_choosing(settings)


def _move(settings: Settings, chosen: Sequence[Instance], image: Image | None) -> None:
    from pipeline.host import owed, rolling  # noqa: PLC0415

    layout, batch = layout_of(settings), settings.batch
    if _is_rollback_of_all(settings):
        done = rolling.roll_back(layout, chosen, batch=batch)
        there = 0
    else:
        # nobody goes on with a rollback from before this
        owed.drop(layout, back=owed.read(layout).back)
        done = rolling.upgrade(layout, chosen, image, batch=batch)
        there = len(chosen) - len(done.moved) - len(done.stay)
    for kept in done.kept:
        terminal.lines(str(kept))
    say(f"{len(done.moved)} moved, {there} were there already")
    if done.stay:
        raise ProblemsError(
            f"{_some(done.stay)} cannot be moved:",
            done.lost,
            hint="doit upgrade with image= and the same archive brings such an image back",
        )


def _change_runner(settings: Settings, chosen: Sequence[Instance], image: Image | None) -> None:
    """Have another runner start *chosen*, once it is known that all can be done, *image* too."""
    from pipeline.host import rolling  # noqa: PLC0415
    from pipeline.host import upgrade as upgrading  # noqa: PLC0415
    from pipeline.host.state import Runner  # noqa: PLC0415

    if image is not None:
        upgrading.preview_upgrade(settings.prefix, [one.suffix for one in chosen], image)
    before.refuse_start(settings, chosen)
    runner = Runner(settings.runner)
    over = rolling.change_runner(layout_of(settings), chosen, runner, batch=settings.batch)
    say(f"{len(over)} started by runner={settings.runner} now")


@task
@tells_damaged
def undeploy(settings: Settings) -> None:
    """Stop instances and remove them with all their data."""
    from pipeline.host import rolling, state, systemd  # noqa: PLC0415
    from pipeline.host import undeploy as removing  # noqa: PLC0415

    where = layout_of(settings)
    known = state.look(where)
    if not (known.instances or known.damaged or settings.dry or os.geteuid()):
        rolling.clear_up(where)
    chosen, damaged = _chosen(settings)
    lost = [one.suffix for one in damaged]
    suffixes = [*(one.suffix for one in chosen), *lost]
    if settings.dry:
        for item in removing.preview_undeploy(settings.prefix, suffixes):
            terminal.lines(str(item))
        return
    as_root("undeploy")
    if not settings.yes:
        _ask(f"remove {_some(suffixes)} below {settings.prefix} with all data in them?")
    systemd.require()
    rolling.undeploy(where, chosen, lost)
    say(f"{len(suffixes)} removed")


def some(chosen: Sequence[Instance]) -> str:
    """*chosen* by their names, or if these are many the first, the last and how many."""
    return _some([one.suffix for one in chosen])


def _some(suffixes: Sequence[str]) -> str:
    names = [f"nifty{suffix}" for suffix in suffixes]
    return ", ".join(names) if len(names) <= 5 else f"{names[0]} … {names[-1]} ({len(names)})"


def _ask(question: str) -> None:
    answer = terminal.ask(f"{question} [y/N] ")
    if answer is None:
        raise UsageError(f"{question} There is nobody to ask", hint="say so beforehand: yes=yes")
    if answer.strip().lower() not in ("y", "yes"):
        raise NiftyError("nothing was removed")


@task
def doctor(settings: Settings) -> None:
    """What this host lacks for so many, mended with fix=yes."""
    from pipeline.host import limits, remedy, standing  # noqa: PLC0415
    from pipeline.host.rows import Status  # noqa: PLC0415
    from pipeline.tasks.report import print_table  # noqa: PLC0415

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
    rows = (*found.rows, *standing.rows(layout_of(settings)))
    if settings.format == "json":
        terminal.json(limits.as_json(rows) + "\n")
    else:
        print_table(("", "what", "found", "needed", "or else"), [_line(row) for row in rows])
        for row in rows:
            if row.todo:
                terminal.lines(f"{row.name}: {row.found}; {row.todo}")
    failed = [row for row in rows if row.status is Status.FAIL]
    hint = found.asked.command if any(row.fixable for row in failed) and not settings.fix else None
    told_last = f"{len(failed)} of {len(rows)} would fail for {found.asked.asked}"
    if left:
        raise ProblemsError("this host does not let all be mended:", [*left, told_last])
    if failed:
        raise NiftyError(told_last, hint=hint)


def _mended_fleet(settings: Settings) -> Fixed:
    """Mend what is damaged of the instances, and have systemd know them."""
    from pipeline.host import fleet, heal, state, systemd  # noqa: PLC0415
    from pipeline.host.remedy import Fixed  # noqa: PLC0415

    where = layout_of(settings)
    done: tuple[str, ...] = ()
    try:
        done = heal.heal(where)
        old = fleet.outdated(where, state.look(where))
        if systemd.is_booted() and state.read_all(where):
            done += tuple(f"wrote {path}" for path in (*old, *fleet.settle(where)))
    except OSError as error:
        return Fixed(done=done, left=(f"{error.filename}: {error.strerror}",))
    except NiftyError as error:
        return Fixed(done=done, left=(error.message,))
    return Fixed(done=done)


def _examined(settings: Settings) -> Examination:
    """What this host has for those that the command line means: to be deployed, or all there."""
    from pipeline.host import examination, images  # noqa: PLC0415
    from pipeline.host.state import Runner  # noqa: PLC0415

    known = _known(settings)
    if not _is_choosing(settings) and known:
        return before.of_those(settings, known)
    is_counted = settings.name is None and not settings.names
    wanted = _wanted(replace(settings, count=settings.count or 1) if is_counted else settings)
    # a host may be looked at before there is an image
    is_named = "image" in settings.given or build.artifacts(settings)[0].is_file()
    image = images.load(image_path(settings)) if is_named else None
    return examination.examine(
        wanted,
        image,
        typed=before.typed(settings),
        runner=Runner(settings.runner) if settings.runner else None,
    )


def _line(row: Row) -> tuple[str, ...]:
    return (row.status.value, row.name, row.found, row.needed, row.why)
