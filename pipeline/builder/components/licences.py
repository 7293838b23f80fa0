"""The licence files of a component, out of its verified source."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pipeline.builder.sources.unpack import SourceError
from pipeline.errors import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.builder.recipes.component import Component


class LicenceError(ProblemsError):
    """Licence files that are missing or say something else than when they were read."""


def read(component: Component, text_of: Callable[[str], bytes]) -> dict[str, str]:
    """The texts of *component*'s licence files by their paths, each as the recipe pins it.

    *text_of* reads a file of the source. Raises LicenceError with every problem.
    """
    found, problems = {}, []
    for item in component.licence_files:
        try:
            content = text_of(item.file)
        except (OSError, SourceError):
            problems.append(f"{item.file}: not in {component.source.file}")
            continue
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != item.sha256:
            problems.append(f"{item.file}: has the sha256 {sha256}, the recipe pins {item.sha256}")
        found[item.file] = content.decode("utf-8", "replace")
    if problems:
        raise LicenceError(
            f"{component.name} {component.version}: its licence files:",
            problems,
            hint="read what changed before you change a [[licence_file]] of the recipe",
        )
    return found
