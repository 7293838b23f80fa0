"""Writes instances into one file, from which another host can restore them.

Their state, their roots with owners counted from the beginning of their user ranges, the images
they have or could go back to, and the fleet's private key if it opens any of them. The file is
whole and on the disk before it gets its name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline import files, trees
from pipeline.errors import NiftyError, ProblemsError, counted, reason
from pipeline.host.backup import inventory
from pipeline.host.backup.packing import Notes, Packer, vanished, walk
from pipeline.host.backup.parcel import Kind, Member, ParcelError, Writer, shown
from pipeline.host.roots import guest, images
from pipeline.host.state import records
from pipeline.host.state.layout import Layout, check_owner, locked
from pipeline.host.units import control
from pipeline.progress import bar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from pipeline.host.backup.inventory import Inventory
    from pipeline.host.state.records import Instance

# As far back as `zstd -d` looks without being told to: the second copy of a BusyBox, and every one
# after it, is a few bytes.
WINDOW = 27
_LEVEL = 6
_TOLD = 10  # problems of each instance
# bytes that an entry takes beside its content, and a backup beside its entries
_BESIDE, _ONCE = 512, 1 << 16


class BackupError(ProblemsError):
    """Instances that cannot be backed up, or a file that cannot be written; nothing was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One instance in a backup: its *entries* below its root, and the *size* of files in bytes.

    *packed*: what of these bytes is packed: holes are not, and a hard link is once.
    """

    name: str
    entries: int
    size: int
    packed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was written: *size* and *sha256* of the file, and what is not as it was."""

    saved: tuple[Saved, ...]
    size: int
    sha256: str
    notes: tuple[str, ...]
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a backup would have in it: *images* as the bytes of their archives by digest."""

    saved: tuple[Saved, ...]
    images: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes that the file would have at most, were nothing of it compressible."""
        entries = sum(one.entries + 1 for one in self.saved)
        packed = sum(one.packed for one in self.saved) + sum(self.images.values())
        return packed + entries * _BESIDE + _ONCE


class _Counted:
    """A file that knows how much was written to it, and its sha256."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.size, self.sum = stream, 0, hashlib.sha256()

    def write(self, piece: bytes) -> int:
        self._stream.write(piece)
        self.sum.update(piece)
        self.size += len(piece)
        return len(piece)


def backup(
    layout: Layout,
    names: Sequence[str],
    sink: BinaryIO,
    *,
    live: Iterable[str] = (),
    wait: bool = True,
) -> Report:
    """Write the instances *names* to *sink*; *live* are those that run meanwhile.

    Raises BackupError with all problems before the first byte, if they can be known by then, and
    LockedError without *wait*.
    """
    check_owner(layout.prefix)
    with locked(layout, wait=wait):
        notes = Notes()
        chosen, archives = _chosen(layout, names, notes)
        saved = _survey(layout, chosen)
        listed = inventory.Inventory(
            instances=chosen,
            images=tuple(archives),
            fleet_key=any(one.fleet for one in chosen),
            live=tuple(one.name for one in chosen if one.name in set(live)),
        )
        counted = _Counted(sink)
        try:
            _write(layout, listed, archives, counted, notes)
        except OSError as error:
            raise BackupError("nothing was backed up:", [reason(error)]) from error
    return Report(
        saved=saved,
        size=counted.size,
        sha256=counted.sum.hexdigest(),
        notes=tuple(notes.lines),
        left_out=notes.count,
    )


def preview(layout: Layout, names: Sequence[str]) -> Preview:
    """What `backup` of *names* would write, after the same checks; nothing is written."""
    check_owner(layout.prefix)
    with locked(layout):
        notes = Notes()
        chosen, archives = _chosen(layout, names, notes)
        saved = _survey(layout, chosen)
    sizes = {digest: len(archive) for digest, archive in archives.items()}
    return Preview(saved=saved, images=sizes, notes=tuple(notes.lines))


@contextmanager
def target(path: Path, layout: Layout, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A file that is there as *path* once the block has ended well, for its owner alone.

    Raises BackupError beforehand if it cannot be, or is there already and *overwrite* is not said.
    """
    check_target(path, layout, overwrite=overwrite)
    try:
        with files.stream(path, overwrite=overwrite) as sink:
            yield sink
    except OSError as error:
        raise BackupError("nothing was backed up:", [reason(error, path)]) from error


def check_target(path: Path, layout: Layout, *, overwrite: bool) -> None:
    """Raise BackupError unless a backup can be written to *path*."""
    hint = None
    try:
        folder = path.parent.resolve(strict=True)
        facts = path.lstat() if os.path.lexists(path) else None
    except OSError as error:
        problem: str | None = reason(error)
    else:
        below = folder.relative_to(layout.prefix) if folder.is_relative_to(layout.prefix) else None
        problem = None
        if not folder.is_dir():
            problem = f"{folder}: not a directory"
        elif below and below.parts and below.parts[0].startswith(("nifty", ".nifty")):
            problem = f"{path}: lies in an instance or in the state"
        elif facts and not stat.S_ISREG(facts.st_mode):
            problem = f"{path}: there already, and no regular file"
        elif facts and not overwrite:
            problem, hint = f"{path}: there already", "choose another name, or say overwrite=yes"
        elif not os.access(folder, os.W_OK | os.X_OK):
            problem = f"{folder}: cannot be written to"
    if problem:
        raise BackupError("nothing was backed up:", [problem], hint=hint)


