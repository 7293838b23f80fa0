"""What is looked at before anything is touched: the same for doctor, dry=yes, deploy and start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.host.binds.rules import UnitError
from pipeline.host.doctor import facts, limits, plan, probe
from pipeline.host.doctor.rows import Row, Stage, Status
from pipeline.host.roots import access, needs
from pipeline.host.roots.needs import USUAL
from pipeline.host.state import layout, records
from pipeline.host.state.records import Users
from pipeline.host.units import systemd, unit_files, watch
from pipeline.host.units.runner import Launch
from pipeline.host.units.runners import RUNNERS
from pipeline.host.units.unit_files import UnitFilesError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.errors import NiftyError
    from pipeline.host.doctor import rows
    from pipeline.host.doctor.probe import Host
    from pipeline.host.roots.access import Access
    from pipeline.host.roots.images import Image
    from pipeline.host.roots.needs import Needs
    from pipeline.host.state.records import Instance, Known, Runner
    from pipeline.host.wanted import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was *asked* of this host, and a row for each thing looked at.

    And what was read for that: the state, the keys of the command line, and what an instance takes.
    """

    asked: rows.Asked
    rows: tuple[Row, ...]
    known: Known
    granted: Access | None
    needs: Needs

    def refuse(self, stage: Stage) -> None:
        """Raise PlanError with everything that would make *stage* fail, before it begins."""
        limits.refuse(self.asked, self.rows, stage)


def examine(
    wanted: Wanted,
    image: Image | None,
    *,
    known: Known | None = None,
    typed: tuple[str, ...] = (),
    runner: Runner | None = None,
) -> Examination:
    """Look at everything that *wanted* depends on; touches nothing.

    *known*: the state, if that was read already. *image* None: the usual one, for who asks before
    it is built. *typed*: the variables of the command line. *runner*: what starts all of them, None
    for what each has or is to have. Raises LayoutError for a prefix that is a link, KeysError,
    StateError.
    """
    layout.check_link(wanted.prefix)
    where = layout.Layout(wanted.prefix)
    state = records.look(where) if known is None else known
    granted = None if image is None else access.keys_for(wanted)
    taken = USUAL if image is None else needs.of_image(image, wanted, granted)
    asked = plan.ask(
        wanted,
        facts.gather(where, state),
        taken,
        running=running(state.instances),
        runner=runner,
        typed=typed,
    )
    host = probe.read(prefix=wanted.prefix)
    found = (
        *limits.check(asked, host),
        *_runner_row(wanted, runner),
        *_unit_row(wanted, state.instances, host, runner),
    )
    return Examination(asked=asked, rows=found, known=state, granted=granted, needs=taken)


def running(known: Iterable[Instance]) -> frozenset[str]:
    """Names of those that run; none where systemd does not."""
    there = tuple(known)
    states = watch.states(there) if there and systemd.is_booted() else {}
    return frozenset(name for name, state in states.items() if not state.is_at_rest)


def refusal(wanted: Wanted, runner: Runner | None = None) -> str | None:
    """Why the runner asked for cannot do what is asked for; None if it can."""
    base = None if wanted.users is Users.HOST else 0
    launch = Launch(base=base, cbin=None, register=wanted.register)
    return RUNNERS[runner or wanted.runner].refusal(launch)


def _runner_row(wanted: Wanted, runner: Runner | None) -> Iterator[Row]:
    why = refusal(wanted, runner)
    if why is not None:
        yield Row(
            name=f"runner={runner or wanted.runner}",
            found="refused",
            needed="what it can do",
            status=Status.FAIL,
            why=why,
            todo="runner=nspawn, or leave the other out",
            stage=Stage.DEPLOY,
            detail=(why,),
        )


def _unit_row(
    wanted: Wanted, known: Iterable[Instance], host: Host, runner: Runner | None
) -> Iterator[Row]:
    there = {one.suffix: one.runner for one in known}
    served = [
        (RUNNERS[runner or there.get(target.suffix, wanted.runner)], target.suffix)
        for target in wanted.targets
    ]
    if any(need.program not in host.programs for one, _ in served for need in one.needs):
        return  # which a row of its own says
    fault: NiftyError | None = None
    try:
        unit_files.check(served, wanted.prefix)
    except (UnitError, UnitFilesError) as error:
        fault = error
    told = "" if fault is None else f"{fault.message}; {fault.hint}"
    yield Row(
        name="unit files",
        found="in the way" if fault else "ours, or none",
        needed="ours, or none",
        status=Status.FAIL if fault else Status.OK,
        why="systemd cannot be told of the instances",
        todo=told,
        stage=Stage.DEPLOY,
        detail=(told,) if fault else (),
    )
