"""`doit fetch`: a source is brought into the store, verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.builder.recipes.image import Package
from pipeline.builder.sources import fetch as fetching
from pipeline.builder.sources.store import Store
from pipeline.commands.places import CACHE, RECIPES, STORE
from pipeline.commands.recipes import chosen, load

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.settings import Settings


def run(name: str, settings: Settings) -> dict[str, Any]:
    """Fetch the source of a component or a package; doit keeps its place, size and times."""
    state = (path := fetched(load(), name, settings)).stat()
    return {"path": str(path), "state": [state.st_size, state.st_mtime_ns, state.st_ino]}


def fetched(known: Recipes, name: str, settings: Settings) -> Path:
    """The verified file of a component or of `package-NAME`. Raises FetchError."""
    recipe = chosen(known, settings)
    packages = {f"package-{package.name}": package for package in recipe.package}
    item = packages[name] if name in packages else known.components[name]
    folder = RECIPES / "images" if isinstance(item, Package) else known.folder(item)
    store = Store(root=STORE)
    if settings.offline:  # say at once what all components lack
        wanted = [known.components[one] for one in recipe.components]
        fetching.require([*wanted, *packages.values()], store)
    return fetching.fetch(item, folder, store, offline=settings.offline, work=CACHE / "apt")
