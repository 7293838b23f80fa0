"""Deploys: facts, plan, and then every instance written under another name and renamed.

Killed at any point, an instance is absent or whole: its root is made in `.nifty/new`, its state is
recorded, and only then the root gets its name. Running it again finishes what was left. All this
holds for a process that dies; after a power failure the file system decides what is left of the
last seconds, as no file is forced to the disk one by one.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import ProblemsError
from pipeline.host import access, clients, facts, images, state, trees
from pipeline.host.layout import Layout, locked, prepare
from pipeline.host.maker import Made, Maker
from pipeline.host.needs import Needs
from pipeline.host.plan import Clean, Plan, StoreImage, plan
from pipeline.host.workers import spread
from pipeline.image.rootfs import Directory, File, Symlink
from pipeline.progress import bar, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.host.access import Access
    from pipeline.host.images import Image
    from pipeline.host.plan import Create
    from pipeline.host.wanted import Wanted
    from pipeline.host.workers import Outcome

# Shorter ones end before a bar could be read.
_BAR_FROM = 1000


class DeployError(ProblemsError):
    """A deploy that ended early: what is done stays, the rest was not begun or taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a deploy did: instances *created*, *seconds*, and *notes* for the user."""

    created: int
    seconds: float
    notes: tuple[str, ...] = ()


def preview(wanted: Wanted, image: Image) -> Plan:
    """The plan of `deploy`, for `dry=yes`: nothing is touched, nothing is locked."""
    layout = Layout(wanted.prefix)
    known = facts.gather(layout)
    return plan(wanted, known, needs_of(image, wanted, keys_for(wanted)))


def deploy(wanted: Wanted, image: Image, *, wait: bool = True) -> Report:
    """Make every instance that *wanted* names and that is not there.

    With another run under way: waits or, without *wait*, raises LockedError. Raises KeysError and
    PlanError before any instance is touched, DeployError for what went wrong on the way.
    """
    began = time.monotonic()
    layout = Layout(wanted.prefix)
    granted = keys_for(wanted)
    prepare(layout)
    with locked(layout, wait=wait):
        known = facts.gather(layout)
        todo = plan(wanted, known, needs_of(image, wanted, granted))
        for warning in todo.warnings:
            say(f"warning: {warning}")
        notes = apply(todo, image, granted, known)
    return Report(created=len(todo.creations), seconds=time.monotonic() - began, notes=tuple(notes))


def keys_for(wanted: Wanted) -> Access | None:
    """Who may log in; None if a key for the fleet has to be made. Raises KeysError."""
    if wanted.authorized_keys is not None:
        return access.keys_of_file(wanted.authorized_keys)
    return access.present(Layout(wanted.prefix))


def needs_of(image: Image, wanted: Wanted, granted: Access | None) -> Needs:
    """What instances of *image* take on a disk."""
    entries = images.entries_of(image, wanted.share, granted or access.Access(lines=()))
    return Needs(
        digest=image.digest,
        files=tuple(len(entry.content) or 1 for entry in entries if isinstance(entry, File)),
        directories=sum(isinstance(entry, Directory) for entry in entries),
        links=sum(isinstance(entry, Symlink) for entry in entries),
        once=images.size_of(image),
        # the archive, the manifest and the folder
        once_inodes=3 + sum(entry.path.startswith("cbin/") for entry in image.rootfs),
        lacking=image.bound.problems,
    )


def apply(todo: Plan, image: Image, granted: Access | None, known: facts.Facts) -> list[str]:
    """Do what *todo* says, under the lock; what was made known to the user by it.

    Raises DeployError; known_hosts and ssh_config are right even then, if the disk has room.
    """
    layout = Layout(todo.wanted.prefix)
    notes: list[str] = []
    try:
        with trees.opened(layout.new) as new:
            for action in todo.actions:
                if isinstance(action, Clean):
                    trees.remove(new, action.leftover)
        if todo.creations and granted is None:
            granted = access.make_fleet_key(layout)
            notes.append(f"no public key of yours was found; {layout.fleet_key} opens them all")
        if any(isinstance(action, StoreImage) for action in todo.actions):
            images.store(layout, image)
        if todo.creations and granted is not None:
            _create(todo, image, granted, layout, known)
        elif todo.actions:
            clients.write(layout, known.instances)
    except OSError as error:
        raise DeployError(
            f"deploy stopped, no instance was made below {layout.prefix}:",
            [_why(error)],
            hint="mend this, then run the same command again",
        ) from error
    except KeyboardInterrupt:
        raise DeployError(
            f"deploy stopped below {layout.prefix}; no instance is half made:",
            ["interrupted"],
            hint="run the same command again to go on",
        ) from None
    return notes


def _create(todo: Plan, image: Image, granted: Access, layout: Layout, known: facts.Facts) -> None:
    creations = todo.creations
    maker = Maker(layout, todo.wanted, image, granted)
    there = {one.suffix: one for one in known.instances}

    @contextmanager
    def watching() -> Iterator[Callable[[int, bytes], None]]:
        with (
            bar("deploy", len(creations)) if len(creations) >= _BAR_FROM else nullcontext() as step
        ):

            def done(number: int, told: bytes) -> None:
                one = maker.instance(creations[number], Made.unpack(told))
                there[one.suffix] = one
                if step:
                    step()

            yield done

    try:
        outcome = spread(len(creations), lambda: maker.start(creations), watching)
    finally:
        # on a bad disk the next run does it
        with suppress(OSError):
            trees.empty(layout.new)
    if not outcome.is_whole:
        raise _stopped(outcome, creations, layout)
    try:
        clients.write(layout, (there[suffix] for suffix in sorted(there, key=state.order)))
    except OSError as error:
        raise DeployError(
            f"all {len(creations)} instances were made; ssh_config and known_hosts were not:",
            [_why(error)],
            hint="mend this, then run the same command again",
        ) from error


def _why(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def _stopped(outcome: Outcome, creations: tuple[Create, ...], layout: Layout) -> DeployError:
    """Why, how far it came, and what to type; the lists are made right from what is on the disk."""
    known = facts.roots(layout)
    whole = tuple(one for one in state.read_all(layout) if one.name in known)
    suffixes = {one.suffix for one in whole}
    done = sum(action.suffix in suffixes for action in creations)
    problems = [f"nifty{creations[number].suffix}: {why}" for number, why in outcome.failed]
    problems += [f"a worker was killed by signal {number}" for number in outcome.died]
    if outcome.interrupted:
        problems.append("interrupted")
    try:
        clients.write(layout, whole)
    except OSError as error:
        problems.append(f"known_hosts and ssh_config are not up to date: {_why(error)}")
    return DeployError(
        f"deploy stopped: {done} of {len(creations)} instances were made below {layout.prefix}, "
        "none is half made:",
        problems,
        hint="mend this, then run the same command again: it makes only those that are missing",
    )
