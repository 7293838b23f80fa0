"""`doit restart`: all that are meant stop, then they start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands import rolling
from pipeline.commands.choose import known_there, selected, tells_damaged
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root, healed, refuse_start
from pipeline.host.units import sync, systemd
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline.host.state.records import Known
    from pipeline.settings import Settings


@tells_damaged
def run(settings: Settings) -> Known:
    """Stop, then start."""
    as_root("restart")
    systemd.require()
    known = healed(settings, known_there(settings))
    chosen = selected(settings, known)
    # before any of them is stopped
    refuse_start(settings, chosen, known)
    known = sync.settle(layout_of(settings)).known
    rolling.restart(layout_of(settings), chosen)
    say(f"{len(chosen)} answer SSH")
    return known
