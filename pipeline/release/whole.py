"""A directory that is whole at every moment: made beside, and exchanged in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import files, trees

if TYPE_CHECKING:
    from pathlib import Path


def finish(folder: Path) -> None:
    """What `exchange` was killed in, where it takes two steps. Raises OSError."""
    kept = folder.with_name(f"{folder.name}.old")
    if kept.is_dir() and not folder.exists():
        kept.rename(folder)
    remove(kept)


def exchange(beside: Path, folder: Path) -> None:
    """*beside* takes *folder*'s place, in one step if there is a way; the old one is removed.

    Raises OSError.
    """
    files.sync(beside)
    if not folder.exists():
        beside.rename(folder)
    elif not files.exchanged(beside, folder):
        kept = folder.with_name(f"{folder.name}.old")
        folder.rename(kept)
        beside.rename(folder)
        kept.rename(beside)
    files.sync_folder(folder.parent)
    remove(beside)


def remove(path: Path) -> None:
    """Remove what is there, whatever it is. Raises OSError."""
    with trees.opened(path.parent) as parent:
        trees.remove(parent, path.name)
