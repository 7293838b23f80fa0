"""What `doit verify` says of who built a release again, and of building it again here."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, UsageError
from pipeline.release import envelope, keys, names, rebuilders
from pipeline.release.check import Check
from pipeline.trust import keyring, sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pipeline.settings import Settings


def checks(
    settings: Settings, folder: Path, found: Iterable[Check], now: datetime
) -> Iterator[Check]:
    """*found*, of the release in *folder*; if all are right, what rebuilders=, rebuild= ask for.

    Raises NiftyError for a release that cannot be built again, or a key that cannot sign.
    """
    is_right = True
    for one in found:
        is_right &= one.is_right
        yield one
    if not is_right or not (settings.rebuilders or settings.rebuild):
        return
    listed = sums.read(files.read(folder / sums.NAME, limit=sums.LIMIT))
    stated = rebuilders.newest(listed)
    if not stated:
        raise NiftyError(f"the release has no {names.PROVENANCE}: nobody says how it was built")
    for name in stated:
        if settings.rebuilders:
            yield _counted(settings, folder, name, now)
        if settings.rebuild:
            yield from _rebuilt(settings, folder, listed, name)


def _counted(settings: Settings, folder: Path, name: str, now: datetime) -> Check:
    there = envelope.read(files.read(folder / name, limit=envelope.LIMIT))
    known = keyring.load(Path(settings.rebuilders))
    others = rebuilders.read(settings.rebuilt)
    try:
        told = rebuilders.check(there.payload, [there, *others], known, settings.need, now)
    except rebuilders.RebuildersError as error:
        return Check(name=f"rebuilders {name}", is_right=False, found=error.message)
    return Check(name=f"rebuilders {name}", is_right=True, found=told)


def _rebuilt(
    settings: Settings, folder: Path, listed: Mapping[str, str], name: str
) -> Iterator[Check]:
    """Each file that was built again; with to= a signature over the statement, if all are right."""
    from pipeline.release import rebuild  # noqa: PLC0415 (the builder's side of the house)

    named = names.parse(name)
    assert named is not None  # noqa: S101 (`newest` has read it)
    is_right = True
    with tempfile.TemporaryDirectory(prefix="nifty-rebuild-") as work:
        for one in rebuild.rebuild(folder, listed, named, Path(work)):
            is_right &= one.is_right
            yield one
    if not is_right or not settings.to:
        return
    found = keys.given(settings.key, os.environ)
    if found is None:
        raise UsageError(
            "signed with which key?", hint=f"key=FILE or {keys.VARIABLE}; without to= nothing is"
        )
    signing = keys.load(*found, os.environ, datetime.now(UTC))
    key = signing.ed25519()
    if key is None:
        raise NiftyError(f"{signing.where}: no ed25519 key, which signs provenance")
    stated = envelope.read(files.read(folder / name, limit=envelope.LIMIT))
    content = envelope.envelope(stated.payload, [key])
    path = rebuilders.write(Path(settings.to), name, content)
    yield Check(name=f"signed {path}", is_right=True, found=signing.certificate.title)
