"""Whether an image was made of the recipes that are at hand: documents tell of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.image.manifest import Manifest


class OriginError(ProblemsError):
    """An image and recipes that do not belong together; each problem is one line."""


def check(manifest: Manifest, recipes: Recipes) -> None:
    """Raise OriginError if the image was built of other components than *recipes* describe."""
    if problems := [*_differences(manifest, recipes)]:
        raise OriginError(
            f"the image {manifest.name} was not made of these recipes:",
            problems,
            hint=f"doit build image={manifest.name}, and again",
        )


def _differences(manifest: Manifest, recipes: Recipes) -> Iterator[str]:
    for record in manifest.components:
        known = recipes.components.get(record.name)
        if known is None:
            yield f"{record.name}: there is no such component"
            continue
        patches = tuple(patch.sha256 for patch in known.patch)
        for what, there, here in (
            ("version", record.version, known.version),
            ("source", record.source_sha256, known.source.sha256),
            ("patches", tuple(patch.sha256 for patch in record.patches), patches),
        ):
            if there != here:
                yield f"{record.name}: the {what} of the image is {there}, of the recipe {here}"
