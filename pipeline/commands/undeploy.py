"""`doit undeploy`: instances are stopped and removed with all their data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands import rolling
from pipeline.commands.choose import chosen_and_damaged, known_there, names_of, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root
from pipeline.errors import NiftyError, UsageError
from pipeline.host.roots import undeploy as removing
from pipeline.host.units import systemd
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline.host.state.records import Known
    from pipeline.settings import Settings


@tells_damaged
def run(settings: Settings) -> Known:
    """Stop instances and remove them with all their data."""
    where = layout_of(settings)
    known = known_there(settings)
    if not (known.instances or known.damaged or settings.dry or os.geteuid()):
        rolling.clear_up(where)
    chosen, damaged = chosen_and_damaged(settings, known)
    lost = [one.suffix for one in damaged]
    suffixes = [*(one.suffix for one in chosen), *lost]
    if settings.dry:
        for item in removing.preview_undeploy(where, known, suffixes):
            terminal.lines(str(item))
        return known
    as_root("undeploy")
    if not settings.yes:
        _ask(f"remove {names_of(suffixes)} below {settings.prefix} with all data in them?")
    systemd.require()
    known = rolling.undeploy(where, chosen, lost)
    say(f"{len(suffixes)} removed")
    return known


def _ask(question: str) -> None:
    answer = terminal.ask(f"{question} [y/N] ")
    if answer is None:
        raise UsageError(f"{question} There is nobody to ask", hint="say so beforehand: yes=yes")
    if answer.strip().lower() not in ("y", "yes"):
        raise NiftyError("nothing was removed")
