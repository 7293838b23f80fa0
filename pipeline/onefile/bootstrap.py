"""What such a file runs: it unpacks itself once, and is the program then.

Binary modules cannot be imported from a zip (zipimport). The standard library alone is there, and
the Python may be another one than the file was made for.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

ABOUT = "about.json"
WHEELS = "wheels/"
OURS = "nifty/"


def main() -> NoReturn:
    """Be the program; only a file for another Python, or no place to unpack to, is told of here."""
    archive = Path(__file__).resolve().parent
    with zipfile.ZipFile(archive) as packed:
        about = json.loads(packed.read(ABOUT))
        check(about)
        try:
            folder, _ = unpacked(packed, about, place())
        except OSError as error:
            _fail(
                f"{archive.name} cannot be unpacked: {error.filename}: {error.strerror}",
                "root unpacks to /var/lib/nifty/pyz, others below XDG_CACHE_HOME, or ~/.cache",
            )
    sys.path[:] = [str(folder), *(path for path in sys.path if path != str(archive))]
    sys.exit(import_module("pipeline.tasks.host").main())


def check(about: dict[str, Any]) -> None:
    """End unless this Python is the one that the wheels are for."""
    machine = os.uname().machine
    here = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {machine}"
    wanted = f"Python {about['python']} on {about['machine']}"
    if here != wanted:
        _fail(
            f"this file is for {wanted}, and this is {here}",
            f"take the file for {here}, or call this one by python{about['python']}",
        )


def place() -> Path:
    """Where this user's files are unpacked to (XDG base directories; hier(7))."""
    if os.geteuid() == 0:
        return Path("/var/lib/nifty/pyz")
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = os.environ.get("HOME") or "/"
    return Path(given if given.startswith("/") else f"{home}/.cache") / "nifty" / "pyz"


def unpacked(packed: zipfile.ZipFile, about: dict[str, Any], where: Path) -> tuple[Path, int]:
    """The folder in *where* with all of *packed*, made if need be; older ones go.

    Nobody else can write there. It is whole or not there, whenever this is killed, and it stays as
    long as a process has the descriptor that comes with it. Raises OSError.
    """
    before = os.umask(0o077)
    try:
        where.mkdir(parents=True, exist_ok=True)
        for folder in (where.parent, where):
            _check_ours(folder)
        if os.statvfs(where).f_flag & os.ST_NOEXEC:
            raise PermissionError(1, "mounted noexec, so no binary module is loaded", str(where))
        with (where / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = where / str(about["digest"])
            if not folder.is_dir():
                new = Path(tempfile.mkdtemp(prefix="new-", dir=where))
                _extract(packed, about, new)
                os.sync()  # a name must not be on the disk before what it names
                new.rename(folder)
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(held, fcntl.LOCK_SH)
            _remove_others(where, folder)
    finally:
        os.umask(before)
    return folder, held


def _check_ours(folder: Path) -> None:
    state = folder.lstat()
    is_ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
    if not is_ours or state.st_mode & 0o022:
        raise PermissionError(1, "others may write there", str(folder))


def _extract(packed: zipfile.ZipFile, about: dict[str, Any], folder: Path) -> None:
    for name in packed.namelist():
        if name.startswith(WHEELS):
            with zipfile.ZipFile(io.BytesIO(packed.read(name))) as wheel:
                for member in wheel.namelist():
                    # *.data/ has scripts (PyPA: Binary distribution format)
                    if ".data/" not in member and not member.startswith(tuple(about["left"])):
                        wheel.extract(member, folder)
        elif name.startswith(OURS):
            path = folder / name[len(OURS) :]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(packed.read(name))


def _remove_others(where: Path, folder: Path) -> None:
    for other in where.iterdir():
        if other in (folder, where / "lock"):
            continue
        with suppress(OSError):
            held = os.open(other, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # half of it must not be found under its name, should this be killed
                old = Path(tempfile.mkdtemp(prefix="old-", dir=where))
                other.rename(old)
                shutil.rmtree(old)
            finally:
                os.close(held)


def _fail(message: str, hint: str) -> NoReturn:
    sys.exit(f"error: {message}\nhint: {hint}")
