"""One deterministic tar, compressed: written from a Rootfs, read back into an equal one.

The format is pax (POSIX.1-2001, with ustar headers wherever a name fits), every member with the
same time stamp and without user names. Reading trusts nothing: a bad archive is one clear error,
and no file system is touched.
"""

from __future__ import annotations

import io
import lzma
import os
import stat
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.errors import NiftyError
from pipeline.image.compressed import CompressedError, is_compressed, pieces
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, RootfsError, Symlink
from pipeline.image.tarball import BLOCK, MAGIC, Kind, Pieces, TarballError, members

if TYPE_CHECKING:
    from collections.abc import Iterator

ZSTD_LEVEL = 22
XZ_PRESET = 9 | lzma.PRESET_EXTREME


class ArchiveError(NiftyError):
    """A file that is no image archive, or one that is not safe to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a reader accepts: bytes of the unpacked tar, and entries."""

    max_bytes: int = 512 << 20
    max_entries: int = 200_000


DEFAULT_LIMITS = Limits()


def write_tar(rootfs: Rootfs, *, mtime: int) -> bytes:
    """The uncompressed tar of *rootfs*, each member stamped *mtime* (seconds since 1970)."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in rootfs:
            info = tarfile.TarInfo(entry.path)
            info.mtime, info.mode, info.uid, info.gid = mtime, entry.mode, entry.uid, entry.gid
            match entry:
                case Directory():
                    info.type = tarfile.DIRTYPE
                    tar.addfile(info)
                case Symlink():
                    info.type, info.linkname = tarfile.SYMTYPE, entry.target
                    tar.addfile(info)
                case File():
                    info.size = len(entry.content)
                    tar.addfile(info, io.BytesIO(entry.content))
    return sink.getvalue()


def write_zstd(tar: bytes) -> bytes:
    """*tar* as one zstd frame with a checksum and its size (RFC 8878)."""
    import zstandard  # noqa: PLC0415 (as in archive)

    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, source_size=len(tar), write_checksum=1, write_content_size=1, threads=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(tar)


def write_xz(tar: bytes) -> bytes:
    """*tar* as one xz block with a CRC64, for systemd < 258."""
    return lzma.compress(tar, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=XZ_PRESET)


def content(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The bytes of the archive *path*, as they are. Raises ArchiveError as `read`."""
    with _naming(str(path)), _opened(path, limits) as packed:
        found = packed.read(limits.max_bytes + 1)
        if len(found) > limits.max_bytes:
            raise _RefusedError(f"grows beyond {limits.max_bytes} bytes")
        return found


def read(source: Path | bytes, *, limits: Limits = DEFAULT_LIMITS, name: str = "archive") -> Rootfs:
    """The root filesystem in an archive: a path or its bytes; zstd, xz, gzip, bzip2 or plain tar.

    It is read piece by piece, so that it takes little more memory than the files in it; *name* is
    what bytes are called in errors. Raises ArchiveError for a file that is missing, truncated or
    corrupt, passes *limits*, or holds an absolute path, `..`, a link out of the root, a device, a
    hard link or a duplicate.
    """
    is_path = isinstance(source, Path)
    with (
        _naming(str(source) if is_path else name),
        _opened(source, limits) if isinstance(source, Path) else io.BytesIO(source) as packed,
    ):
        tar = Pieces(_bounded(_known(packed), limits), most=limits.max_bytes)
        return Rootfs.of(_entries(tar, limits))


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """What the block raises of an archive, *name*, is an ArchiveError."""
    try:
        yield
    except (_RefusedError, CompressedError) as error:
        raise ArchiveError(f"{name}: {error}", hint=error.hint) from None
    except TarballError as error:
        raise ArchiveError(f"{name}: {error}") from None
    except RootfsError as error:
        raise ArchiveError(f"{name}: {error.message}") from error
    except OSError as error:
        raise ArchiveError(f"{name}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the path
        raise ArchiveError(f"{name}: {error}") from error


class _RefusedError(Exception):
    """Why an archive is not safe or not one; `read` adds its name."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _opened(path: Path, limits: Limits) -> BinaryIO:
    """The file; not a device or pipe, which need not end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        file.close()
        kind = "a directory" if stat.S_ISDIR(state.st_mode) else "not a regular file"
        raise _RefusedError(kind, hint="give the .tar.zst or .tar.xz that a build made")
    if state.st_size > limits.max_bytes:
        file.close()
        raise _RefusedError(f"{state.st_size} bytes, at most {limits.max_bytes} are read")
    return file


def _known(packed: BinaryIO) -> Iterator[bytes]:
    start = packed.read(BLOCK)
    packed.seek(0)
    if not (is_compressed(start) or start[257:262] == MAGIC):
        raise _RefusedError(
            "not an image archive (no zstd, xz, gzip, bzip2 or tar magic)",
            hint="give the .tar.zst or .tar.xz that a build made",
        )
    return pieces(packed)


def _bounded(unpacked: Iterator[bytes], limits: Limits) -> Iterator[bytes]:
    """The same pieces; a bomb stops at the limit, not at the end of the memory."""
    total = 0
    for piece in unpacked:
        total += len(piece)
        if total > limits.max_bytes:
            raise _RefusedError(f"more than {limits.max_bytes} bytes when unpacked: refused")
        yield piece


def _entries(tar: Pieces, limits: Limits) -> Iterator[Entry]:
    for count, member in enumerate(members(tar), start=1):
        if count > limits.max_entries:
            raise _RefusedError(f"more than {limits.max_entries} entries: refused")
        path, owner = member.path, {"uid": member.uid, "gid": member.gid}
        if member.kind is Kind.DIRECTORY:
            if path in (".", "./"):
                continue  # other writers put the root directory itself first
            path = path.removesuffix("/")
        path = path.removeprefix("./")
        match member.kind:
            case Kind.DIRECTORY:
                yield Directory(path=path, mode=member.mode, **owner)
            case Kind.SYMLINK:
                yield Symlink(path=path, target=member.target, **owner)
            case Kind.FILE:
                yield File(path=path, content=member.content, mode=member.mode, **owner)
