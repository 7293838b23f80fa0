"""ld.so.conf: the directories that ldconfig(8) would read, in its order."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.libraries.root import LibraryRoot

PATH = "/etc/ld.so.conf"


def directories(root: LibraryRoot) -> tuple[str, ...]:
    """The directories of a root's /etc/ld.so.conf and what it includes, as they are written.

    Comments, `hwcap` lines and trailing slashes are dropped; a file that is absent, or includes
    itself, adds nothing (parse_conf in glibc's elf/ldconfig.c).
    """
    return tuple(dict.fromkeys(_read(root, PATH, ())))


def _read(root: LibraryRoot, path: str, readers: tuple[str, ...]) -> Iterator[str]:
    content = root.content(path)
    if content is None or path in readers:
        return
    for raw in content.decode(errors="replace").split("\n"):
        line = raw.partition("#")[0].strip()
        if re.match(r"include[ \t]", line):
            for pattern in line.split()[1:]:
                for included in _glob(root, _absolute(pattern, path)):
                    yield from _read(root, included, (*readers, path))
        elif line.rstrip("/") and not re.match(r"hwcap[ \t]", line, re.IGNORECASE):
            yield line.rstrip("/")


def _absolute(pattern: str, file: str) -> str:
    return pattern if pattern.startswith("/") else f"{file.rpartition('/')[0]}/{pattern}"


def _glob(root: LibraryRoot, pattern: str) -> tuple[str, ...]:
    """The names that glob(7) finds inside the root, sorted as in the C locale."""
    found = [""]
    for part in pattern.strip("/").split("/"):
        if not re.search(r"[*?[]", part):
            found = [f"{folder}/{part}" for folder in found]
            continue
        found = [
            f"{folder}/{name}"
            for folder in found
            for name in root.names(folder or "/")
            if fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
        ]
    return tuple(path for path in sorted(found) if root.locate(path) is not None)
