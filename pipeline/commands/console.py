"""`doit console`: boot an instance on this terminal, or be root in a running one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands.choose import known_there, selected
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root
from pipeline.errors import UsageError
from pipeline.host import console as attaching
from pipeline.host.units import systemd
from pipeline.program import to_type
from pipeline.progress import say
from pipeline.run import replace

if TYPE_CHECKING:
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Boot a stopped instance on this terminal, or be a root shell in a running one."""
    if settings.name is None:
        raise UsageError("which one?", hint=to_type("console name=7"))
    as_root("console")
    systemd.require()
    (chosen,) = selected(settings, known_there(settings))
    layout = layout_of(settings)
    command = settings.command or None
    terminal.flush()
    if attaching.check(chosen, layout, command):
        raise SystemExit(attaching.shell(chosen, layout, command))
    words = attaching.foreground(chosen, layout)
    say("three times ^] within a second ends it, and the instance with it")
    replace(words)
