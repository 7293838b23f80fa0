"""The release that is there: what it is, and what of it stays in the next one."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, ProblemsError
from pipeline.image import archive
from pipeline.paths import beneath
from pipeline.release import names
from pipeline.trust import memory, sums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.release.contents import Item


class PublishError(ProblemsError):
    """A release that cannot be made; the one before stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A release in *folder*: *listed* are its sums, none if none is there.

    *below* are its files in folders, by their paths, and *url* is where it says that it is served:
    both empty where its sums do not vouch for them, so that they are made anew.
    """

    folder: Path
    listed: Mapping[str, str] = field(default_factory=dict)
    below: Mapping[str, bytes] = field(default_factory=dict)
    url: str = ""


def read(folder: Path) -> Before:
    """What *folder* is; nothing if it is not there.

    Raises PublishError if it is no release that this program made.
    """
    if not folder.exists():
        return Before(folder=folder)
    try:
        listed = sums.read(files.read(folder / sums.NAME, limit=sums.LIMIT))
    except (OSError, NiftyError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise PublishError(
            f"{folder}: no release that this program made:",
            [f"{told}"],
            hint=f"move it away: mv {folder} {folder}.away",
        ) from error
    below: Mapping[str, bytes] = {}
    url = ""
    with suppress(NiftyError, OSError, KeyError):
        below = _below(folder, _vouched(folder / names.FOLDERS, listed[names.FOLDERS]))
    with suppress(NiftyError, OSError, KeyError, ValueError):
        url = str(json.loads(_vouched(folder / names.INDEX, listed[names.INDEX]))["url"])
    return Before(folder=folder, listed=listed, below=below, url=url)


def _below(folder: Path, content: bytes) -> dict[str, bytes]:
    return {
        name: _vouched(beneath(folder, name), digest)
        for name, digest in sums.read(content, below=True).items()
    }


def _vouched(path: Path, digest: str) -> bytes:
    content = files.read(path, limit=archive.DEFAULT_LIMITS.max_bytes)
    if hashlib.sha256(content).hexdigest() != digest:
        raise NiftyError(f"{path}: not the bytes that were published")
    return content


def contents(new: Sequence[Item], before: Before, keep: int) -> dict[str, bytes]:
    """Every versioned file of the next release: *new*, and what stays of the one *before*.

    *keep* versions of each image stay, and programs for hosts until they are made anew. Raises
    PublishError if one of *new* has other bytes than were published under its name, or what is
    there is damaged.
    """
    folder, old = before.folder, before.listed
    found = {item.name: item.content for item in new}
    problems = [
        f"{item.name}: published with the sha256 {old[item.name]}, "
        f"now {hashlib.sha256(item.content).hexdigest()}"
        for item in new
        if item.is_fixed
        and item.name in old
        and old[item.name] != hashlib.sha256(item.content).hexdigest()
    ]
    if problems:
        raise PublishError(
            "a version that is published is never changed:",
            problems,
            hint="give the image's recipe another version=",
        )
    for name in _staying([*found, *old], keep) - found.keys():
        try:
            content = files.read(folder / name, limit=archive.DEFAULT_LIMITS.max_bytes)
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
            continue
        if hashlib.sha256(content).hexdigest() != old[name]:
            problems.append(f"{name}: not the bytes that were published")
        found[name] = content
    if problems:
        raise PublishError(f"{folder}: the release that is there is damaged:", problems)
    return found


def _staying(all_names: Sequence[str], keep: int) -> set[str]:
    """Those of *all_names* of the newest *keep* versions of their image, and programs."""
    named = {name: found for name in all_names if (found := names.parse(name))}
    versions: dict[str, set[str]] = {}
    for one in named.values():
        versions.setdefault(one.image, set()).add(one.version)
    newest = {image: sorted(found, key=memory.order)[-keep:] for image, found in versions.items()}
    images = {name for name, one in named.items() if one.version in newest[one.image]}
    return images | {name for name in all_names if names.is_program(name)}
