"""`doit bench`: become the benchmarks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands.places import artifacts
from pipeline.paths import PROJECT
from pipeline.run import replace

if TYPE_CHECKING:
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Become the benchmarks, with the user's terminal: they run for minutes and tell how far."""
    terminal.flush()
    given = words(settings)
    os.chdir(PROJECT)  # where `python -m` finds them; they are not installed
    replace(given)


def words(settings: Settings) -> list[str | Path]:
    """The command line of the benchmarks for *settings*."""
    image = Path(settings.image) if settings.image_is_path else artifacts(settings)[0]
    given: list[str | Path] = [sys.executable, "-m", "benchmarks"]
    given += ["--image", image.absolute(), "--prefix", settings.prefix]
    given += ["--rounds", str(settings.rounds)]
    for name in ("parts", "counts", "on"):
        values = getattr(settings, name)
        if values:
            given += [f"--{name}", ",".join(map(str, values))]
    return given
