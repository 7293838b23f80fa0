"""`doit shell`: be a shell in an image, deployed or not, without root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands import obtain
from pipeline.host import shell as entering

if TYPE_CHECKING:
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Be a shell in an image, deployed or not, without root."""
    terminal.flush()
    raise SystemExit(entering.enter(obtain.image(settings).path, settings.command or None))
