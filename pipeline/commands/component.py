"""`doit component`: what is not in the cache is compiled, side by side."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

from pipeline.builder.components import compile as compiling
from pipeline.builder.components import results
from pipeline.builder.components.job import CompileError
from pipeline.builder.components.slots import Slots
from pipeline.commands.fetch import fetched
from pipeline.commands.places import CACHE, component_folder
from pipeline.commands.recipes import load
from pipeline.errors import FULL_DISK
from pipeline.progress import bar
from pipeline.together import together

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.builder.components.results import Built
    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.recipes.component import Component
    from pipeline.settings import Settings


def run(names: Iterable[str], settings: Settings) -> None:
    """Compile those of *names* that are not in the cache, all to their end; install all."""
    known = load()
    if todo := unmade(names, settings):
        told = f"compiling {', '.join(item.name for item in todo)}"
        with Slots(settings.jobs) as slots, bar(told, None):
            pieces = [partial(built, known, item.name, settings, slots) for item in todo]
            together(pieces, stop=slots.stop)
    for name in names:
        results.install(built(known, name, settings), component_folder(settings, name))


def unmade(names: Iterable[str], settings: Settings) -> list[Component]:
    """Of the components *names*, those that will be compiled."""
    known, shop = load(), compiling.Workshop(root=CACHE)
    return [
        item
        for item in (known.components[name] for name in names)
        if compiling.is_compiled_here(item, known.folder(item), shop, architecture=settings.arch)
    ]


def title(names: Iterable[str], settings: Settings) -> str:
    """What compiling *names* is called; nothing if none of them will be."""
    listed = ", ".join(f"{item.name} {item.version}" for item in unmade(names, settings))
    return listed and f"compile {listed} for {settings.arch}"


def built(known: Recipes, name: str, settings: Settings, slots: Slots | None = None) -> Built:
    """The component *name*, compiled if it is not in the cache. Raises CompileError."""
    item = known.components[name]
    try:
        return compiling.build(
            item,
            known.folder(item),
            lambda: fetched(known, name, settings),
            compiling.Workshop(root=CACHE, slots=slots),
            architecture=settings.arch,
        )
    except CompileError as error:
        # zig's words, and the system's; they stand among a screenful of its warnings
        if "NoSpaceLeft" in error.message or os.strerror(errno.ENOSPC) in error.message:
            raise CompileError(error.message, hint=FULL_DISK) from error
        raise
