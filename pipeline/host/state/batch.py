"""Small files below PREFIX/.nifty, put in place together: durable at the cost of two syncfs(2)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from pipeline import files, trees

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.host.state.layout import Layout


class Batch:
    """Files that `commit` gives their names: at every moment each is the old or the new, whole.

    They wait in PREFIX/.nifty/new, so a killed run leaves nothing elsewhere. Whatever is in the way
    of one is replaced, a directory or a link as well: all below PREFIX/.nifty is this program's.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._waiting: list[tuple[Path, Path]] = []

    def put(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Write *content*, which gets the name *path* later. Raises OSError."""
        part = self._layout.new / f"{os.getpid()}.{len(self._waiting)}.{path.name}"
        part.unlink(missing_ok=True)
        files.write(part, content, mode=mode)
        self._waiting.append((part, path))

    def commit(self) -> bool:
        """Have the contents on the disk, then the names; no if nothing waits. Raises OSError."""
        if not self._waiting:
            return False
        files.sync(self._layout.state)
        for part, path in self._waiting:
            _make_way(path)
            part.replace(path)
        self._waiting.clear()
        files.sync(self._layout.state)
        return True

    def drop(self) -> None:
        """Forget what waits: the files keep what they had."""
        for part, _path in self._waiting:
            part.unlink(missing_ok=True)
        self._waiting.clear()


def _make_way(path: Path) -> None:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(facts.st_mode):
        with trees.opened(path.parent) as above:
            trees.remove(above, path.name)
