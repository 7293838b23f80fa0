"""`doit ssh`: be ssh, in one instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands.choose import known_there, selected
from pipeline.errors import UsageError
from pipeline.host.state.layout import Layout
from pipeline.program import to_type
from pipeline.run import replace

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.host.state.records import Instance
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Become ssh, in one instance."""
    if settings.name is None:
        raise UsageError("which one?", hint=to_type("ssh name=7"))
    (chosen,) = selected(settings, known_there(settings))
    terminal.flush()
    replace(words(chosen, settings.prefix))


def words(instance: Instance, prefix: Path) -> tuple[str, ...]:
    """The words that give a shell in *instance*, with the key and host key that deploy made."""
    return ("ssh", "-F", str(Layout(prefix).ssh_config), instance.name)
