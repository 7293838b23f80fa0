"""Unpacks what was fetched: nothing leaves the folder it is unpacked into."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.image import archive
from pipeline.image.rootfs import Directory, File, Symlink
from pipeline.paths import beneath

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.image.rootfs import Rootfs

_AR_MAGIC = b"!<arch>\n"


class SourceError(NiftyError):
    """An archive that is not what a recipe says it is."""


def unpack(packed: Path, into: Path, *, epoch: int) -> Path:
    """Unpack a source tarball below *into*; returns its single top folder.

    Every time stamp becomes *epoch*, every mode 0644 or 0755. Raises ArchiveError for anything a
    tarball should not hold, SourceError for absolute links or more than one top folder.
    """
    entries = archive.read(packed)
    tops = [entry for entry in entries if "/" not in entry.path]
    if len(tops) != 1 or not isinstance(tops[0], Directory):
        found = " ".join(entry.path for entry in tops[:5]) or "nothing"
        raise SourceError(f"{packed.name}: expected a single top folder, found {found}")
    for entry in entries:  # all of them, before anything is written
        if isinstance(entry, Symlink) and entry.target.startswith("/"):
            raise SourceError(f"{packed.name}: {entry.path} links to {entry.target}")
    for entry in entries:
        path = beneath(into, entry.path)
        match entry:
            case Directory():
                path.mkdir()
                path.chmod(0o755)  # whatever the umask
            case File():
                path.write_bytes(entry.content)
                path.chmod(0o755 if entry.mode & 0o100 else 0o644)
            case Symlink():
                path.symlink_to(entry.target)
    for entry in reversed(entries.entries):  # a folder's own stamp after those of its contents
        os.utime(beneath(into, entry.path), (epoch, epoch), follow_symlinks=False)
    return into / tops[0].path


def deb_member(package: Path, member: str) -> bytes:
    """The content of *member* in a Debian binary package.

    Raises SourceError as `deb_tree` does, or if there is no such file.
    """
    entry = deb_tree(package).resolve(member)
    if isinstance(entry, File):
        return entry.content
    raise SourceError(f"{package.name}: has no file {member}")


def deb_tree(package: Path) -> Rootfs:
    """The files of a Debian binary package (deb(5): an ar archive of two tars).

    Raises SourceError if it is no such package, is damaged, or holds what no image may.
    """
    content = package.read_bytes()
    if not content.startswith(_AR_MAGIC):
        raise SourceError(f"{package.name}: not a Debian package (no ar magic)")
    at = len(_AR_MAGIC)
    while at + 60 <= len(content):
        header = content[at : at + 60]
        name, size = header[:16].decode("ascii", "replace").strip(" /"), header[48:58].strip()
        if not size.isdigit() or header[58:60] != b"`\n":
            raise SourceError(f"{package.name}: damaged: no ar header at byte {at}")
        body = content[at + 60 : at + 60 + int(size)]
        if len(body) < int(size):
            raise SourceError(f"{package.name}: cut short: {len(body)} of {int(size)} bytes")
        if name.startswith("data.tar"):
            try:
                return archive.read(body)
            except archive.ArchiveError as error:
                raise SourceError(f"{package.name}: data.tar: {error.message}") from error
        at += 60 + int(size) + int(size) % 2  # members are padded to even offsets
    raise SourceError(f"{package.name}: has no data.tar")
