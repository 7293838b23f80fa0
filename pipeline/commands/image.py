"""`doit image`: an image is assembled and packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.builder.assembly import assemble, packages
from pipeline.builder.assembly.pack import pack
from pipeline.commands.component import built
from pipeline.commands.fetch import fetched
from pipeline.commands.places import artifacts
from pipeline.commands.recipes import chosen, load
from pipeline.progress import say

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.builder.recipes.image import Package
    from pipeline.settings import Settings


def run(settings: Settings) -> dict[str, Any]:
    """Assemble and pack the image; doit keeps what of this host it was made of."""
    known = load()
    recipe = chosen(known, settings)
    # from the cache, where every byte is checked, not from the copies in components/
    parts = {name: built(known, name, settings) for name in recipe.components}

    def file_of(package: Package) -> Path:
        return fetched(known, f"package-{package.name}", settings)

    with packages.trees(recipe.package, file_of) as tree_of:
        made = assemble.assemble(recipe, known, parts, architecture=settings.arch, tree_of=tree_of)
    for note in made.notes:
        say(note)
    pack(made.rootfs, made.manifest, *artifacts(settings))
    return {"sources": [[str(path), *files.stamp(str(path))] for path in made.sources]}
