"""`doit pyz`: the host's half becomes one file for each Python and machine."""

from __future__ import annotations

import hashlib
import tomllib
from typing import TYPE_CHECKING

from pipeline import files, terminal
from pipeline.commands.places import ARTIFACTS, CACHE, RECIPES
from pipeline.errors import NiftyError, reason
from pipeline.onefile import lock, modules, pack, wheels
from pipeline.onefile.wheels import Target
from pipeline.paths import PROJECT
from pipeline.progress import say
from pipeline.settings import PYTHONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pipeline.settings import Settings

LOCK = RECIPES / "host-wheels.txt"


def run(settings: Settings) -> None:
    """Make the files, and show their sums; or, with renew=yes, the pins of their wheels."""
    if settings.renew:
        _renew()
        return
    for path in made(settings):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        terminal.lines(f"{digest}  {path.relative_to(PROJECT)}")


def made(settings: Settings) -> Iterator[Path]:
    """The files that python= and arch= mean, one after the other. Raises NiftyError."""
    packed = inside()
    for python in settings.python or PYTHONS:
        for machine in settings.arches or wheels.MACHINES:
            target = Target(python=python, machine=machine)
            try:
                yield make(target, packed, ARTIFACTS, offline=settings.offline)
            except OSError as error:
                raise NiftyError(reason(error, ARTIFACTS)) from error


def inside() -> dict[str, Path]:
    """The modules of a host's commands, by their paths in the file."""
    return modules.closure(PROJECT, ["pipeline.tasks.host"])


def make(
    target: Target, packed: Mapping[str, Path], folder: Path, *, offline: bool = False
) -> Path:
    """The file of *packed* for *target*, in *folder*. Raises WheelsError, LockError, OSError."""
    pins = lock.read(LOCK)
    found = wheels.fetch(target, pins, CACHE / "wheels" / target.stem, LOCK, offline=offline)
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    path = folder / pack.name(target)
    content = pack.pack(target, found, packed, version)
    if not files.holds(path, content):
        files.put_cached(path, content, mode=0o755)
    return path


def _renew() -> None:
    every = [Target(python=one, machine=other) for one in PYTHONS for other in wheels.MACHINES]
    say(f"the newest wheels for {len(every)} kinds of hosts are downloaded: minutes")
    pins = wheels.newest(every, PROJECT)
    files.put_cached(LOCK, lock.text(pins).encode())
    say(f"{LOCK.relative_to(PROJECT)}: {len(pins)} distributions")
