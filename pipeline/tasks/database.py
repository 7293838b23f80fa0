"""Where doit remembers what it did: one database for each user, so that root's is not in the way.

sqlite3 reads the same in every Python version and bears two runs at once.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from pipeline.paths import PROJECT
from pipeline.progress import say

if TYPE_CHECKING:
    from pathlib import Path

# bytes; far more than the database ever has
_ROOM = 1 << 20


def database() -> str:
    """The path of this user's database; in memory where this user cannot write.

    A folder for each user, since sqlite makes further files beside the database, and one that all
    may write to would let others choose what root believes to be done.
    """
    folder = PROJECT / "artifacts" / f"state-{os.geteuid()}"
    path = folder / "doit.sqlite3"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ":memory:"
    usable = os.access(folder, os.W_OK | os.X_OK) and (
        not path.exists() or os.access(path, os.R_OK | os.W_OK)
    )
    if not usable or not _has_room(folder):
        return ":memory:"
    _drop_if_damaged(path)
    return str(path)


def _has_room(folder: Path) -> bool:
    # doit shows a traceback when it cannot write, and hides what the task had to say
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize > _ROOM


def _drop_if_damaged(path: Path) -> None:
    # it is only a cache, and doit would ask its user to remove it, below a traceback
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
        try:
            connection.execute("select * from sqlite_master")
        except sqlite3.OperationalError:
            pass  # another run holds it
        except sqlite3.DatabaseError:
            say(f"{path}: damaged; removed, so every task is looked at again")
            path.unlink(missing_ok=True)
