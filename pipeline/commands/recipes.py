"""`doit recipes`: everything below recipes/ is read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.builder.recipes import catalogue
from pipeline.commands.places import RECIPES
from pipeline.errors import UsageError, counted
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.recipes.image import Image
    from pipeline.settings import Settings


def run() -> None:
    """Check everything below recipes/. Raises RecipeError with all problems."""
    load().check()


def check_image(settings: Settings) -> None:
    """Check the recipe of the image meant; what is wrong with others is counted."""
    known = load()
    chosen(known, settings)
    if known.problems and "image" in settings.given:
        count = len(known.problems)
        say(f"{counted(count, 'problem')} in recipes of other images: doit recipes")


def load() -> Recipes:
    """All recipes that are valid, and what is wrong with the others."""
    return catalogue.load(RECIPES)


def chosen(known: Recipes, settings: Settings) -> Image:
    """The recipe of the image meant, with valid components.

    Raises RecipeError with the problems of all recipes if it is not valid, UsageError without it.
    """
    name = settings.image
    if not known.is_whole(name):
        if (known.root / "images" / f"{name}.toml").exists():
            known.check()
        there = ", ".join(known.images) or "none"
        raise UsageError(
            f"no recipes/images/{name}.toml; there are: {there}",
            hint="name one of them, as in 'doit build image=mine'",
        )
    return known.images[name]
