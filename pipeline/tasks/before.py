"""From the command line to what is looked at before a task of the second half touches anything."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.examination import Examination
    from pipeline.host.images import Image
    from pipeline.host.state import Instance
    from pipeline.host.wanted import Wanted
    from pipeline.settings import Settings

# What doctor is told with: the variables that decide what is asked of a host.
_ASKING = (
    *("authorized_keys", "count", "disk", "first", "image", "name", "names", "port", "prefix"),
    *("register", "runner", "share", "users"),
)


def refuse_deploy(settings: Settings, wanted: Wanted, image: Image) -> None:
    """Raise with everything that stands against deploying, and starting if that is asked for."""
    from pipeline.host import examination  # noqa: PLC0415
    from pipeline.host.rows import Stage  # noqa: PLC0415

    if why := examination.refusal(wanted):
        raise UsageError(why)
    found = examination.examine(wanted, image, typed=typed(settings))
    found.refuse(Stage.START if settings.start else Stage.DEPLOY)


def refuse_start(settings: Settings, chosen: Sequence[Instance]) -> None:
    """Raise with everything that would make starting *chosen* fail half-way.

    With runner= it is that runner that is to start them.
    """
    from pipeline.host.rows import Stage  # noqa: PLC0415

    of_those(settings, chosen).refuse(Stage.START)


def of_those(settings: Settings, chosen: Sequence[Instance]) -> Examination:
    """What this host has for instances that are deployed."""
    from pipeline.host import examination, wanted  # noqa: PLC0415
    from pipeline.host.state import Runner  # noqa: PLC0415

    asked = wanted.Wanted(
        targets=tuple(wanted.Target(one.suffix) for one in chosen),
        prefix=settings.prefix,
        register=settings.register,
        disk=settings.disk,
    )
    runner = Runner(settings.runner) if settings.runner else None
    return examination.examine(asked, None, typed=typed(settings), runner=runner)


def typed(settings: Settings) -> tuple[str, ...]:
    """What was typed of the variables that doctor takes, as `name=value`, for a shell."""
    return tuple(
        f"{name}={shlex.quote(text)}" for name, text in settings.given.items() if name in _ASKING
    )
