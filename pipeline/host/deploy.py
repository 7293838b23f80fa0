"""Deploys: facts, plan, and then every instance written under another name and renamed.

Killed at any point, also by a power failure, an instance is absent or whole: roots and states of a
thousand at a time are made in `.nifty/new` and forced to the disk (syncfs(2)), the states get their
names, and only then the roots. When it returns, the names are on the disk as well. Running it again
finishes what was left.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import ProblemsError
from pipeline.host import access, clients, facts, images, mend, quota, state, trees
from pipeline.host.batch import Batch
from pipeline.host.bounds import Rebound
from pipeline.host.layout import Layout, locked, prepare
from pipeline.host.maker import Made, Maker
from pipeline.host.needs import Needs
from pipeline.host.plan import Clean, Mend, Plan, Rebuild, StoreImage, plan
from pipeline.host.workers import spread
from pipeline.image.rootfs import Directory, File, Symlink
from pipeline.progress import bar, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pipeline.host.access import Access
    from pipeline.host.images import Image
    from pipeline.host.plan import Create
    from pipeline.host.state import Instance
    from pipeline.host.wanted import Wanted
    from pipeline.progress import Step

# Shorter ones end before a bar could be read.
_BAR_FROM = 1000
# So many get their names together: forcing them to the disk has a price for each time.
_BATCH = 1000


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
    known = _seen(layout, wanted, image)
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
        known = _seen(layout, wanted, image)
        todo = plan(wanted, known, needs_of(image, wanted, granted))
        for warning in todo.warnings:
            say(f"warning: {warning}")
        notes = apply(todo, image, granted, known)
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
        _rebound(todo, layout, known.instances)
        if todo.creations and granted is None:
            granted = access.make_fleet_key(layout)
            notes.append(f"no public key of yours was found; {layout.fleet_key} opens them all")
            old = sum(one.fleet for one in known.instances)
            if old:
                notes.append(f"the fleet's key was lost, {old} instances know only the old one")
        if any(isinstance(action, StoreImage) for action in todo.actions):
            images.store(layout, image)
        told = _mended(todo, granted, layout, known.instances)
        notes += told
        present = state.read_all(layout) if told else known.instances
        if todo.creations and granted is not None:
            _create(todo, image, granted, layout, replace(known, instances=present))
        elif todo.actions:
            clients.write(layout, present)
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


def _mended(
    todo: Plan, granted: Access | None, layout: Layout, present: tuple[Instance, ...]
) -> tuple[str, ...]:
    """Do what the plan says of instances that are damaged; what was done. Raises OSError."""
    lost = {action.suffix: action.paths for action in todo.actions if isinstance(action, Mend)}
    states = {action.suffix: action.port for action in todo.actions if isinstance(action, Rebuild)}
    made, told = mend.rebuild_states(layout, states, present) if states else ((), ())
    lost |= mend.look(layout, made)
    return (*told, *(mend.mend(layout, lost, granted) if lost else ()))


def _rebound(todo: Plan, layout: Layout, present: tuple[Instance, ...]) -> None:
    """Raises OSError with the path of a root that cannot have another bound."""
    there = {one.suffix: one for one in present}
    batch = Batch(layout)
    try:
        with trees.opened(layout.prefix) as at:
            for action in todo.actions:
                if isinstance(action, Rebound):
                    one = there[action.suffix]
                    try:
                        with trees.opened(one.name, at=at) as root:
                            quota.limit(root, action.new)
                    except OSError as error:
                        raise OSError(error.errno, error.strerror, one.name) from error
                    state.record(batch, layout, replace(one, disk=action.new))
    finally:
        batch.commit()


def _create(todo: Plan, image: Image, granted: Access, layout: Layout, known: facts.Facts) -> None:
    creations = todo.creations
    maker = Maker(layout, todo.wanted, image, granted, known.site)
    there = {one.suffix: one for one in known.instances}

    for at in range(0, len(creations), _BATCH):
        part = creations[at : at + _BATCH]
        done, problems = _make(maker, part, layout, _bar(at, len(creations)))
        there |= {action.suffix: maker.instance(action, made) for action, made in done}
        if problems:
            raise _stopped(problems, creations, layout)
    try:
        ordered = (there[suffix] for suffix in sorted(there, key=state.order))
        if not clients.write(layout, ordered):
            files.sync(layout.prefix)
    except OSError as error:
        raise DeployError(
            f"all {len(creations)} instances were made; ssh_config and known_hosts were not:",
            [_why(error)],
            hint="mend this, then run the same command again",
        ) from error


@contextmanager
def _bar(before: int, total: int) -> Iterator[Step | None]:
    """The bar of a batch that begins when *before* of *total* are done; none if it is short."""
    if total < _BAR_FROM:
        yield None
        return
    with bar("deploy", total) as step:
        step(before)
        yield step


def _make(
    maker: Maker,
    part: tuple[Create, ...],
    layout: Layout,
    progress: AbstractContextManager[Step | None],
) -> tuple[list[tuple[Create, Made]], list[str]]:
    """Make *part*: those that were made, and what went wrong."""
    done: list[tuple[Create, Made]] = []

    @contextmanager
    def watching() -> Iterator[Callable[[int, bytes], None]]:
        with progress as step:

            def note(number: int, told: bytes) -> None:
                done.append((part[number], Made.unpack(told)))
                if step:
                    step()

            yield note

    try:
        outcome = spread(len(part), lambda: maker.start(part), watching)
        problems = [f"nifty{part[number].suffix}: {why}" for number, why in outcome.failed]
        problems += [f"a worker was killed by signal {number}" for number in outcome.died]
        if outcome.interrupted:
            problems.append("interrupted")
        try:
            maker.publish(done)
        except OSError as error:
            problems.append(_why(error))
    finally:
        # on a bad disk the next run does it
        with suppress(OSError):
            trees.empty(layout.new)
    return done, problems


def _why(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def _stopped(problems: list[str], creations: tuple[Create, ...], layout: Layout) -> DeployError:
    """Why, how far it came, and what to type; the lists are made right from what is on the disk."""
    known = facts.roots(layout)
    whole = tuple(one for one in state.read_all(layout) if one.name in known)
    suffixes = {one.suffix for one in whole}
    done = sum(action.suffix in suffixes for action in creations)
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
