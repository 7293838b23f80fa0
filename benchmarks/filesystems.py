"""Fresh file systems to measure on: what was deleted before must not slow down what is made now.

All mounts are made in a mount namespace of this process alone, and the sparse file behind a loop
device is unlinked as soon as it is mounted: whatever ends this process, nothing stays mounted and
nothing stays on the disk.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.run import CLEAN_ENVIRONMENT, run

if TYPE_CHECKING:
    from collections.abc import Iterator

# Kind -> the Debian package with its mkfs and, for btrfs, the peer.
PACKAGES = {"tmpfs": "mount", "ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
KINDS = tuple(PACKAGES)
# Sparse; so large that its journal is that of a real disk.
SIZE = 32 << 30
# What an instance takes on the greediest of them, and what each has for itself.
_BYTES_EACH = 256 * 1024
_BYTES_MORE = 2 << 30
_CLONE_NEWNS = 0x00020000

# ext4 would write its inode tables in the background while others are measured (ext4(5)).
_OPTIONS = {"ext4": ("-o", "loop,noinit_itable"), "tmpfs": ("-o", "mode=755,size=75%")}


class FilesystemError(NiftyError):
    """A file system that cannot be made here."""


def missing(kind: str) -> str | None:
    """Why there can be no *kind* here; None if there can."""
    if kind == "tmpfs" or shutil.which(f"mkfs.{kind}", path=CLEAN_ENVIRONMENT["PATH"]):
        return None
    return f"mkfs.{kind} (apt-get install {PACKAGES[kind]})"


def roomy() -> Path:
    """Where large files go: TMPDIR or /var/tmp, as /tmp is memory on many hosts."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 (in a folder of its own)


def keep_mounts_private() -> None:
    """From now on this process and its children have their own mounts. Needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise FilesystemError(
            f"no mount namespace of our own: {os.strerror(ctypes.get_errno())}",
            hint="file systems can only be measured as root, with CAP_SYS_ADMIN",
        )
    run(["mount", "--make-rprivate", "/"])


def check_room(count: int, kinds: tuple[str, ...]) -> None:
    """Raise FilesystemError if *count* instances would fill the disk behind loop devices."""
    if set(kinds) <= {"tmpfs"}:
        return
    needed = count * _BYTES_EACH + _BYTES_MORE
    try:
        free = shutil.disk_usage(roomy()).free
    except OSError as error:
        raise FilesystemError(f"{roomy()}: {error.strerror}", hint="TMPDIR=DIRECTORY") from error
    if free < needed:
        raise FilesystemError(
            f"{roomy()}: {free / 1e9:.1f} GB free, {count} instances need {needed / 1e9:.1f} GB",
            hint="a larger disk: TMPDIR=DIRECTORY doit bench …; or smaller counts=",
        )


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for sparse files and programs; gone afterwards."""
    try:
        scratch = tempfile.TemporaryDirectory(prefix="nifty-bench-", dir=roomy())
    except OSError as error:
        raise FilesystemError(f"{roomy()}: {error.strerror}", hint="TMPDIR=DIRECTORY") from error
    with scratch as name:
        yield Path(name)


@contextmanager
def fresh(kind: str, work: Path) -> Iterator[Path]:
    """A new file system of *kind*, mounted below *work*; gone afterwards.

    Call `keep_mounts_private` first.
    """
    mount, disk = work / "mount", work / "disk"
    mount.mkdir()
    try:
        if kind == "tmpfs":
            run(["mount", "-t", "tmpfs", *_OPTIONS["tmpfs"], "tmpfs", mount])
        else:
            with disk.open("wb") as file:
                file.truncate(SIZE)
            run([f"mkfs.{kind}", "-q", disk])
            run(["mount", *_OPTIONS.get(kind, ("-o", "loop")), disk, mount])
    except BaseException:
        # interrupted, mount(8) may have done its work or not
        run(["umount", "--quiet", mount], check=False)
        mount.rmdir()
        raise
    finally:
        # the loop device holds it; with the last mount both are gone (losetup(8), autoclear)
        disk.unlink(missing_ok=True)
    try:
        yield mount
    except BaseException:
        # interrupted right after open(2), a descriptor stays open until this process ends
        run(["umount", "--lazy", mount], check=False)
        raise
    else:
        _unmount(mount)
    finally:
        mount.rmdir()


def _unmount(mount: Path) -> None:
    deadline = time.monotonic() + 20
    # a killed program's children may live a moment longer
    while (ended := run(["umount", mount], check=False)).returncode != 0:
        if time.monotonic() > deadline:
            raise FilesystemError(f"{mount}: {ended.stderr.strip()}")
        time.sleep(0.1)
