"""A tree on a disk as a value, to compare it with what it should be."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from pipeline.image.rootfs import Directory, Entry, File, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Seen = dict[str, tuple[object, ...]]


def seen(root: Path) -> Seen:
    """All that is below *root*: kind, mode, owner, content."""
    found: Seen = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = root / folder / name
            facts = path.lstat()
            owner = (facts.st_uid, facts.st_gid)
            relative = str(path.relative_to(root))
            if path.is_symlink():
                found[relative] = ("symlink", *owner, os.readlink(path))  # noqa: PTH115 (Path would tidy it up)
            elif path.is_dir():
                found[relative] = ("directory", stat.S_IMODE(facts.st_mode), *owner)
            else:
                found[relative] = ("file", stat.S_IMODE(facts.st_mode), *owner, path.read_bytes())
    return found


def expected(entries: Iterable[Entry], base: int) -> Seen:
    """What *entries* should look like there; without root all belongs to who runs this."""
    found: Seen = {}
    for entry in entries:
        owner = (entry.uid + base, entry.gid + base)
        if os.geteuid() != 0:
            owner = (os.geteuid(), os.getegid())
        match entry:
            case Directory():
                found[entry.path] = ("directory", entry.mode, *owner)
            case Symlink():
                found[entry.path] = ("symlink", *owner, entry.target)
            case File():
                found[entry.path] = ("file", entry.mode, *owner, entry.content)
    return found
