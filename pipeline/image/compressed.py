"""Unpacks a compressed stream piece by piece: zstd, xz, gzip, bzip2, or nothing around it.

A stream may be of several frames (RFC 8878, section 3.1, skippable ones among them), members (RFC
1952, section 2.2) or streams, as pzstd, pbzip2, pixz and `cat a.gz b.gz` write them. Zeros may pad
its end; other bytes behind it are refused.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 1 << 18
_PIECE = 1 << 20
# What a stream may ask for to hold its window: as much as `zstd -d` grants.
MOST_WINDOW = 1 << 27
# Frames of one stream: each costs time, however little is in it.
MOST_FRAMES = 100_000

_ZSTD, _XZ, _GZIP, _BZIP2 = b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"\x1f\x8b", b"BZh"
_LONGEST_MAGIC = 6


class CompressedError(Exception):
    """What is wrong with a stream, without its name; *hint*, if given, says what helps."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class _Frame(Protocol):
    """One frame, member or stream while it is unpacked."""

    def is_done(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        """All there is in *packed*, in pieces of some MiB at most; it ends at the frame's end."""
        ...


class _Plain:
    """lzma's and bz2's own decompressors."""

    def __init__(self, inner: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._inner = inner

    def is_done(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        yield self._inner.decompress(packed, _PIECE)
        while not (self._inner.eof or self._inner.needs_input):
            yield self._inner.decompress(b"", _PIECE)


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def is_done(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        while packed and not self._inner.eof:
            yield self._inner.decompress(packed, _PIECE)
            packed = self._inner.unconsumed_tail


class _Zstd:
    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 (as in archive)

        self._inner = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW).decompressobj()
        self._rest = b""

    def is_done(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data) + self._rest

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        import zstandard  # noqa: PLC0415 (as in archive)

        try:
            # 64 bytes can become at most 2 MiB, so that a limit is looked at in time
            for start in range(0, len(packed), 64):
                yield self._inner.decompress(packed[start : start + 64])
                if self._inner.eof:
                    self._rest = packed[start + 64 :]
                    return
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error


def pieces(source: BinaryIO) -> Iterator[bytes]:
    """What is packed in *source*, in pieces of at most some MiB; the whole of it is read.

    Raises CompressedError if *source* is none of what the module names, damaged or cut short, asks
    for too large a window, or has something behind its end.
    """
    start = source.read(_CHUNK)
    for is_one, make in _KINDS:
        if is_one(start):
            yield from _frames(start, source, is_one, make)
            return
    while start:
        yield start
        start = source.read(_CHUNK)


def is_compressed(start: bytes) -> bool:
    """Whether *start*, six bytes at least, begins something that `pieces` unpacks."""
    return any(is_one(start) for is_one, _make in _KINDS)


def _is_zstd(start: bytes) -> bool:
    skippable = start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5
    return start.startswith(_ZSTD) or skippable


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[], _Frame]], ...] = (
    (_is_zstd, _Zstd),
    (
        lambda start: start.startswith(_XZ),
        lambda: _Plain(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_WINDOW)),
    ),
    (lambda start: start.startswith(_GZIP), _Gzip),
    (lambda start: start.startswith(_BZIP2), lambda: _Plain(bz2.BZ2Decompressor())),
)


def _frames(
    packed: bytes, source: BinaryIO, is_one: Callable[[bytes], bool], make: Callable[[], _Frame]
) -> Iterator[bytes]:
    for _number in range(MOST_FRAMES):
        frame = make()
        try:
            while not frame.is_done():
                if not packed:
                    raise CompressedError("corrupt or truncated: the compressed stream ends early")
                yield from frame.unpack(packed)
                packed = b"" if frame.is_done() else source.read(_CHUNK)
        except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            raise _explained(error) from error
        packed = _next(frame.unused_data or source.read(_CHUNK), source)
        if not packed:
            return
        if not is_one(packed):
            raise CompressedError("other bytes follow the end of the compressed stream: refused")
    raise CompressedError(f"more than {MOST_FRAMES} frames or members in one stream: refused")


def _next(packed: bytes, source: BinaryIO) -> bytes:
    """What follows a frame and the zeros behind it, with enough of it to tell what it is."""
    more = packed
    packed = b""
    while more:
        packed = (packed + more).lstrip(b"\0")
        if len(packed) >= _LONGEST_MAGIC:
            break
        more = source.read(_CHUNK)
    return packed


def _explained(error: Exception) -> CompressedError:
    told = str(error)
    if "too much memory" in told or "Memory usage limit" in told:
        return CompressedError(
            f"needs a window of more than {MOST_WINDOW >> 20} MiB to unpack: refused",
            hint="unpack it (zstd -d --long=31, xz -d) and give the .tar",
        )
    return CompressedError(f"corrupt or truncated: {told}")
