"""`doit stop`: instances are stopped, and waited for until nothing of them runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands.choose import known_there, selected, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root
from pipeline.host.state import owed
from pipeline.host.units import control, systemd
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline.host.state.records import Known
    from pipeline.settings import Settings


@tells_damaged
def run(settings: Settings) -> Known:
    """Stop the instances meant, and wait until nothing of them runs."""
    as_root("stop")
    systemd.require()
    known = known_there(settings)
    chosen = selected(settings, known)
    owed.drop(layout_of(settings), run=[one.suffix for one in chosen])
    control.stop(chosen)
    say(f"{len(chosen)} stopped")
    return known
