"""Upgrades and removals of running instances: stop, change, start, one batch after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import progress
from pipeline.host import fleet, instances, state, status, units
from pipeline.host import undeploy as removing
from pipeline.host import upgrade as upgrading
from pipeline.host.instances import FleetError
from pipeline.host.upgrade import UpgradeReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.images import Image
    from pipeline.host.layout import Layout
    from pipeline.host.state import Instance
    from pipeline.host.upgrade import Kept


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
            report = _upgrade_batch(layout, part, image, done=len(moved))
            moved += report.moved
            kept += report.kept
            step(len(part))
    return UpgradeReport(moved=tuple(moved), kept=tuple(kept))


def _upgrade_batch(
    layout: Layout, part: Sequence[Instance], image: Image | None, *, done: int
) -> UpgradeReport:
    running = _running(part)
    instances.stop(running)
    report = upgrading.upgrade(layout.prefix, [one.suffix for one in part], image)
    known = state.read_all(layout)
    fleet.settle(layout, known)
    names = {one.name for one in running}
    try:
        instances.start([one for one in known if one.name in names])
    except FleetError as error:
        raise FleetError(
            f"upgrade stopped after {done} instances, the next {len(part)} did not all come back:",
            error.problems,
            hint="doit upgrade rollback=yes brings the previous image back",
        ) from error
    return report


def undeploy(layout: Layout, chosen: Sequence[Instance]) -> None:
    """Stop *chosen*, take them out of the boot, and remove them; the last one takes the units.

    Raises FleetError, UndeployError, UnitFilesError.
    """
    instances.stop(_running(chosen))
    instances.disable([one for one in chosen if one.boot])
    removing.undeploy(layout.prefix, [one.suffix for one in chosen])
    left = state.read_all(layout)
    fleet.settle(layout, left)
    if not left:
        units.uninstall(layout.prefix)


def _running(chosen: Sequence[Instance]) -> list[Instance]:
    states = status.states(chosen)
    return [one for one in chosen if not states[one.name].is_at_rest]
