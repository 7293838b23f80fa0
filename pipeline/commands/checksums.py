"""`doit checksums`: SHA256SUMS of all artifacts is written; what was built is shown."""

from __future__ import annotations

import hashlib

from pipeline import terminal
from pipeline.commands.places import ARTIFACTS, ENDINGS, RECIPES, artifacts
from pipeline.errors import NiftyError
from pipeline.files import put_cached
from pipeline.paths import PROJECT
from pipeline.settings import ARCHITECTURES, Settings


def run(settings: Settings) -> None:
    """Write SHA256SUMS of every artifact there is."""
    lines = []
    for name in names(settings):
        with (ARTIFACTS / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    put_cached(ARTIFACTS / "SHA256SUMS", "".join(lines).encode())


def show(settings: Settings) -> None:
    """Digest, size and place of what was built."""
    sums = ARTIFACTS / "SHA256SUMS"
    try:
        lines = [line.split() for line in sums.read_text("utf-8").splitlines()]
    except OSError as error:
        raise NiftyError(f"{sums}: {error.strerror}") from error
    known = {name: digest for digest, name in lines}
    for path in artifacts(settings):
        size = path.stat().st_size
        shown = path.relative_to(PROJECT)
        terminal.lines(f"{known.get(path.name, '?'):64}  {size:>9,} bytes  {shown}")


def names(settings: Settings) -> list[str]:
    """What SHA256SUMS lists: this image's artifacts and those of other images that are there."""
    stems = [path.stem for path in (RECIPES / "images").glob("*.toml")]
    there = {
        f"{stem}-{arch}{ending}"
        for stem in stems
        for arch in ARCHITECTURES
        for ending in ENDINGS
        if (ARTIFACTS / f"{stem}-{arch}{ending}").is_file()
    }
    return sorted(there | {path.name for path in artifacts(settings)})
