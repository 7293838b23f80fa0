"""Where doit remembers what it did: one database for each user, so that root's is not in the way.

sqlite3 reads the same in every Python version and bears two runs at once.
"""

from __future__ import annotations

import os

from pipeline.paths import PROJECT


def database() -> str:
    """The path of this user's database; in memory on a checkout that this user cannot write to."""
    folder = PROJECT / "artifacts" / "state"
    path = folder / f"doit-{os.geteuid()}.sqlite3"
    try:
        folder.mkdir(exist_ok=True, mode=0o777)
        if os.geteuid() == 0 and folder.stat().st_mode & 0o002 == 0:
            folder.chmod(0o1777)  # as /tmp: whoever builds next makes a database beside root's
        if path.exists() or os.access(folder, os.W_OK):
            return str(path)
    except OSError:
        pass
    return ":memory:"
