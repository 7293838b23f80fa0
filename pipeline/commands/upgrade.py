"""`doit upgrade`: instances are moved to another image or runner, or back."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands import obtain, rolling
from pipeline.commands.choose import is_choosing, known_there, names_of, selected, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root, healed, refuse_start
from pipeline.errors import NiftyError, ProblemsError
from pipeline.host.roots import images
from pipeline.host.roots import upgrade as upgrading
from pipeline.host.state import owed
from pipeline.host.state.layout import locked, prepare
from pipeline.host.state.records import Runner
from pipeline.host.units import sync, systemd
from pipeline.program import to_type
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.roots.images import Image
    from pipeline.host.state.records import Instance, Known
    from pipeline.settings import Settings


@tells_damaged
def run(settings: Settings) -> Known:
    """Move instances to another image or runner, or back, one batch after the other."""
    known = known_there(settings)
    chosen = selected(settings, known)
    runner_only = settings.runner and not (settings.rollback or "image" in settings.given)
    obtained = None if runner_only or settings.rollback else obtain.image(settings)
    image = images.load(obtained.path) if obtained else None
    is_moving = not runner_only
    if settings.dry:
        if settings.runner:
            _preview_runner(settings, chosen)
        if is_moving:
            _preview_move(settings, chosen, image)
        return known
    as_root("upgrade")
    systemd.require()
    layout = layout_of(settings)
    try:
        with rolling.finishing(layout, chosen):
            if obtained:
                prepare(layout)
                with locked(layout):
                    obtained.remember(layout)
            # it may have waited for another run, which changed them
            healed(settings, known, image)
            known = sync.settle(layout).known
            if settings.runner:
                known = _change_runner(settings, known, image)
            if is_moving:
                _move(settings, selected(settings, known), image)
    except BaseException:
        # what led here is told; the next run tidies what is left
        with suppress(NiftyError):
            rolling.tidy(layout)
        raise
    return rolling.tidy(layout)


def _preview_runner(settings: Settings, chosen: Sequence[Instance]) -> None:
    for one in chosen:
        if one.runner != settings.runner:
            terminal.lines(f"{one.name}: runner {one.runner} -> {settings.runner}")


def _preview_move(settings: Settings, chosen: Sequence[Instance], image: Image | None) -> None:
    if _is_rollback_of_all(settings):
        chosen = rolling.way_back(chosen, owed.read(layout_of(settings)).back)
    for move in upgrading.preview_upgrade(layout_of(settings), chosen, image):
        terminal.lines(str(move))


def _is_rollback_of_all(settings: Settings) -> bool:
    return settings.rollback and not is_choosing(settings)


def _move(settings: Settings, chosen: Sequence[Instance], image: Image | None) -> None:
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
            f"{names_of(done.stay)} cannot be moved:",
            done.lost,
            hint=to_type("upgrade with image= and the same archive brings such an image back"),
        )


def _change_runner(settings: Settings, known: Known, image: Image | None) -> Known:
    """Have another runner start those meant, once it is known that all can be done, *image* too.

    The state as it is then.
    """
    chosen = selected(settings, known)
    if image is not None:
        upgrading.preview_upgrade(layout_of(settings), chosen, image)
    refuse_start(settings, chosen, known)
    runner = Runner(settings.runner)
    over = rolling.change_runner(layout_of(settings), chosen, runner, batch=settings.batch)
    say(f"{len(over)} started by runner={settings.runner} now")
    # another run may have removed some meanwhile
    there = rolling.anew(layout_of(settings), chosen)
    return known.without({one.suffix for one in chosen}).with_those(there)
