"""The documents of a published release that belong to the images that are pushed."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, ProblemsError
from pipeline.paths import beneath
from pipeline.release import names
from pipeline.trust import sums

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.release.oci import Image

# Of one document: an SBOM of an image with every package of a distribution is not as large.
_LIMIT = 64 << 20


class DocumentsError(ProblemsError):
    """A release beside the images that is not theirs, or damaged."""


def of_release(folder: Path, images: Sequence[Image]) -> dict[str, bytes]:
    """Names and contents of what lies in *folder* about *images*; nothing if none was published.

    The checksums come first: they must name each image's archive as it is here, and each document
    must be as they say. Raises DocumentsError with all that is not so.
    """
    path = folder / sums.NAME
    if not path.exists():
        return {}
    found = {sums.NAME: _read(path, sums.LIMIT)}
    listed = sums.read(found[sums.NAME], name=str(path))
    known = set(listed.values())
    problems = [
        f"{one.manifest.name} {one.manifest.version} for {one.manifest.needs.architecture}"
        for one in images
        if hashlib.sha256(one.archive).hexdigest() not in known
    ]
    if problems:
        raise DocumentsError(
            f"{path} is of other images than these:",
            problems,
            hint="doit publish; or without a release: rm -r artifacts/release",
        )
    stems = {f"{one.manifest.name}_{one.manifest.version}" for one in images}
    for name, digest in listed.items():
        if name != names.KEYRING and not any(_is_about(stem, name) for stem in stems):
            continue
        content = _read(beneath(folder, name), _LIMIT)
        if hashlib.sha256(content).hexdigest() != digest:
            problems.append(f"{name}: not as {sums.NAME} says")
        found[name] = content
    if problems:
        raise DocumentsError(f"{folder}: damaged:", problems, hint="doit publish")
    if (signature := folder / sums.SIGNATURE).exists():
        found[sums.SIGNATURE] = _read(signature, _LIMIT)
    return found


def _is_about(stem: str, name: str) -> bool:
    """Whether *name* is a document or the source of the version *stem*, `nifty_2026.11`."""
    rest = name.removeprefix(stem)
    return rest != name and bool(
        re.fullmatch(r"(_[a-z0-9-]+)?\.[a-z.]*json|_source\.tar\.zst", rest)
    )


def _read(path: Path, limit: int) -> bytes:
    try:
        return files.read(path, limit=limit)
    except OSError as error:
        raise NiftyError(f"{path}: {error.strerror}", hint="doit publish") from error
