"""Wheels for another Python and machine than this one, by pip: pinned ones, or the newest."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError, some
from pipeline.onefile.lock import Pin, normalized
from pipeline.run import ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What wheels are pinned for: PyPI has few for other machines.
MACHINES = ("x86_64", "aarch64")
# The oldest C library that must do: of Debian 12 it is 2.36, of RHEL 9 2.34 (PEP 600).
_GLIBC = range(17, 35)
# Required by others for what no command of a host does: rich draws bars, and no source text.
_WITHOUT = ("markdown-it-py", "mdurl", "pygments")
# Checks signatures where the host has no gpgv.
_EXTRA = "verify"
_MINUTES = 20


class WheelsError(NiftyError):
    """Wheels that are not to be had, or are not those that are pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A Python, as `3.11`, and a machine, as of `uname -m`."""

    python: str
    machine: str

    @property
    def stem(self) -> str:
        """What tells its files from others."""
        return f"py{self.python.replace('.', '')}-{self.machine}"


def fetch(
    target: Target, pins: Sequence[Pin], folder: Path, lock: Path, *, offline: bool
) -> tuple[Path, ...]:
    """The wheels of *pins* for *target*, in *folder*, whose hashes are right: one for each pin.

    What is missing there is downloaded, unless *offline*; nothing without a pin. *lock*: the file
    of *pins*. Raises WheelsError.
    """
    if target.machine not in MACHINES:
        raise WheelsError(
            f"arch={target.machine}: no wheels are pinned for it", hint=f"arch={','.join(MACHINES)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    found = _pinned(pins, folder)
    if len(found) < len(pins) and not offline:
        _download(target, folder, "--no-deps", "--require-hashes", "--requirement", str(lock))
        found = _pinned(pins, folder)
    missing = [f"{pin.name} {pin.version}" for pin in pins if pin not in found]
    if missing:
        raise WheelsError(
            f"{folder}: no pinned wheel for Python {target.python} on {target.machine} "
            f"of {some(missing)}",
            hint="without offline=yes they are downloaded" if offline else "doit pyz renew=yes",
        )
    return tuple(found[pin] for pin in pins)


def newest(targets: Sequence[Target], project: Path) -> tuple[Pin, ...]:
    """Pins of the newest wheels that pyproject.toml in *project* allows, for all *targets*.

    Each distribution in one version for all. Raises WheelsError.
    """
    table = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*table["dependencies"], *table["optional-dependencies"][_EXTRA]]
    hashes: dict[tuple[str, str], set[str]] = {}
    with tempfile.TemporaryDirectory(prefix="nifty-pyz-") as work:
        chosen = Path(work) / "chosen.txt"
        chosen.write_text("")
        for target in targets:
            folder = Path(work) / target.stem
            _download(target, folder, "--constraint", str(chosen), *wanted)
            for path in folder.iterdir():
                name, version = _named(path)
                if name not in _WITHOUT:
                    hashes.setdefault((name, version), set()).add(_digest(path))
            chosen.write_text("".join(f"{name}=={version}\n" for name, version in hashes))
    return tuple(
        Pin(name=name, version=version, hashes=tuple(sorted(some)))
        for (name, version), some in sorted(hashes.items())
    )


def _download(target: Target, folder: Path, *words: str) -> None:
    tags = [f"manylinux_2_{minor}_{target.machine}" for minor in reversed(_GLIBC)]
    tags.append(f"manylinux2014_{target.machine}")
    try:
        run(
            [
                *(sys.executable, "-m", "pip", "download", "--no-input", "--dest", folder),
                *("--quiet", "--disable-pip-version-check", "--only-binary=:all:"),
                *("--python-version", target.python, "--implementation", "cp"),
                *(word for tag in tags for word in ("--platform", tag)),
                *words,
            ],
            env=os.environ,
            timeout=_MINUTES * 60,
        )
    except ProgramError as error:
        raise WheelsError(
            f"wheels for Python {target.python} on {target.machine}: {error.message}",
            hint="pip downloads them: is there a way to PyPI, and pip in this environment?",
        ) from error


def _pinned(pins: Sequence[Pin], folder: Path) -> dict[Pin, Path]:
    """Of *pins* those that have their wheel in *folder*, with its path."""
    wanted = {(pin.name, pin.version): pin for pin in pins}
    return dict(_matching(wanted, folder))


def _matching(wanted: dict[tuple[str, str], Pin], folder: Path) -> Iterator[tuple[Pin, Path]]:
    for path in sorted(folder.glob("*.whl")):
        pin = wanted.get(_named(path))
        if pin and _digest(path) in pin.hashes:
            yield pin, path


def _named(path: Path) -> tuple[str, str]:
    """Name and version in the file name of a wheel (PyPA: Binary distribution format)."""
    name, version = path.name.split("-")[:2]
    return normalized(name), version


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
