"""The one function that joins a path below a root, plain paths, and this project's folder."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from pipeline.errors import NiftyError

# %, $, quotes, blanks and colons each need another escape in a unit file, in a variable and in
# nspawn's options: an absolute path whose names need none of them has no such traps.
PLAIN = re.compile(r"(/[A-Za-z0-9._+-]+)+")

PROJECT = Path(__file__).resolve().parent.parent


class PathError(NiftyError):
    """A relative path that would leave its root, or is not a plain relative path."""


def relative(name: str) -> PurePosixPath:
    """*name* as a clean relative path: `a/b`, never absolute, no `.`, `..`, NUL or empty part.

    Raises PathError; a path that is only almost right is refused, not repaired.
    """
    parts = name.split("/")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise PathError(f"{name!r} is not a clean relative path (no '..', no empty part)")
    return PurePosixPath(name)


def beneath(root: Path, name: str) -> Path:
    """*root*/*name*, refusing every *name* that `relative` refuses.

    Purely lexical: symbolic links below *root* are the caller's business.
    """
    return root / relative(name)
