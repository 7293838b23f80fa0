"""Root filesystems for tests: hypothesis makes them, and hostile tars are put together by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from pipeline.image.rootfs import MAX_ID, Directory, Entry, File, Rootfs, Symlink

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

_CHARACTERS = st.characters(exclude_categories=["C", "Z"], exclude_characters="/")
_SHORT = st.text(_CHARACTERS | st.just(" "), min_size=1, max_size=8)
_LONG = st.builds(lambda one, count: one * count, st.sampled_from("aé深"), st.integers(60, 80))
NAMES: SearchStrategy[str] = (_SHORT | _LONG).filter(lambda name: name not in (".", ".."))
_OWNERS = st.integers(0, MAX_ID)
_MODES = st.integers(0, 0o1777)


@st.composite
def rootfses(draw: DrawFn) -> Rootfs:
    """Any root filesystem there can be: odd and long names, deep trees, all modes and owners."""
    folders = [""]
    entries: dict[str, Entry] = {}
    for _count in range(draw(st.integers(0, 12))):
        path = f"{draw(st.sampled_from(folders))}{draw(NAMES)}"
        if path in entries:
            continue
        uid, gid = draw(_OWNERS), draw(_OWNERS)
        match draw(st.sampled_from(["directory", "directory", "file", "symlink"])):
            case "directory":
                entries[path] = Directory(path=path, mode=draw(_MODES), uid=uid, gid=gid)
                folders.append(f"{path}/")
            case "file":
                content = draw(st.binary(max_size=1200))
                entries[path] = File(
                    path=path, content=content, mode=draw(_MODES), uid=uid, gid=gid
                )
            case _:
                start = draw(st.sampled_from(["", "/", "./"]))
                rest = draw(st.sampled_from(["", "/"]))
                target = f"{start}{'/'.join(draw(st.lists(NAMES, min_size=1, max_size=4)))}{rest}"
                entries[path] = Symlink(path=path, target=target, uid=uid, gid=gid)
    return Rootfs.of(entries.values())


def header(
    name: bytes,
    *,
    flag: bytes = b"0",
    size: int | bytes = 0,
    link: bytes = b"",
    mode: bytes = b"0000644\0",
    owner: bytes = b"0000000\0",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """One tar header with a right checksum, whatever stands in it."""
    sizes = b"%011o\0" % size if isinstance(size, int) else size
    parts = (
        (name, 100), (mode, 8), (owner, 8), (owner, 8), (sizes, 12), (b"00000000000\0", 12),
        (b" " * 8, 8), (flag, 1), (link, 100), (magic, 8), (b"", 80), (prefix, 155), (b"", 12),
    )  # fmt: skip
    block = b"".join(value.ljust(width, b"\0") for value, width in parts)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(content: bytes) -> bytes:
    """*content* filled up to whole blocks."""
    return content + bytes(-len(content) % 512)


def pax(records: dict[str, str], *, flag: bytes = b"x") -> bytes:
    """A pax header that speaks of the next member."""
    body = b"".join(record(key.encode(), value.encode()) for key, value in records.items())
    return header(b"pax", flag=flag, size=len(body)) + padded(body)


def record(key: bytes, value: bytes) -> bytes:
    """One pax record, its length counting itself."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while size != len(b"%d" % size) + len(rest):
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


def file(name: bytes, content: bytes = b"content") -> bytes:
    """A regular file."""
    return header(name, size=len(content)) + padded(content)


def tarball(*parts: bytes) -> bytes:
    """*parts* and the end mark."""
    return b"".join(parts) + bytes(1024)