def _chosen(
    layout: Layout, names: Sequence[str], notes: Notes
) -> tuple[tuple[Instance, ...], dict[str, bytes]]:
    """The instances to be saved, and the archives of the images they need by digest; checked."""
    suffixes = [name.removeprefix("nifty") for name in names]
    known = {one.name: one for one in records.look_at(layout, suffixes).instances}
    problems = [f"{name}: not deployed any more" for name in names if name not in known]
    chosen = [known[name] for name in names if name in known]
    chosen.sort(key=lambda one: records.order(one.suffix))
    chosen = _booting(chosen)
    problems += [
        f"{one.name}: has a state and no root; deploy or undeploy it first"
        for one in chosen
        if not guest.is_root(layout, one.name)
    ]
    archives, lost = {}, {}
    for digest in inventory.used(chosen):
        try:
            archives[digest] = images.stored(layout, digest).archive
        except NiftyError as error:
            lost[digest] = error.message
    for digest, why in lost.items():
        users = [one.name for one in chosen if one.image == digest]
        problems += [f"{users[0]} and {len(users) - 1} more: {why}"] if users else []
        back = [one.name for one in chosen if one.previous == digest]
        if back:
            notes.add(back[0], b"", f"no way back for {counted(len(back))}: {why}")
    chosen = [replace(one, previous=None) if one.previous in lost else one for one in chosen]
    if any(one.fleet for one in chosen) and not layout.fleet_key.is_file():
        problems.append(f"{layout.fleet_key}: missing, and it opens instances that are saved")
    if problems:
        raise BackupError("nothing was backed up:", problems, hint="names= leaves some of them out")
    return tuple(chosen), archives


def _booting(chosen: list[Instance]) -> list[Instance]:
    """One that was deployed without boot=yes may have been enabled later."""
    enabled = {one.name for one in control.enabled(chosen)}
    return [replace(one, boot=True) if one.name in enabled else one for one in chosen]


def _survey(layout: Layout, chosen: Sequence[Instance]) -> tuple[Saved, ...]:
    """What there is, before anything is written. Raises BackupError for what is nobody's inside."""
    saved, problems = [], []
    with trees.opened(layout.prefix) as prefix:
        for one in chosen:
            packer = Packer(one, b"", lambda _path, _why: None)
            entries = size = packed = strangers = 0
            linked: set[tuple[int, int]] = set()
            with trees.opened(one.name, at=prefix) as top:
                for seen in walk(top, lambda _path, _why: None):
                    entries += 1
                    if stat.S_ISREG(seen.facts.st_mode):
                        size += seen.facts.st_size
                        inode = (seen.facts.st_dev, seen.facts.st_ino)
                        if inode not in linked:
                            packed += min(seen.facts.st_size, seen.facts.st_blocks * 512)
                        linked |= {inode} if seen.facts.st_nlink > 1 else set()
                    if why := packer.stranger(seen.facts):
                        strangers += 1
                        if strangers <= _TOLD:
                            problems.append(f"{one.name}: /{shown(seen.path)} {why}")
                if why := packer.stranger(os.fstat(top)):
                    problems.append(f"{one.name}: / {why}")
            if strangers > _TOLD:
                problems.append(f"{one.name}: and {strangers - _TOLD} more")
            saved.append(Saved(name=one.name, entries=entries, size=size, packed=packed))
    if problems:
        raise BackupError(
            "nothing was backed up:",
            problems,
            hint="give them to somebody inside: chown -h OWNER:GROUP FILE, with the numbers that "
            "'ls -n' shows for files beside them",
        )
    return tuple(saved)


def _write(
    layout: Layout,
    listed: Inventory,
    archives: Mapping[str, bytes],
    counted: _Counted,
    notes: Notes,
) -> None:
    import zstandard  # noqa: PLC0415 (as in archive)

    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, window_log=WINDOW, enable_ldm=1, write_checksum=1
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    file: Any = counted  # all of a file that is asked for
    with compressor.stream_writer(file, closefd=False) as stream:
        writer = Writer(stream)
        _put(writer, inventory.NAME, inventory.encode(listed))
        for digest, archive in archives.items():
            _put(writer, inventory.image_path(digest), archive)
        if listed.fleet_key:
            key = files.read(layout.fleet_key, limit=inventory.MAX_KEY)
            _put(writer, inventory.FLEET_KEY, key)
        with bar("backup", len(listed.instances)) as step, trees.opened(layout.prefix) as prefix:
            for one in listed.instances:
                with trees.opened(one.name, at=prefix) as top:
                    _root(writer, one, top, notes)
                step()
        _put(writer, inventory.SEAL, f"{writer.digest}\n".encode())
        writer.end()


def _put(writer: Writer, path: bytes, content: bytes) -> None:
    member = Member(kind=Kind.FILE, path=path, mode=0o600, size=len(content))
    writer.add(member, [content])


def _root(writer: Writer, one: Instance, top: int, notes: Notes) -> None:
    packer = Packer(
        one, inventory.root_path(one.name), lambda path, why: notes.add(one.name, path, why)
    )
    writer.add(packer.top(top))
    for seen in walk(top, lambda path, why: notes.add(one.name, path, why)):
        try:
            packer.add(seen, writer.add)
        except ParcelError as error:
            raise BackupError("nothing was backed up:", [f"{one.name}: {error}"]) from None
        except OSError as error:
            if error.filename is None:
                raise  # of the backup's own file
            if not vanished(error):
                notes.add(one.name, seen.path, f"left out: {error.strerror}")
