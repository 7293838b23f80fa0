"""Small files below PREFIX/.nifty, put in place together: durable at the cost of two syncfs(2)."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from pipeline import files, trees

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.host.state.layout import Layout


class Batch:
    """Files and folders that `commit` gives their names: at every moment each is old or new, whole.

    They wait in PREFIX/.nifty/new, so a killed run leaves nothing elsewhere, and a block that ends
    without `commit`, on a full disk, leaves nothing at all. Whatever is in the way of one is
    replaced, a directory or a link as well: all below PREFIX/.nifty is this program's.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._waiting: list[tuple[Path, Path]] = []

    def __enter__(self) -> Self:
        """Itself: what waits when the block ends is dropped."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what has no name yet; on a bad disk the next run does it."""
        with suppress(OSError):
            self.drop()

    def put(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Write *content*, which gets the name *path* later. Raises OSError."""
        part = self._layout.new / f"{os.getpid()}.{len(self._waiting)}.{path.name}"
        part.unlink(missing_ok=True)
        files.write(part, content, mode=mode)
        self.move(part, path)

    def move(self, part: Path, path: Path) -> None:
        """Have what was made as *part*, in `new` as well, get the name *path* later."""
        self._waiting.append((part, path))

    def commit(self) -> bool:
        """Have the contents on the disk, then the names; no if nothing waits. Raises OSError."""
        if not self._waiting:
            return False
        files.sync(self._layout.state)
        self.name()
        files.sync(self._layout.state)
        return True

    def name(self) -> None:
        """The names alone, for who has contents of his own, and forces all to the disk himself.

        Raises OSError.
        """
        for part, path in self._waiting:
            _make_way(part, path)
            part.replace(path)
        self._waiting.clear()

    def drop(self) -> None:
        """Forget what waits: the files keep what they had."""
        for part, _path in self._waiting:
            with trees.opened(part.parent) as folder:
                trees.remove(folder, part.name)
        self._waiting.clear()


def _make_way(part: Path, path: Path) -> None:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(facts.st_mode) or part.is_dir():
        with trees.opened(path.parent) as above:
            trees.remove(above, path.name)
