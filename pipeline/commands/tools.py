"""`doit tools`: what compiling lacks is told before anything is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.builder.components import compile as compiling
from pipeline.builder.components import toolchain
from pipeline.commands.component import unmade
from pipeline.commands.places import CACHE
from pipeline.commands.recipes import chosen, load

if TYPE_CHECKING:
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Raise with all that compiling lacks here, if anything is to be compiled."""
    if unmade(chosen(load(), settings).components, settings):
        toolchain.require(folder=compiling.Workshop(root=CACHE).scratch)
