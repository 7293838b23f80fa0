"""Where the build leaves things, and where a command finds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError, UsageError
from pipeline.host.state.layout import Layout, check_link
from pipeline.paths import PROJECT
from pipeline.program import HAS_CHECKOUT

if TYPE_CHECKING:
    from pipeline.settings import Settings

RECIPES = PROJECT / "recipes"
ARTIFACTS = PROJECT / "artifacts"
RELEASE = ARTIFACTS / "release"
STORE = ARTIFACTS / "store"
CACHE = ARTIFACTS / "cache"
CODE = PROJECT / "pipeline"
ENDINGS = (".tar.zst", ".tar.xz", ".json")


def artifacts(settings: Settings) -> tuple[Path, Path, Path]:
    """The three files of an image: zstd, xz, manifest."""
    stem = f"{settings.image}-{settings.arch}"
    zstd, xz, described = (ARTIFACTS / f"{stem}{ending}" for ending in ENDINGS)
    return zstd, xz, described


def image_path(settings: Settings) -> Path:
    """The archive that the command line means. Raises NiftyError if it is not there."""
    if settings.image_is_path:
        return Path(settings.image)
    if not HAS_CHECKOUT:
        raise UsageError(
            "which image? Without a checkout there is none that was built here",
            hint="image=PATH of an archive, or https://… or oci://… of a release",
        )
    path = artifacts(settings)[0]
    if not path.is_file():
        raise NiftyError(
            f"{path}: not built yet", hint="doit build, as an ordinary user; or image=PATH"
        )
    return path


def is_there(settings: Settings) -> bool:
    """Whether there is an image to look at: named, or built here."""
    is_named = "image" in settings.given
    return is_named or (HAS_CHECKOUT and artifacts(settings)[0].is_file())


def layout_of(settings: Settings) -> Layout:
    """Where everything lies below the prefix that the command line means.

    Raises LayoutError for one that is a link, whatever is asked for: what is looked at there would
    not be where anything that changes it is willing to go.
    """
    check_link(settings.prefix)
    return Layout(settings.prefix)


def component_folder(settings: Settings, name: str) -> Path:
    """Where a component is put for who wants to look at it."""
    return ARTIFACTS / "components" / settings.arch / name
