"""What is measured, checked whole before anything is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks import filesystems, where
from pipeline.errors import NiftyError
from pipeline.host.state import records
from pipeline.paths import PROJECT

PARTS = ("build", "image", "deploy", "start")
# These mount file systems and start systems.
ROOT_PARTS = ("deploy", "start")
COUNTS = (10, 100, 1000, 10000)
ROUNDS = 3
OUT = PROJECT / "artifacts" / "bench"


class OptionsError(NiftyError):
    """Something that cannot be measured here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """*image* is an archive; *counts* are sorted; *on* are kinds of file systems.

    *notes* tell what was left out, and why. *prefix* is where instances are started on this host.
    """

    parts: tuple[str, ...]
    image: Path
    counts: tuple[int, ...] = COUNTS
    on: tuple[str, ...] = filesystems.KINDS
    rounds: int = ROUNDS
    out: Path = OUT
    prefix: Path = Path("/home")
    notes: tuple[str, ...] = ()


def chosen(
    *,
    image: Path,
    parts: tuple[str, ...] = (),
    counts: tuple[int, ...] = (),
    on: tuple[str, ...] = (),
    rounds: int = ROUNDS,
    out: Path = OUT,
    prefix: Path = Path("/home"),
) -> Options:
    """Options with a default for everything empty: whatever this user can measure here.

    Raises OptionsError for what was asked for and cannot be.
    """
    notes = []
    is_root = os.geteuid() == 0
    cannot_start = where.missing() if is_root and (not parts or "start" in parts) else None
    if not parts:
        parts = PARTS if is_root else tuple(part for part in PARTS if part not in ROOT_PARTS)
        if not is_root:
            notes.append(f"left out: {', '.join(ROOT_PARTS)}, which need root")
        if cannot_start:
            parts = tuple(part for part in parts if part != "start")
            notes.append(f"left out: start, for want of {cannot_start}")
    elif cannot_start:
        raise OptionsError(f"nothing can be started here: {cannot_start}")
    elif not is_root and set(parts) & set(ROOT_PARTS):
        raise OptionsError(
            f"measuring {' and '.join(sorted(set(parts) & set(ROOT_PARTS)))} needs root: "
            "it mounts file systems and starts systems",
            hint="sudo .venv/bin/doit bench …, or parts=build,image",
        )
    if "deploy" in parts:
        lacking = {
            kind: why for kind in on or filesystems.KINDS if (why := filesystems.missing(kind))
        }
        if lacking and on:
            raise OptionsError(f"not on this host: {', '.join(lacking.values())}")
        notes += [f"left out: {kind}, for want of {why}" for kind, why in lacking.items()]
        on = on or tuple(kind for kind in filesystems.KINDS if kind not in lacking)
        if counts and max(counts) > records.LAST_SLOT:
            raise OptionsError(f"counts={max(counts)}: one host has room for {records.LAST_SLOT}")
    if set(parts) - {"build"} and not image.is_file():
        raise OptionsError(
            f"{image}: not built yet", hint="doit build, as an ordinary user; or image=PATH"
        )
    return Options(
        parts=tuple(part for part in PARTS if part in parts),
        image=image.absolute(),
        counts=tuple(sorted(set(counts or COUNTS))),
        on=tuple(dict.fromkeys(on)) or filesystems.KINDS,
        rounds=rounds,
        out=out,
        prefix=prefix,
        notes=tuple(notes),
    )
