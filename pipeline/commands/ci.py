"""`doit ci`: the file with which a forge builds, builds again elsewhere and publishes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files, terminal
from pipeline.commands.places import CODE
from pipeline.errors import NiftyError, UsageError
from pipeline.program import to_type
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline.settings import Settings

FOLDER = CODE / "release" / "ci"
# By forge: the file in FOLDER, and where the forge looks for it.
_FILES = {
    "github": ("github.yml", ".github/workflows/nifty.yml"),
    "gitlab": ("gitlab-ci.yml", ".gitlab-ci.yml"),
}


def run(settings: Settings) -> None:
    """Print the file of the forge in kind=, or put it at to=."""
    if not settings.kind:
        places = (f"ci kind={kind} to={place}" for kind, (_, place) in _FILES.items())
        raise UsageError("for which forge?", hint=", or ".join(map(to_type, places)))
    text = of(settings.kind, settings.image)
    if not settings.to:
        terminal.lines(*text.splitlines())
        return
    path, content = Path(settings.to), text.encode()
    if files.holds(path, content):
        say(f"{path}: there already, nothing to do")
        return
    if path.exists() and not settings.overwrite:
        raise NiftyError(
            f"{path}: there is another file", hint="overwrite=yes puts this one in its place"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.put(path, content)
    terminal.lines(str(path))


def of(kind: str, image: str) -> str:
    """The file for the forge *kind* (`github`, `gitlab`) that publishes *image*, a recipe's name.

    Raises UsageError for an image that is no recipe's.
    """
    if "/" in image or "." in image:
        raise UsageError(f"image={image}: the name of a recipe in recipes/images is built")
    text = (FOLDER / _FILES[kind][0]).read_text("utf-8")
    return text.replace("\n  IMAGE: nifty\n", f"\n  IMAGE: {image}\n")
