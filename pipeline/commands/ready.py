"""What comes before a command changes anything: rights, what was asked, whether this host can."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.choose import known_there, selected
from pipeline.commands.places import layout_of
from pipeline.errors import NiftyError, UsageError, reason
from pipeline.host import wanted
from pipeline.host.doctor import examination, heal
from pipeline.host.doctor.rows import Stage
from pipeline.host.state.records import Instance, Runner, Share, Users
from pipeline.program import to_type, to_type_as_root
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.doctor.examination import Examination
    from pipeline.host.roots.images import Image
    from pipeline.host.state.records import Known
    from pipeline.host.wanted import Wanted
    from pipeline.settings import Settings


def as_root(what: str) -> None:
    """Raise NiftyError unless this is root; *what* is the command."""
    if os.geteuid() != 0:
        raise NiftyError(
            f"{what} needs root: it writes below the prefix and tells systemd",
            hint=to_type_as_root(f"{what} …"),
        )


def wanted_of(settings: Settings) -> Wanted:
    """What the command line asks to be deployed. Raises UsageError, WantedError."""
    if settings.name is not None:
        targets = wanted.named([f"nifty{settings.name}"], port=settings.port)
    elif settings.names:
        targets = wanted.named(settings.names, port=settings.port)
    else:
        if settings.count is None:
            raise UsageError("how many?", hint=to_type("deploy count=10, or name=slick port=2100"))
        targets = wanted.numbered(settings.count, first=settings.first, port=settings.port)
    keys = Path(settings.authorized_keys) if settings.authorized_keys else None
    return wanted.Wanted(
        targets=targets,
        prefix=settings.prefix,
        share=Share(settings.share),
        users=Users(settings.users),
        runner=Runner(settings.runner or Runner.NSPAWN),
        boot=settings.boot,
        register=settings.register,
        authorized_keys=keys,
        disk=settings.disk,
    )


# What doctor is told with: the variables that decide what is asked of a host.
_ASKING = (
    *("authorized_keys", "count", "disk", "first", "image", "name", "names", "port", "prefix"),
    *("register", "runner", "share", "users"),
    *("downgrade", "fresh", "keyring", "trust"),
)


def refuse_deploy(settings: Settings, wanted: Wanted, image: Image) -> Examination:
    """Raise with everything that stands against deploying, and starting if that is asked for.

    What was looked at, if nothing does.
    """
    if why := examination.refusal(wanted):
        raise UsageError(why)
    found = examination.examine(wanted, image, typed=typed(settings))
    found.refuse(Stage.START if settings.start else Stage.DEPLOY)
    return found


def refuse_start(settings: Settings, chosen: Sequence[Instance], known: Known) -> None:
    """Raise with everything that would make starting *chosen* of those *known* fail half-way.

    With runner= it is that runner that is to start them.
    """
    of_those(settings, chosen, known).refuse(Stage.START)


def of_those(settings: Settings, chosen: Sequence[Instance], known: Known) -> Examination:
    """What this host has for *chosen*, of those *known* to be deployed."""
    asked = wanted.Wanted(
        targets=tuple(wanted.Target(one.suffix) for one in chosen),
        prefix=settings.prefix,
        register=settings.register,
        disk=settings.disk,
    )
    runner = Runner(settings.runner) if settings.runner else None
    return examination.examine(asked, None, known=known, typed=typed(settings), runner=runner)


def typed(settings: Settings) -> tuple[str, ...]:
    """What was typed of the variables that doctor takes, as `name=value`, for a shell."""
    return tuple(
        f"{name}={shlex.quote(text)}" for name, text in settings.given.items() if name in _ASKING
    )


def healed(settings: Settings, known: Known, image: Image | None = None) -> Known:
    """The state once what those meant would not run without is mended, if that is lost.

    It is read again only then.
    """
    try:
        told = heal.heal_if_needed(layout_of(settings), selected(settings, known), image)
    except OSError as error:
        raise _not_mended(error) from error
    for line in told:
        say(line)
    return known_there(settings) if told else known


def _not_mended(error: OSError) -> NiftyError:
    return NiftyError(
        f"what is damaged cannot be mended: {reason(error)}",
        hint="mend this, then run the same command again",
    )
