"""Upgrades and removals of running instances: stop, change, start, one batch after the other."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pipeline import progress
from pipeline.errors import NiftyError, counted, reason
from pipeline.host.roots import differences
from pipeline.host.roots import undeploy as removing
from pipeline.host.roots import upgrade as upgrading
from pipeline.host.roots.upgrade import UpgradeError, UpgradeReport
from pipeline.host.state import owed, records
from pipeline.host.state.batch import Batch
from pipeline.host.state.layout import changing, locked
from pipeline.host.units import control, sync, systemd, watch
from pipeline.host.units.control import FleetError
from pipeline.host.units.runners import RUNNERS
from pipeline.host.units.unit_files import launch_of, unit_of
from pipeline.host.wanted import meaning
from pipeline.program import to_type
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.host.roots.differences import Differences, Kept
    from pipeline.host.roots.images import Image
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance, Known


T = TypeVar("T")


def way_back(
    known: Sequence[Instance], going: frozenset[str] = frozenset()
) -> tuple[Instance, ...]:
    """Those of *known* that were upgraded, for a rollback of nobody in particular.

    After one that was killed, which led away from the images *going*: those that still have them.
    Raises UpgradeError if there are none, or if they would part: one rollback undoes one upgrade.
    """
    upgraded = tuple(one for one in known if one.previous is not None)
    if going:
        return tuple(one for one in upgraded if one.image in going)
    ways: dict[tuple[str, str | None], list[Instance]] = {}
    for one in upgraded:
        ways.setdefault((one.image, one.previous), []).append(one)
    if len(ways) == 1:
        return upgraded
    raise UpgradeError(
        "nothing was rolled back:",
        [
            f"{counted(len(some))}, {some[0].name} first, would go from image {image[:12]} "
            f"to {(previous or '')[:12]}"
            for (image, previous), some in ways.items()
        ]
        or ["no instance was ever upgraded, so there is no way back"],
        hint="say which: names=, or first= and count=" if ways else None,
    )


def change_runner(
    layout: Layout, chosen: Sequence[Instance], runner: records.Runner, *, batch: int
) -> tuple[Instance, ...]:
    """Have *chosen* started by *runner* from now on, *batch* at a time; those that were not.

    Within `finishing`. What ran answers SSH before the next batch begins, what starts with the host
    goes on doing so. Raises FleetError at the first batch that does not come back, UpgradeError for
    what *runner* cannot start.
    """
    todo = [one for one in chosen if one.runner is not runner]
    _refuse(layout, todo, runner)
    with progress.bar("runner", len(todo)) as step:
        for at in range(0, len(todo), batch):
            part = todo[at : at + batch]
            _change_batch(layout, part, runner)
            step(len(part))
    return tuple(todo)


def _refuse(layout: Layout, todo: Sequence[Instance], runner: records.Runner) -> None:
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


def _change_batch(layout: Layout, part: Sequence[Instance], runner: records.Runner) -> None:
    booting = [one.suffix for one in control.enabled(part)]
    owed.add(layout, boot=booting)

    def change() -> None:
        control.retire(part)
        try:
            with locked(layout), Batch(layout) as batch:
                # as they are by now, so that nothing of another run is undone
                for one in anew(layout, part):
                    records.record(batch, layout, replace(one, runner=runner))
                batch.commit()
        except OSError as error:
            raise UpgradeError(
                "the runner was not changed everywhere:",
                [reason(error, layout.state)],
                hint="mend this, then run the same command again: it finishes what is left",
            ) from error
        sync.follow(layout, [one.suffix for one in part], units=True)
        _enable_again(layout, part)

    _restarted(
        layout,
        part,
        change,
        told=f"stopped: of {len(part)} instances not all came back with runner={runner}:",
        hint=lambda: f"'{to_type(f'upgrade runner={part[0].runner} {meaning(part)}')}' goes back",
    )


@contextmanager
def finishing(layout: Layout, chosen: Sequence[Instance]) -> Iterator[None]:
    """Change *chosen* within: what is stopped for that runs again, however it ends.

    So does what an earlier run had stopped that was killed. When all went well they answer SSH;
    else they are only asked to start. Raises OwedError, and FleetError for those that stay silent.
    """
    with changing(layout):
        try:
            yield
        except BaseException:
            # whatever went wrong is told; nobody's server stays down for it
            with suppress(NiftyError):
                _bring_back(layout, chosen, lambda down: systemd.start(map(unit_of, down)))
            raise
        back = _bring_back(layout, chosen, control.start)
        if back:
            say(f"{back} that an earlier run had stopped run again")


def _bring_back(
    layout: Layout,
    chosen: Sequence[Instance],
    start: Callable[[Sequence[Instance]], None],
) -> int:
    """Give *chosen* what they are owed; how many were started."""
    left = owed.read(layout)
    down = [one for one in chosen if one.suffix in left.run]
    if down or any(one.suffix in left.boot for one in chosen):
        sync.settle(layout)
        _enable_again(layout, chosen)
        start(anew(layout, down))
        owed.drop(layout, run=[one.suffix for one in down])
    return len(down)


def _enable_again(layout: Layout, some: Sequence[Instance]) -> None:
    boot = owed.read(layout).boot
    again = anew(layout, [one for one in some if one.suffix in boot])
    control.enable(again)
    owed.drop(layout, boot=[one.suffix for one in again])


def take_down(layout: Layout, some: Sequence[Instance]) -> None:
    """Stop *some* until `finishing` ends. Raises OwedError before any is stopped, FleetError."""
    owed.add(layout, run=[one.suffix for one in some])
    control.stop(some)


def restart(layout: Layout, chosen: Sequence[Instance]) -> None:
    """Stop all of *chosen*, then start them: an answer afterwards is never an old server's.

    Raises OwedError, FleetError.
    """
    with finishing(layout, chosen):
        # it may have waited for another run, which changed them
        there = anew(layout, chosen)
        take_down(layout, there)
        _start(layout, there)


def _start(layout: Layout, some: Sequence[Instance]) -> None:
    """Start *some* and wait for SSH; one that does not come up is owed nothing: it was tried."""
    suffixes = [one.suffix for one in some]
    try:
        control.start(some)
    except FleetError:
        owed.drop(layout, run=suffixes)
        raise
    owed.drop(layout, run=suffixes)


def _restarted(
    layout: Layout,
    part: Sequence[Instance],
    change: Callable[[], T],
    *,
    told: str,
    hint: Callable[[], str],
) -> T:
    """What *change* gave, done while *part* is stopped; what ran runs again and answers SSH.

    Raises FleetError with *told* and *hint* if not all of it does.
    """
    # one that failed was meant to run, as after an image that does not come up
    states = watch.states(part)
    down = owed.read(layout).run
    wanted = [
        one for one in part if one.suffix in down or states[one.name] is not systemd.State.INACTIVE
    ]
    take_down(layout, wanted)
    result = change()
    try:
        _start(layout, anew(layout, wanted))
    except FleetError as error:
        raise FleetError(told, error.problems, hint=hint()) from error
    return result


def anew(layout: Layout, some: Sequence[Instance]) -> tuple[Instance, ...]:
    """*some* as the state has them by now."""
    return tuple(found for one in some if (found := records.read(layout, one.suffix)))


def roll_back(layout: Layout, known: Sequence[Instance], *, batch: int) -> UpgradeReport:
    """`upgrade` of all of *known* that `way_back` means, each to its previous image.

    Where they go away from is recorded until all have gone, so the next one finishes what is left.
    """
    begun = owed.read(layout).back
    chosen = way_back(known, begun)
    going = begun or {one.image for one in chosen}
    owed.add(layout, back=going)
    report = upgrade(layout, chosen, None, batch=batch)
    owed.drop(layout, back=going)
    return report


def upgrade(
    layout: Layout, chosen: Sequence[Instance], image: Image | None, *, batch: int
) -> UpgradeReport:
    """Move *chosen* to *image* (None: each back to its previous one), *batch* at a time.

    Within `finishing`, and `tidy` after it. A batch reads and writes what its own instances have,
    nothing of others. What ran answers SSH before the next batch begins. Raises FleetError at the
    first batch that does not come back, UpgradeError for what cannot be moved. Those whose image is
    lost stay as they are, and are told.
    """
    moves = upgrading.preview_upgrade(layout, chosen, image)
    lost = upgrading.lost_images(layout, moves, image)
    stay = [move for move in moves if not lost.keys().isdisjoint((move.old, move.new))]
    moving = {move.suffix for move in moves} - {move.suffix for move in stay}
    todo = [one for one in chosen if one.suffix in moving]
    moved: list[str] = []
    kept: list[Kept] = []
    differ = differences.Differences(layout)
    with progress.bar("upgrade", len(todo)) as step:
        for at in range(0, len(todo), batch):
            part = todo[at : at + batch]
            report = _upgrade_batch(layout, part, image, before=todo[:at], differ=differ)
            moved += report.moved
            kept += report.kept
            step(len(part))
    return UpgradeReport(
        moved=tuple(moved),
        kept=tuple(kept),
        stay=tuple(move.suffix for move in stay),
        lost=tuple(lost.values()),
    )


def _upgrade_batch(
    layout: Layout,
    part: Sequence[Instance],
    image: Image | None,
    *,
    before: Sequence[Instance],
    differ: Differences,
) -> UpgradeReport:
    moved = (*before, *part)

    def change() -> UpgradeReport:
        suffixes = [one.suffix for one in part]
        report = upgrading.upgrade(layout, suffixes, image, differ=differ)
        sync.follow(layout, suffixes)
        return report

    return _restarted(
        layout,
        part,
        change,
        told=f"upgrade stopped after {counted(len(before))}, "
        f"the next {len(part)} did not all come back:",
        hint=lambda: (
            f"'{to_type(f'upgrade rollback=yes {meaning(moved)}')}' brings the previous image back"
        ),
    )


def tidy(layout: Layout) -> Known:
    """Once all batches are done: remove what nobody needs any more, and have the lists right.

    The state as it is then. Raises as `sync.settle`.
    """
    with locked(layout):
        known = records.look(layout)
        upgrading.tidy(layout, known)
        sync.tell(layout, known)
    return known


def undeploy(layout: Layout, chosen: Sequence[Instance], damaged: Sequence[str] = ()) -> Known:
    """Stop *chosen*, take them out of the boot, and remove them; the last one takes the units.

    So for *damaged*, suffixes of instances whose state cannot be used, whatever they run by. The
    state as it is then. Raises FleetError, UndeployError, UnitFilesError.
    """
    suffixes = [*(one.suffix for one in chosen), *damaged]
    owed.drop(layout, run=suffixes, boot=suffixes)
    there = anew(layout, chosen)  # somebody was asked, who may have taken his time
    states = watch.states(there)
    control.stop([one for one in there if not states[one.name].is_at_rest])
    control.retire(there)
    control.end_unknown(damaged)
    removing.undeploy(layout.prefix, suffixes)
    return sync.settle(layout).known


def clear_up(layout: Layout) -> None:
    """Finish a removal that was killed when its last instance was gone already. Raises as that."""
    if layout.state.is_dir():
        undeploy(layout, ())
