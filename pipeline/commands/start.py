"""`doit start`: instances are started, and waited for until they answer SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands.choose import known_there, selected, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root, healed, refuse_start
from pipeline.host.state import owed
from pipeline.host.units import control, sync, systemd
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.state.records import Instance, Known
    from pipeline.settings import Settings


@tells_damaged
def run(settings: Settings) -> Known:
    """Start the instances meant, and wait for their SSH banners."""
    as_root("start")
    systemd.require()
    known = healed(settings, known_there(settings))
    chosen = selected(settings, known)
    refuse_start(settings, chosen, known)
    known = sync.settle(layout_of(settings)).known
    start_and_tell(settings, chosen, known)
    return known


def start_and_tell(settings: Settings, chosen: Sequence[Instance], known: Known) -> None:
    """Start *chosen* of those *known*, which owes them nothing any more, and say so."""
    control.start(chosen, known=known.instances)
    owed.drop(layout_of(settings), run=[one.suffix for one in chosen])
    say(f"{len(chosen)} answer SSH")
