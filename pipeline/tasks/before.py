"""What is looked at before a task of the second half touches anything, all problems at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.images import Image
    from pipeline.host.rows import Wanted as Asked
    from pipeline.host.state import Instance, Runner
    from pipeline.host.wanted import Wanted
    from pipeline.settings import Settings


def refuse_deploy(settings: Settings, wanted: Wanted, image: Image) -> None:
    """Raise with everything that stands against deploying, and starting if that is asked for."""
    from pipeline.host import deploy as deploying  # noqa: PLC0415
    from pipeline.host import layout, limits, probe, runners, systemd, units  # noqa: PLC0415
    from pipeline.host.plan import PlanError  # noqa: PLC0415
    from pipeline.host.rows import Stage  # noqa: PLC0415

    refuse_kind(wanted)
    systemd.require()
    layout.check_owner(settings.prefix)
    runner = runners.RUNNERS[wanted.runner]
    units.check(((runner, target.suffix) for target in wanted.targets), settings.prefix)
    names = {target.name for target in wanted.targets}
    known = _known(settings)
    count = len(_running(known) | names)
    stage = Stage.START if settings.start else Stage.DEPLOY
    host = probe.read(prefix=settings.prefix)
    try:
        plan = deploying.preview(wanted, image)
    except PlanError as error:
        # ports, room and user numbers are its matter: only what else is wrong goes with it
        rows = limits.blocking(limits.check(asked(settings, count=count), host), stage)
        others = limits.lines(row for row in rows if row.stage is Stage.START)
        raise PlanError(error.summary, [*error.problems, *others], hint=error.hint) from None
    ports = {one.name: one.port for one in known if one.name in names}
    ports |= {f"nifty{action.suffix}": action.port for action in plan.creations}
    question = asked(
        settings,
        count=count,
        deployed=count - len(plan.creations),
        ports=tuple(ports.values()),
    )
    limits.refuse(question, limits.check(question, host), stage)


def refuse_kind(wanted: Wanted) -> None:
    """Raise UsageError for what the runner asked for cannot do."""
    from pipeline.host import runners  # noqa: PLC0415
    from pipeline.host.runner import Launch  # noqa: PLC0415
    from pipeline.host.state import Users  # noqa: PLC0415

    base = None if wanted.users is Users.HOST else 0
    launch = Launch(base=base, cbin=None, register=wanted.register)
    if why := runners.RUNNERS[wanted.runner].refusal(launch):
        raise UsageError(why)


def refuse_runner(settings: Settings, chosen: Sequence[Instance]) -> None:
    """Raise with what this host lacks for *chosen* under the runner asked for."""
    from pipeline.host import limits, probe, runners, units  # noqa: PLC0415
    from pipeline.host.state import Runner  # noqa: PLC0415

    runner = runners.RUNNERS[Runner(settings.runner)]
    units.check(((runner, one.suffix) for one in chosen), settings.prefix)
    question = asked(settings)
    limits.refuse(question, limits.check(question, probe.read(prefix=settings.prefix)))


def refuse_start(settings: Settings, chosen: Sequence[Instance]) -> None:
    """Raise with everything that would make starting *chosen* fail half-way."""
    from pipeline.host import limits, probe  # noqa: PLC0415

    question = asked(
        settings,
        count=len(_running(_known(settings)) | {one.name for one in chosen}),
        ports=tuple(one.port for one in chosen),
    )
    limits.refuse(question, limits.check(question, probe.read(prefix=settings.prefix)))


def asked(
    settings: Settings,
    *,
    count: int | None = None,
    deployed: int | None = None,
    ports: tuple[int, ...] = (),
) -> Asked:
    """What doctor is asked: *count* instances on this host, with what is there and runs already.

    None: as many as the command line says, or as there are. *ports* are of those at issue.
    """
    from pipeline.host import rows  # noqa: PLC0415
    from pipeline.host.state import Runner, Users  # noqa: PLC0415

    known = _known(settings)
    return rows.Wanted(
        count=count or settings.count or max(len(known), 1),
        first=1 if count else settings.first,
        prefix=settings.prefix,
        runner=Runner(settings.runner) if settings.runner else _usual(known),
        register=settings.register or any(one.register for one in known),
        users=Users(settings.users),
        ports=ports,
        own_ports=frozenset(one.port for one in known),
        deployed=len(known) if deployed is None else deployed,
        running=len(_running(known)),
    )


def _usual(known: Sequence[Instance]) -> Runner:
    """The runner that takes most of a host among those of *known*, nspawn if there are none."""
    from pipeline.host.runners import RUNNERS  # noqa: PLC0415
    from pipeline.host.state import Runner  # noqa: PLC0415

    used = {one.runner for one in known} or {Runner.NSPAWN}
    return max(used, key=lambda runner: RUNNERS[runner].cost.memory)


def _known(settings: Settings) -> tuple[Instance, ...]:
    from pipeline.host import state  # noqa: PLC0415
    from pipeline.host.layout import Layout  # noqa: PLC0415

    return state.read_all(Layout(settings.prefix))


def _running(known: Sequence[Instance]) -> frozenset[str]:
    """Names of those that run."""
    from pipeline.host import status  # noqa: PLC0415

    has_systemd = Path("/run/systemd/system").is_dir()
    states = status.states(known) if known and has_systemd else {}
    return frozenset(name for name, state in states.items() if not state.is_at_rest)
