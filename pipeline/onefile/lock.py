"""The pins of the wheels that are packed: requirements as `pip --require-hashes` reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_HEAD = """\
# What `doit pyz` packs, for each Python and machine; `doit pyz renew=yes` writes it anew.
# Each hash is that of one wheel (pip: Secure installs).
"""
_LINE = re.compile(r"([a-z0-9][a-z0-9-]*)==([A-Za-z0-9.!+]+)((?: --hash=sha256:[0-9a-f]{64})+)")
_LIMIT = 1 << 20


class LockError(NiftyError):
    """A file of pins that cannot be read as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One distribution in one version; *hashes*: sha256 of its wheels, sorted."""

    name: str
    version: str
    hashes: tuple[str, ...]


def normalized(name: str) -> str:
    """*name* of a distribution as its spellings are compared (PyPA: Names and normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(path: Path) -> tuple[Pin, ...]:
    """The pins in *path*. Raises LockError."""
    try:
        text = files.read_text(path, limit=_LIMIT)
    except OSError as error:
        raise LockError(reason(error, path), hint="git checkout brings it back") from error
    pins = []
    for line in text.replace(" \\\n   ", "").splitlines():
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise LockError(f"{path}: not a pin with hashes: {line}", hint="doit pyz renew=yes")
        hashes = tuple(re.findall(r"[0-9a-f]{64}", found[3]))
        pins.append(Pin(name=found[1], version=found[2], hashes=hashes))
    return tuple(pins)


def text(pins: Iterable[Pin]) -> str:
    """The file of *pins*, sorted; `read` gives them back."""
    lines = [
        " \\\n    ".join(
            [f"{pin.name}=={pin.version}", *(f"--hash=sha256:{one}" for one in pin.hashes)]
        )
        for pin in sorted(pins, key=lambda pin: pin.name)
    ]
    return _HEAD + "".join(f"{line}\n" for line in lines)
