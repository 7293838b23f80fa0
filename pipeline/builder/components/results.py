"""Finished components: a folder each, under the digest of all that decides it, there when whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.files import put_cached

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.builder.recipes.component import Component

# beside a finished binary: its sha256, the names it answers to, and a sha256 of these
RECORD = "component.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A component ready for an image: *folder* holds its binary and a list of its applets.

    *linked* are the libraries that the linker took (none is told of a prebuilt one), *licences* the
    texts of the recipe's licence files by their paths.
    """

    name: str
    digest: str
    folder: Path
    program: str
    applets: tuple[str, ...]
    linked: tuple[str, ...] = ()
    licences: Mapping[str, str] = field(default_factory=dict)

    @property
    def binary(self) -> Path:
        """The multi-call binary."""
        return self.folder / self.program


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """As `Built`, before it lies in its folder."""

    content: bytes
    applets: tuple[str, ...]
    linked: tuple[str, ...]
    licences: Mapping[str, str]


def find(component: Component, digest: str, result: Path) -> Built | None:
    """The finished result, or None if there is none or it was damaged since."""
    try:
        table = json.loads((result / RECORD).read_text("utf-8"))
        if table.pop("record") != _seal(table):
            return None
        built = Built(
            name=component.name,
            digest=digest,
            folder=result,
            program=component.program.file,
            applets=tuple(table["applets"]),
            linked=tuple(table["linked"]),
            licences=dict(table["licences"]),
        )
        found = hashlib.sha256(built.binary.read_bytes()).hexdigest()
        return built if found == table["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def publish(staged: Path, result: Path, component: Component, made: Made) -> None:
    """Have *result* be *made*: put into *staged*, on the same file system, and renamed whole."""
    staged.mkdir()
    put_cached(staged / component.program.file, made.content, mode=0o755)
    record = {
        "applets": made.applets,
        "linked": made.linked,
        "licences": made.licences,
        "sha256": hashlib.sha256(made.content).hexdigest(),
        "version": component.version,
    }
    record["record"] = _seal(record)
    put_cached(staged / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    shutil.rmtree(result, ignore_errors=True)  # whatever was damaged
    staged.rename(result)


def install(built: Built, folder: Path) -> None:
    """Copy *built* to *folder*, where people and doit look for it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mode in ((built.program, 0o755), (RECORD, 0o644)):
        put_cached(folder / name, (built.folder / name).read_bytes(), mode=mode)


def _seal(table: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
