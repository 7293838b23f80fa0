"""One deterministic tar, compressed: written from a Rootfs, read back into an equal one.

The format is pax (POSIX.1-2001, with ustar headers wherever a name fits), every member with the
same time stamp and without user names. Reading trusts nothing: a bad archive is one clear error,
and no file system is touched.
"""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, RootfsError, Symlink
from pipeline.image.tarball import MAGIC, Kind, TarballError, members

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
    import zstandard  # noqa: PLC0415 (an up-to-date build does not need it)

    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, source_size=len(tar), write_checksum=1, write_content_size=1, threads=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(tar)


def write_xz(tar: bytes) -> bytes:
    """*tar* as one xz block with a CRC64, for systemd < 258."""
    return lzma.compress(tar, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=XZ_PRESET)


def read(source: Path | bytes, *, limits: Limits = DEFAULT_LIMITS) -> Rootfs:
    """The root filesystem in an archive: a path or its bytes; zstd, xz, gzip, bzip2 or plain tar.

    Raises ArchiveError for a file that is missing, truncated or corrupt, passes *limits*, or holds
    an absolute path, `..`, a link out of the root, a device, a hard link or a duplicate.
    """
    name = str(source) if isinstance(source, Path) else "archive"
    try:
        packed = _packed(source, limits) if isinstance(source, Path) else source
        tar = b"".join(_unpack(packed, limits))
        return Rootfs.of(_entries(tar, limits))
    except _RefusedError as error:
        raise ArchiveError(f"{name}: {error}", hint=error.hint) from None
    except TarballError as error:
        raise ArchiveError(f"{name}: {error}") from None
    except RootfsError as error:
        raise ArchiveError(f"{name}: {error.message}") from error
    except OSError as error:
        why = error.strerror or f"corrupt: {error}"
        raise ArchiveError(f"{name}: {why}") from error
    except (EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise ArchiveError(f"{name}: corrupt or truncated: {error}") from error


class _RefusedError(Exception):
    """Why an archive is not safe or not one; `read` adds its name."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _packed(path: Path, limits: Limits) -> bytes:
    """The file's bytes; not those of a device or pipe, which need not end."""
    state = path.stat()
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
        raise _RefusedError("not a regular file")
    if state.st_size > limits.max_bytes:
        raise _RefusedError(f"{state.st_size} bytes, at most {limits.max_bytes} are read")
    return path.read_bytes()


def _unpack(packed: bytes, limits: Limits) -> Iterator[bytes]:
    """The tar in *packed*, in pieces; a bomb stops at the limit, not at the end of the memory."""
    total = 0
    for piece in _decompress(packed):
        total += len(piece)
        if total > limits.max_bytes:
            raise _RefusedError(f"more than {limits.max_bytes} bytes when unpacked: refused")
        yield piece


def _decompress(packed: bytes) -> Iterator[bytes]:
    if packed.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(packed)
    if packed.startswith(b"\xfd7zXZ\0"):
        return _bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY), packed)
    if packed.startswith(b"\x1f\x8b"):
        return _gzip(packed)
    if packed.startswith(b"BZh"):
        return _bounded(bz2.BZ2Decompressor(), packed)
    if packed[257:262] == MAGIC:
        return iter((packed,))
    raise _RefusedError(
        "not an image archive (no zstd, xz, gzip, bzip2 or tar magic)",
        hint="give the .tar.zst or .tar.xz that 'doit build' made",
    )


# What a stream may ask for to hold its window: as much as `zstd -d` grants.
_MEMORY = 1 << 27


def _bounded(
    decompressor: lzma.LZMADecompressor | bz2.BZ2Decompressor, packed: bytes
) -> Iterator[bytes]:
    piece = decompressor.decompress(packed, max_length=1 << 20)
    yield piece
    while not decompressor.eof:
        piece = decompressor.decompress(b"", max_length=1 << 20)
        if not piece and decompressor.needs_input:
            raise EOFError("the compressed stream ends too early")
        yield piece
    _nothing_after(decompressor.unused_data)


def _gzip(packed: bytes) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(wbits=31)
    todo = packed
    while not decompressor.eof:
        piece = decompressor.decompress(todo, 1 << 20)
        if not piece and not decompressor.unconsumed_tail and not decompressor.eof:
            raise EOFError("the compressed stream ends too early")
        yield piece
        todo = decompressor.unconsumed_tail
    _nothing_after(decompressor.unused_data)


def _zstd(packed: bytes) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415 (only this kind needs it)

    frame = zstandard.ZstdDecompressor(max_window_size=_MEMORY).decompressobj()
    try:
        # 1 KiB of input can become at most 32 MiB of output, so the limit is looked at in time
        for start in range(0, len(packed), 1024):
            yield frame.decompress(packed[start : start + 1024])
            if frame.eof:
                _nothing_after(frame.unused_data + packed[start + 1024 :])
                return
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error
    raise EOFError("the compressed stream ends too early")


def _nothing_after(rest: bytes) -> None:
    if rest.strip(b"\0"):
        raise _RefusedError(f"{len(rest)} bytes follow the end of the archive: refused")


def _entries(tar: bytes, limits: Limits) -> Iterator[Entry]:
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
