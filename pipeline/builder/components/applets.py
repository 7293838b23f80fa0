"""The applets of a prebuilt BusyBox, found by reading it."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from pipeline.elf import ElfError

if TYPE_CHECKING:
    from collections.abc import Iterator

_APPLET_NAME = re.compile(rb"[A-Za-z0-9_.+\[-]{1,32}\Z")
# any BusyBox worth the name has one of these
_FAMILIAR = frozenset(
    {b"ash", b"busybox", b"cat", b"echo", b"hush", b"init", b"ls", b"sh", b"true"}
)


def find(content: bytes, *, name: str = "this file") -> tuple[str, ...]:
    r"""The applets of a multi-call BusyBox, in its own order, as `busybox --list` prints them.

    Found by reading, so it works for another architecture's binary and runs nothing foreign.
    BusyBox keeps them in one array, `applet_names`: sorted by strcmp, each ended by `\0`, the last
    one by two (applets/applet_tables.c). Raises ElfError if there is none.
    """
    runs = _ascending_runs(content) if b"BusyBox" in content else ()
    known = [run for run in runs if not _FAMILIAR.isdisjoint(run)]
    confirmed = (found for run in known if (found := _confirmed(run, content)))
    best = max(confirmed, key=len, default=None)
    if best is None:
        # fewer than 32 applets, or a release before 1.22, come without the table that confirms
        best = max(
            known, key=lambda run: (len(_FAMILIAR.intersection(run)), len(run)), default=None
        )
    if best is None:
        raise ElfError(f"{name}: no table of BusyBox applets found")
    return tuple(applet.decode("ascii") for applet in best)


def _ascending_runs(content: bytes) -> Iterator[tuple[bytes, ...]]:
    r"""Each longest run of names, every one greater than the one before, that `\0\0` ends."""
    run: list[bytes] = []
    for token in content.split(b"\0"):
        if run and _APPLET_NAME.match(token) and token > run[-1]:
            run.append(token)
            continue
        if not token and len(run) > 1:
            yield tuple(run)
        # binary data without a \0 at its end may precede the first name
        start = _APPLET_NAME.search(token[-64:])
        run = [start[0]] if start else []


def _confirmed(run: tuple[bytes, ...], content: bytes) -> tuple[bytes, ...] | None:
    """*run* without what precedes `applet_names` in memory, or None if nothing proves a start.

    A byte or a name before the array may look like part of it. BusyBox has a table of the offsets
    of every eighth part of its names (every fourth below 128), which only the true start fits.
    """
    for dropped in range(min(len(run), 8)):
        first, rest = run[dropped], run[dropped + 1 :]
        for cut in range(len(first)):
            names = (first[cut:], *rest)
            if any(table in content for table in _offset_tables(names)):
                return names
    return None


def _offset_tables(names: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """`applet_nameofs` as these names would make it, little and big endian; () if too few."""
    count = len(names)
    parts = 8 if count >= 128 else 4
    if count < 32:
        return ()
    starts = [0]
    for each in names:
        starts.append(starts[-1] + len(each) + 1)
    offsets = [starts[part * count // parts] for part in range(1, parts)]
    if offsets[-1] > 0xFFFF:
        return ()
    return tuple(struct.pack(f"{order}{len(offsets)}H", *offsets) for order in "<>")
