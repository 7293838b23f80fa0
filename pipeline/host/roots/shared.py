"""The part of an image that its instances share, PREFIX/cbin/DIGEST: written, compared, mended.

All of it belongs to the host's root whatever the image says: every instance sees it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.host.roots.guest import GuestRoot
from pipeline.image.rootfs import Directory, Entry, File, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.host.state.batch import Batch
    from pipeline.host.state.layout import Layout
    from pipeline.image.manifest import EntryRecord
    from pipeline.image.rootfs import Rootfs

_PART = "cbin/"


def entries(rootfs: Rootfs) -> Iterator[Entry]:
    """What is shared of *rootfs*, by its path below /cbin, parents first."""
    for entry in rootfs:
        if entry.path.startswith(_PART):
            path = entry.path.removeprefix(_PART)
            if isinstance(entry, Symlink):
                yield replace(entry, path=path, uid=0, gid=0)
            else:
                yield replace(entry, path=path, mode=entry.mode & 0o755, uid=0, gid=0)


def put(batch: Batch, layout: Layout, digest: str, rootfs: Rootfs) -> bool:
    """Have *batch* put the shared part of *rootfs* at its place; whether anything is written.

    What is there already and differs is replaced path by path, at once: instances may be running
    from it. Its contents are not on the disk yet. Raises OSError.
    """
    with trees.opened(layout.new) as new, trees.opened(layout.shared) as above:
        if _is_directory(above, digest):
            return _mend(above, digest, rootfs)
        trees.remove(new, digest)
        os.mkdir(digest, 0o700, dir_fd=new)
        with trees.opened(digest, at=new) as folder:
            for entry in entries(rootfs):
                _write(folder, entry)
            os.fchmod(folder, 0o755)
    batch.move(layout.new / digest, layout.cbin(digest))
    return True


def is_whole(layout: Layout, digest: str, rootfs: Rootfs) -> bool:
    """Whether it is there as *rootfs* has it. Raises OSError."""
    with trees.opened(layout.shared) as above:
        if not _is_directory(above, digest):
            return False
        with trees.opened(digest, at=above) as folder:
            root = GuestRoot(folder, 0)
            return all(root.find(entry.path, entry) == entry for entry in entries(rootfs))


def damaged(layout: Layout, digest: str, records: Iterable[EntryRecord]) -> Iterator[str]:
    """Paths below /cbin whose content is not what a manifest's *records* say. Raises OSError."""
    with trees.opened(layout.shared) as above:
        if not _is_directory(above, digest):
            yield "."
            return
        with trees.opened(digest, at=above) as folder:
            for record in records:
                path = record.path.removeprefix(_PART)
                if record.path != path and record.kind != "directory" and _differs(folder, record):
                    yield path


def _differs(folder: int, record: EntryRecord) -> bool:
    try:
        with trees.parent(folder, record.path.removeprefix(_PART)) as (above, name):
            if record.kind == "symlink":
                return os.readlink(name, dir_fd=above) != record.target
            content = files.read(name, limit=record.size or 0, at=above)
    except OSError:
        return True
    return hashlib.sha256(content).hexdigest() != record.sha256


def _is_directory(above: int, digest: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(digest, dir_fd=above, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _mend(above: int, digest: str, rootfs: Rootfs) -> bool:
    is_changed = False
    with trees.opened(digest, at=above) as folder:
        root = GuestRoot(folder, 0)
        for entry in entries(rootfs):
            if root.find(entry.path, entry) == entry:
                continue
            is_changed = True
            if not root.put(entry):
                # something in its way that is not empty
                with trees.parent(folder, entry.path) as (within, name):
                    trees.remove(within, name)
                root.put(entry)
    return is_changed


def _write(folder: int, entry: Entry) -> None:
    """One entry where nothing is yet."""
    match entry:
        case Directory():
            os.mkdir(entry.path, dir_fd=folder)
        case Symlink():
            os.symlink(entry.target, entry.path, dir_fd=folder)
            return
        case File():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(entry.path, flags, dir_fd=folder)
            with open(file, "wb") as stream:  # noqa: PTH123 (a descriptor has no path)
                stream.write(entry.content)
    os.chmod(entry.path, entry.mode, dir_fd=folder)
