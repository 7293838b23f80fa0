"""Upgrades and removals of running instances: stop, change, start, one batch after the other."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pipeline import progress
from pipeline.errors import NiftyError
from pipeline.host import fleet, instances, state, status, systemd
from pipeline.host import undeploy as removing
from pipeline.host import upgrade as upgrading
from pipeline.host.batch import Batch
from pipeline.host.instances import FleetError
from pipeline.host.layout import locked
from pipeline.host.runners import RUNNERS
from pipeline.host.units import launch_of, unit_of
from pipeline.host.upgrade import UpgradeError, UpgradeReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.host.images import Image
    from pipeline.host.layout import Layout
    from pipeline.host.state import Instance
    from pipeline.host.upgrade import Kept


T = TypeVar("T")


def way_back(known: Sequence[Instance]) -> tuple[Instance, ...]:
    """Those of *known* that were upgraded, for a rollback of nobody in particular.

    Raises UpgradeError if there are none, or if they would part: one rollback undoes one upgrade.
    """
    upgraded = tuple(one for one in known if one.previous is not None)
    ways: dict[tuple[str, str | None], list[Instance]] = {}
    for one in upgraded:
        ways.setdefault((one.image, one.previous), []).append(one)
    if len(ways) == 1:
        return upgraded
    raise UpgradeError(
        "nothing was rolled back:",
        [
            f"{len(some)} instances, {some[0].name} first, would go from image {image[:12]} "
            f"to {(previous or '')[:12]}"
            for (image, previous), some in ways.items()
        ]
        or ["no instance was ever upgraded, so there is no way back"],
        hint="say which: names=, or first= and count=" if ways else None,
    )


def change_runner(
    layout: Layout, chosen: Sequence[Instance], runner: state.Runner, *, batch: int
) -> tuple[Instance, ...]:
    """Have *chosen* started by *runner* from now on, *batch* at a time; those that were not.

    What ran runs again and answers SSH before the next batch begins, what starts with the host goes
    on doing so. Raises FleetError at the first batch that does not come back, UpgradeError for what
    *runner* cannot start.
    """
    todo = [one for one in chosen if one.runner is not runner]
    _refuse(layout, todo, runner)
    with progress.bar("runner", len(todo)) as step:
        for at in range(0, len(todo), batch):
            part = todo[at : at + batch]
            _change_batch(layout, part, runner)
            step(len(part))
    return tuple(todo)


def _refuse(layout: Layout, todo: Sequence[Instance], runner: state.Runner) -> None:
    refusals = {
        one.name: why
        for one in todo
        if (why := RUNNERS[runner].refusal(launch_of(one, layout, ())))
    }
    if refusals:
        raise UpgradeError(
            "no instance was moved to another runner:",
            [f"{name}: {why}" for name, why in refusals.items()],
        )


def _change_batch(layout: Layout, part: Sequence[Instance], runner: state.Runner) -> None:
    booting = {one.name for one in instances.enabled(part)}

    def enable() -> None:
        instances.enable([one for one in _anew(layout, part) if one.name in booting])

    def change() -> None:
        instances.retire(part)
        try:
            with locked(layout):
                batch = Batch(layout)
                for one in part:
                    state.record(batch, layout, replace(one, runner=runner))
                batch.commit()
        except OSError as error:
            with suppress(NiftyError):
                enable()
            raise UpgradeError(
                "the runner was not changed everywhere:",
                [f"{error.filename or layout.state}: {error.strerror}"],
                hint="mend this, then run the same command again: it finishes what is left",
            ) from error
        fleet.settle(layout)
        enable()

    _restarted(
        layout,
        part,
        change,
        told=f"stopped: of {len(part)} instances not all came back with runner={runner}:",
        hint=f"'doit upgrade runner={part[0].runner} {_meaning(part)}' goes back",
    )


def _restarted(
    layout: Layout, part: Sequence[Instance], change: Callable[[], T], *, told: str, hint: str
) -> T:
    """What *change* gave, done while *part* is stopped; what ran runs again and answers SSH.

    Raises FleetError with *told* and *hint* if not all of it does.
    """
    # one that failed was meant to run, as after an image that does not come up
    states = status.states(part)
    wanted = [one for one in part if states[one.name] is not systemd.State.INACTIVE]
    try:
        instances.stop(wanted)
        result = change()
    except BaseException:
        # whatever went wrong is told; nobody's server stays down for it
        with suppress(NiftyError):
            fleet.settle(layout)
            systemd.start(map(unit_of, _anew(layout, wanted)))
        raise
    try:
        instances.start(_anew(layout, wanted))
    except FleetError as error:
        raise FleetError(told, error.problems, hint=hint) from error
    return result


def _anew(layout: Layout, some: Sequence[Instance]) -> tuple[Instance, ...]:
    """*some* as the state has them by now."""
    return tuple(found for one in some if (found := state.read(layout, one.suffix)))


def upgrade(
    layout: Layout, chosen: Sequence[Instance], image: Image | None, *, batch: int
) -> UpgradeReport:
    """Move *chosen* to *image* (None: each back to its previous one), *batch* at a time.

    What ran runs again and answers SSH before the next batch begins. Raises FleetError at the first
    batch that does not come back, UpgradeError for what cannot be moved.
    """
    suffixes = [one.suffix for one in chosen]
    moves = upgrading.preview_upgrade(layout.prefix, suffixes, image)
    moving = {move.suffix for move in moves}
    todo = [one for one in chosen if one.suffix in moving]
    moved: list[str] = []
    kept: list[Kept] = []
    with progress.bar("upgrade", len(todo)) as step:
        for at in range(0, len(todo), batch):
            part = todo[at : at + batch]
            report = _upgrade_batch(layout, part, image, before=todo[:at])
            moved += report.moved
            kept += report.kept
            step(len(part))
    return UpgradeReport(moved=tuple(moved), kept=tuple(kept))


def _upgrade_batch(
    layout: Layout, part: Sequence[Instance], image: Image | None, *, before: Sequence[Instance]
) -> UpgradeReport:
    def change() -> UpgradeReport:
        report = upgrading.upgrade(layout.prefix, [one.suffix for one in part], image)
        fleet.settle(layout)
        return report

    moved = _meaning([*before, *part])
    return _restarted(
        layout,
        part,
        change,
        told=f"upgrade stopped after {len(before)} instances, "
        f"the next {len(part)} did not all come back:",
        hint=f"'doit upgrade rollback=yes {moved}' brings the previous image back",
    )


def _meaning(some: Sequence[Instance]) -> str:
    """The variables that mean exactly *some* instances."""
    suffixes = [one.suffix for one in some]
    first = suffixes[0]
    if first.isdecimal():
        row = [str(number) for number in range(int(first), int(first) + len(suffixes))]
        if row == suffixes:
            return f"first={first} count={len(suffixes)}"
    return f"names={','.join(suffix or 'nifty' for suffix in suffixes)}"


def undeploy(layout: Layout, chosen: Sequence[Instance], damaged: Sequence[str] = ()) -> None:
    """Stop *chosen*, take them out of the boot, and remove them; the last one takes the units.

    So for *damaged*, suffixes of instances whose state cannot be used, whatever they run by. Raises
    FleetError, UndeployError, UnitFilesError.
    """
    states = status.states(chosen)
    instances.stop([one for one in chosen if not states[one.name].is_at_rest])
    instances.retire(chosen)
    instances.end_unknown(damaged)
    removing.undeploy(layout.prefix, [*(one.suffix for one in chosen), *damaged])
    fleet.settle(layout)


def clear_up(layout: Layout) -> None:
    """Finish a removal that was killed when its last instance was gone already. Raises as that."""
    if layout.state.is_dir():
        undeploy(layout, ())
