"""Where doit remembers what it did: one database for each user, so that root's is not in the way.

sqlite3 reads the same in every Python version and bears two runs at once.
"""

from __future__ import annotations

import os

from pipeline.paths import PROJECT


def database() -> str:
    """The path of this user's database; in memory on a checkout that this user cannot write to.

    A folder for each user, since sqlite makes further files beside the database, and one that all
    may write to would let others choose what root believes to be done.
    """
    folder = PROJECT / "artifacts" / f"state-{os.geteuid()}"
    path = folder / "doit.sqlite3"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return ":memory:"
    usable = os.access(folder, os.W_OK | os.X_OK) and (
        not path.exists() or os.access(path, os.R_OK | os.W_OK)
    )
    return str(path) if usable else ":memory:"
