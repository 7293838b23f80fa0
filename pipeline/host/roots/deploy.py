"""Carries out a deploy's plan: every instance is written under another name and renamed.

Killed at any point, also by a power failure, an instance is absent or whole: the image, and roots
and states of a thousand at a time, are made in `.nifty/new` and forced to the disk (syncfs(2));
image and states get their names, only then the roots, and after all of those known_hosts and
ssh_config. When it returns, the names are on the disk as well. Running it again finishes what was
left.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.errors import ProblemsError, counted, reason
from pipeline.host.roots import access, images, mend, quota
from pipeline.host.roots.actions import Clean, Mend, Rebound, Rebuild, StoreImage
from pipeline.host.roots.maker import Made, Maker
from pipeline.host.roots.workers import spread
from pipeline.host.state import clients, records
from pipeline.host.state import layout as layouts
from pipeline.host.state.batch import Batch
from pipeline.host.state.layout import Layout
from pipeline.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from contextlib import AbstractContextManager

    from pipeline.host.roots.access import Access
    from pipeline.host.roots.actions import Create, Plan
    from pipeline.host.roots.images import Image
    from pipeline.host.state.records import Instance, Known
    from pipeline.progress import Step

# Shorter ones end before a bar could be read.
_BAR_FROM = 1000
# So many get their names together: forcing them to the disk has a price for each time.
_BATCH = 1000


class DeployError(ProblemsError):
    """A deploy that ended early: what is done stays, the rest was not begun or taken away."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The state after a deploy, and *notes* for the user."""

    known: Known
    notes: tuple[str, ...]


def apply(
    todo: Plan,
    image: Image,
    granted: Access | None,
    known: Known,
    *,
    named: Container[int] = (),
    boots: Callable[[str], bool],
) -> Applied:
    """Do what *todo* says, under the lock.

    *known* is all that is recorded, *named* as in `Maker`, *boots* as in `rebuild`.
    Raises DeployError; known_hosts and ssh_config are right even then, if the disk has room.
    """
    layout = Layout(todo.wanted.prefix)
    notes: list[str] = []
    try:
        with trees.opened(layout.new) as new:
            for action in todo.actions:
                if isinstance(action, Clean):
                    trees.remove(new, action.leftover)
        known = known.with_those(_rebound(todo, layout, known.instances))
        if todo.creations and granted is None:
            granted = access.make_fleet_key(layout)
            notes += _fleet_key_notes(layout, known.instances)
        batch = _begun(todo, layout, image)
        told = _mended(todo, granted, layout, known.instances, boots)
        notes += told
        if told:
            known = records.look(layout)
        if todo.creations and granted is not None:
            maker = Maker(layout, todo.wanted, image, granted, named)
            known = _create(todo, maker, batch, known)
        elif todo.actions:
            clients.put(batch, layout, known.instances)
            if not batch.commit():
                files.sync(layout.prefix)
    except OSError as error:
        raise DeployError(
            f"deploy stopped, no instance was made below {layout.prefix}:",
            [reason(error)],
            hint="mend this, then run the same command again",
        ) from error
    except KeyboardInterrupt:
        raise DeployError(
            f"deploy stopped below {layout.prefix}; no instance is half made:",
            ["interrupted"],
            hint="run the same command again to go on",
        ) from None
    return Applied(known, tuple(notes))


def _begun(todo: Plan, layout: Layout, image: Image) -> Batch:
    """What gets its names with the first instances: the image, but if any are mended from it."""
    batch = Batch(layout)
    if any(isinstance(action, StoreImage) for action in todo.actions):
        images.put(batch, layout, image)
    if any(isinstance(action, Mend | Rebuild) for action in todo.actions):
        batch.commit()
    return batch


def _fleet_key_notes(layout: Layout, present: Iterable[Instance]) -> Iterator[str]:
    yield f"no public key of yours was found; {layout.fleet_key} opens them all"
    old = sum(one.fleet for one in present)
    if old:
        they = counted(old, "instance knows", "instances know")
        yield f"the fleet's key was lost, {they} only the old one"


