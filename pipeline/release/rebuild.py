"""A version of a release built again, from the source that lies beside it, and compared.

That source holds all but the wheels that pyproject.toml pins: those are this program's own. What
is in the archive is run as whoever asks; so the signature over it is checked before.
"""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

from pipeline.builder.sources import unpack
from pipeline.errors import NiftyError
from pipeline.image import archive
from pipeline.progress import say
from pipeline.release import names
from pipeline.release.check import Check
from pipeline.run import CLEAN_ENVIRONMENT, ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pipeline.release.names import Named

_ENDINGS = ("tar.zst", "tar.xz", "json")
_SECONDS = 4 * 3600


class RebuildError(NiftyError):
    """A release that cannot be built again here."""


def rebuild(folder: Path, listed: Iterable[str], named: Named, work: Path) -> Iterator[Check]:
    """Each file of *named*'s version in the release *folder*, beside what a build here makes.

    *listed* are the names in its sums, which were checked; *work* is an empty folder. All its
    architectures are built. Raises RebuildError.
    """
    version = f"{named.image} {named.version}"
    packed = f"{named.image}_{named.version}_source.tar.zst"
    if packed not in listed:
        raise RebuildError(f"the release has no source of {version}: {packed}")
    root = unpack.unpack(folder / packed, work, epoch=0)
    architectures = {
        other.architecture
        for name in listed
        if (other := names.parse(name)) and other.architecture
        if (other.image, other.version) == (named.image, named.version)
    }
    for architecture in sorted(architectures):
        say(f"building {version} for {architecture} from {packed}")
        _build(root, named.image, architecture, work)
        for ending in _ENDINGS:
            name = names.name(named.image, named.version, architecture, ending)
            made = root / "artifacts" / f"{named.image}-{architecture}.{ending}"
            yield _compared(folder / name, made)


def _build(root: Path, image: str, architecture: str, home: Path) -> None:
    """What the README in there says, without anything of the user's environment: no key either."""
    words = ["build", "offline=yes", f"image={image}", f"arch={architecture}"]
    try:
        run(
            [sys.executable, "-m", "doit", *words],
            cwd=root,
            env={**CLEAN_ENVIRONMENT, "HOME": str(home)},
            timeout=_SECONDS,
        )
    except ProgramError as error:
        raise RebuildError(
            f"building {image} again fails: {error.message}",
            hint="pip install -e '.[build]' in this virtual environment: its wheels are used",
        ) from error


def _compared(published: Path, made: Path) -> Check:
    name = f"rebuilt {published.name}"
    ours, theirs = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (made, published))
    if ours == theirs:
        return Check(name=name, is_right=True, found=f"the same bytes, sha256 {ours}")
    found = f"has the sha256 {ours} here, not {theirs}"
    if ".tar." in published.name and archive.read(made).digest == archive.read(published).digest:
        found += ": the same image, packed by another version of that compressor"
    return Check(name=name, is_right=False, found=found)
