"""What is looked at before a task of the second half touches anything, all problems at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.images import Image
    from pipeline.host.rows import Wanted as Asked
    from pipeline.host.state import Instance
    from pipeline.host.wanted import Wanted
    from pipeline.settings import Settings


def refuse_deploy(settings: Settings, wanted: Wanted, image: Image) -> None:
    """Raise with everything that stands against deploying, and starting if that is asked for."""
    from pipeline.host import deploy as deploying  # noqa: PLC0415
    from pipeline.host import layout, limits, probe, systemd, units  # noqa: PLC0415
    from pipeline.host.plan import PlanError  # noqa: PLC0415
    from pipeline.host.rows import Stage  # noqa: PLC0415

    systemd.require()
    layout.check_owner(settings.prefix)
    units.check((units.RUNNERS[wanted.runner],), settings.prefix)
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
        runner=Runner(settings.runner),
        register=settings.register or any(one.register for one in known),
        users=Users(settings.users),
        ports=ports,
        own_ports=frozenset(one.port for one in known),
        deployed=len(known) if deployed is None else deployed,
        running=len(_running(known)),
    )


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
