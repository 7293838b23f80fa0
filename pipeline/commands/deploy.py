"""`doit deploy`: instances are made, systemd is told, and they are started if that is asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands import obtain
from pipeline.commands.choose import tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root, refuse_deploy, wanted_of
from pipeline.commands.start import start_and_tell
from pipeline.host.doctor import facts
from pipeline.host.doctor.plan import plan
from pipeline.host.roots import access, images, mend, needs
from pipeline.host.roots import deploy as deploying
from pipeline.host.state import records
from pipeline.host.state.layout import Layout, locked, prepare
from pipeline.host.units import control, sync
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.roots.access import Access
    from pipeline.host.roots.actions import Plan
    from pipeline.host.roots.images import Image
    from pipeline.host.roots.needs import Needs
    from pipeline.host.state.records import Instance, Known
    from pipeline.host.wanted import Wanted
    from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a deploy did: instances *created*, *seconds*, *notes* for the user; *known* since."""

    created: int
    seconds: float
    notes: tuple[str, ...]
    known: Known


@tells_damaged
def run(settings: Settings) -> Known:
    """Plan, check the host, apply, tell systemd, and start if asked to."""
    wanted = wanted_of(settings)
    obtained = obtain.image(settings)
    image = images.load(obtained.path)
    if not settings.dry:
        as_root("deploy")
    found = refuse_deploy(settings, wanted, image)
    if settings.dry:
        for item in preview(wanted, image, found.known, found.needs).lines():
            terminal.lines(str(item))
        return found.known
    layout = layout_of(settings)
    prepare(layout)
    with locked(layout):
        obtained.remember(layout)
        report = _made(layout, wanted, image, found.granted, found.needs)
        for note in report.notes:
            say(note)
        sync.tell(layout, report.known)
    names = {target.name for target in wanted.targets}
    chosen = tuple(one for one in report.known.instances if one.name in names)
    if settings.boot:
        control.enable(chosen)
    say(f"{report.created} made in {report.seconds:.2f} s, {len(chosen)} as wanted")
    if settings.start:
        start_and_tell(settings, chosen, report.known)
    _tell_how_to_enter(settings, chosen)
    return report.known


def preview(wanted: Wanted, image: Image, known: Known, taken: Needs) -> Plan:
    """The plan of `deploy`, for `dry=yes`: nothing is touched, nothing is locked.

    *known*: the state, *taken*: what an instance takes.
    """
    return plan(wanted, _seen(Layout(wanted.prefix), known, wanted, image), taken)


def deploy(wanted: Wanted, image: Image, *, wait: bool = True) -> Report:
    """Make every instance that *wanted* names and that is not there; systemd is not told.

    With another run under way: waits or, without *wait*, raises LockedError. Raises KeysError and
    PlanError before any instance is touched, DeployError for what went wrong on the way.
    """
    layout = Layout(wanted.prefix)
    granted = access.keys_for(wanted)
    prepare(layout)
    with locked(layout, wait=wait):
        return _made(layout, wanted, image, granted, needs.of_image(image, wanted, granted))


def _made(
    layout: Layout, wanted: Wanted, image: Image, granted: Access | None, taken: Needs
) -> Report:
    """What `deploy` does under the lock: the state may have changed since it was looked at."""
    began = time.monotonic()
    state = records.look(layout)
    known = _seen(layout, state, wanted, image)
    todo = plan(wanted, known, taken)
    for warning in todo.warnings:
        say(f"warning: {warning}")
    done = deploying.apply(
        todo, image, granted, state, named=known.site.projects, boots=control.is_enabled
    )
    return Report(
        created=len(todo.creations),
        seconds=time.monotonic() - began,
        notes=done.notes,
        known=done.known,
    )


def _seen(layout: Layout, state: Known, wanted: Wanted, image: Image) -> facts.Facts:
    """The facts of this host, and what of it is damaged; such an image counts as not there."""
    known = facts.gather(layout, state)
    try:
        is_stored = image.digest in known.images and images.is_stored(layout, image)
    except OSError:
        is_stored = False
    there = known.images if is_stored else known.images - {image.digest}
    names = {target.name for target in wanted.targets} & known.roots
    lost = mend.look(layout, (one for one in known.instances if one.name in names))
    return replace(known, images=there, lost=lost)


def _tell_how_to_enter(settings: Settings, chosen: Sequence[Instance]) -> None:
    if chosen:
        config = layout_of(settings).ssh_config
        terminal.lines(f"ssh -F {config} {chosen[0].name}")