def _mended(
    todo: Plan,
    granted: Access | None,
    layout: Layout,
    present: tuple[Instance, ...],
    boots: Callable[[str], bool],
) -> tuple[str, ...]:
    """Do what the plan says of instances that are damaged; what was done. Raises OSError."""
    lost = {action.suffix: action.paths for action in todo.actions if isinstance(action, Mend)}
    states = {action.suffix: action.port for action in todo.actions if isinstance(action, Rebuild)}
    made, told = mend.rebuild_states(layout, states, present, boots) if states else ((), ())
    lost |= mend.look(layout, made)
    return (*told, *(mend.mend(layout, lost, granted) if lost else ()))


def _rebound(todo: Plan, layout: Layout, present: Iterable[Instance]) -> list[Instance]:
    """Those that have another bound now.

    Raises OSError with the path of a root that cannot have one.
    """
    there = {one.suffix: one for one in present}
    batch = Batch(layout)
    done = []
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
                    done.append(replace(one, disk=action.new))
                    records.record(batch, layout, done[-1])
    finally:
        batch.commit()
    return done


def _create(todo: Plan, maker: Maker, batch: Batch, known: Known) -> Known:
    """What is recorded then; what *batch* has gets its names with the first of them."""
    layout, creations = maker.layout, todo.creations
    lists, failure = Batch(layout), None
    for at in range(0, len(creations), _BATCH):
        try:
            done, problems = _make(maker, creations[at : at + _BATCH], _bar(at, len(creations)))
            known = known.with_those(maker.instance(action, made) for action, made in done)
            if not problems and at + _BATCH >= len(creations):
                failure = _failure(partial(clients.put, lists, layout, known.instances))
            if fault := _failure(partial(maker.publish, done, batch)):
                problems.append(reason(fault))
            elif not failure:
                # nobody is named there who is not there
                failure = _failure(lists.name)
        finally:
            # on a bad disk the next run does it
            with suppress(OSError):
                trees.empty(layout.new)
        if problems:
            raise _stopped(problems, creations, layout)
    if failure := failure or _failure(partial(files.sync, layout.prefix)):
        raise DeployError(
            f"{counted(len(creations), 'instance was', 'instances were')} made, all of them; "
            "ssh_config and known_hosts were not:",
            [reason(failure)],
            hint="mend this, then run the same command again",
        ) from failure
    return known


def _failure(step: Callable[[], object]) -> OSError | None:
    try:
        step()
    except OSError as error:
        return error
    return None


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
    progress: AbstractContextManager[Step | None],
) -> tuple[list[tuple[Create, Made]], list[str]]:
    """Make *part*, without names: those that were made, and what went wrong."""
    done: list[tuple[Create, Made]] = []

    @contextmanager
    def watching() -> Iterator[Callable[[int, bytes], None]]:
        with progress as step:

            def note(number: int, told: bytes) -> None:
                done.append((part[number], Made.unpack(told)))
                if step:
                    step()

            yield note

    outcome = spread(len(part), lambda: maker.start(part), watching)
    problems = [f"nifty{part[number].suffix}: {why}" for number, why in outcome.failed]
    problems += [f"a worker was killed by signal {number}" for number in outcome.died]
    if outcome.interrupted:
        problems.append("interrupted")
    return done, problems


def _stopped(problems: list[str], creations: tuple[Create, ...], layout: Layout) -> DeployError:
    """Why, how far it came, and what to type; the lists are made right from what is on the disk."""
    known = layouts.instance_roots(layout)
    whole = tuple(one for one in records.read_all(layout) if one.name in known)
    suffixes = {one.suffix for one in whole}
    done = sum(action.suffix in suffixes for action in creations)
    try:
        clients.write(layout, whole)
    except OSError as error:
        problems.append(f"known_hosts and ssh_config are not up to date: {reason(error)}")
    return DeployError(
        f"deploy stopped: {done} of {len(creations)} instances were made below {layout.prefix}, "
        "none is half made:",
        problems,
        hint="mend this, then run the same command again: it makes only those that are missing",
    )
