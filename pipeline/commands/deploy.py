"""`doit deploy`: instances are made, systemd is told, and they are started if that is asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands import obtain
from pipeline.commands.choose import known_there, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root, refuse_deploy, wanted_of
from pipeline.commands.start import start_and_tell
from pipeline.host.doctor import facts
from pipeline.host.doctor.plan import plan
from pipeline.host.roots import access, images, mend, needs
from pipeline.host.roots import deploy as deploying
from pipeline.host.roots.images import Image
from pipeline.host.state.layout import Layout, locked, prepare
from pipeline.host.units import control, sync
from pipeline.host.wanted import Wanted
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.roots.actions import Plan
    from pipeline.host.roots.images import Image
    from pipeline.host.state.records import Instance
    from pipeline.host.wanted import Wanted
    from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a deploy did: instances *created*, *seconds*, and *notes* for the user."""

    created: int
    seconds: float
    notes: tuple[str, ...] = ()


def preview(wanted: Wanted, image: Image) -> Plan:
    """The plan of `deploy`, for `dry=yes`: nothing is touched, nothing is locked."""
    layout = Layout(wanted.prefix)
    known = _seen(layout, wanted, image)
    return plan(wanted, known, needs.of_image(image, wanted, access.keys_for(wanted)))


def deploy(wanted: Wanted, image: Image, *, wait: bool = True) -> Report:
    """Make every instance that *wanted* names and that is not there.

    With another run under way: waits or, without *wait*, raises LockedError. Raises KeysError and
    PlanError before any instance is touched, DeployError for what went wrong on the way.
    """
    began = time.monotonic()
    layout = Layout(wanted.prefix)
    granted = access.keys_for(wanted)
    prepare(layout)
    with locked(layout, wait=wait):
        known = _seen(layout, wanted, image)
        todo = plan(wanted, known, needs.of_image(image, wanted, granted))
        for warning in todo.warnings:
            say(f"warning: {warning}")
        notes = deploying.apply(
            todo,
            image,
            granted,
            known.instances,
            named=known.site.projects,
            boots=control.is_enabled,
        )
    return Report(created=len(todo.creations), seconds=time.monotonic() - began, notes=tuple(notes))


def _seen(layout: Layout, wanted: Wanted, image: Image) -> facts.Facts:
    """The facts of this host, and what of it is damaged; such an image counts as not there."""
    known = facts.gather(layout)
    try:
        is_stored = image.digest in known.images and images.is_stored(layout, image)
    except OSError:
        is_stored = False
    there = known.images if is_stored else known.images - {image.digest}
    names = {target.name for target in wanted.targets} & known.roots
    lost = mend.look(layout, (one for one in known.instances if one.name in names))
    return replace(known, images=there, lost=lost)


@tells_damaged
def run(settings: Settings) -> None:
    """Plan, check the host, apply, tell systemd, and start if asked to."""
    wanted = wanted_of(settings)
    obtained = obtain.image(settings)
    image = images.load(obtained.path)
    if not settings.dry:
        as_root("deploy")
    refuse_deploy(settings, wanted, image)
    if settings.dry:
        for item in preview(wanted, image).lines():
            terminal.lines(str(item))
        return
    obtained.remember(layout_of(settings))
    report = deploy(wanted, image)
    for note in report.notes:
        say(note)
    sync.settle(layout_of(settings))
    known = known_there(settings)
    names = {target.name for target in wanted.targets}
    chosen = tuple(one for one in known if one.name in names)
    if settings.boot:
        control.enable(chosen)
    say(f"{report.created} made in {report.seconds:.2f} s, {len(chosen)} as wanted")
    if settings.start:
        start_and_tell(settings, chosen)
    _tell_how_to_enter(settings, chosen)


def _tell_how_to_enter(settings: Settings, chosen: Sequence[Instance]) -> None:
    if chosen:
        config = layout_of(settings).ssh_config
        terminal.lines(f"ssh -F {config} {chosen[0].name}")
