"""The one function that joins a path below a root, and where this project's folders are."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pipeline.errors import NiftyError

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
