"""Who is down for a change and is to run again: PREFIX/.nifty/stopped.

It is on the disk before the first of them is stopped, and they leave it when they run: whatever
kills an upgrade, a restart or a backup, the next run knows whom it owes a start.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError
from pipeline.host.state.layout import is_changing, locked
from pipeline.host.state.records import order

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from typing import Any

    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance

FORMAT = 1
# Bytes; thirty thousand names have 300,000.
_LIMIT = 1 << 22


class OwedError(NiftyError):
    """It cannot be recorded who is to run again, so nobody is stopped."""


@dataclass(frozen=True, slots=True)
class Owed:
    """Suffixes of those to be started again (*run*), and to start with the host again (*boot*).

    *back*: digests of images that a rollback of all was leading away from, to be finished.
    """

    run: frozenset[str] = frozenset()
    boot: frozenset[str] = frozenset()
    back: frozenset[str] = frozenset()

    def __or__(self, other: Owed) -> Owed:
        """What either owes."""
        return Owed(self.run | other.run, self.boot | other.boot, self.back | other.back)

    def __sub__(self, other: Owed) -> Owed:
        """What is left when *other* was given."""
        return Owed(self.run - other.run, self.boot - other.boot, self.back - other.back)


def read(layout: Layout) -> Owed:
    """What was recorded; nobody, if that cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        table = json.loads(files.read(layout.stopped, limit=_LIMIT))
        if isinstance(table, dict) and table.get("format") == FORMAT:
            return Owed(*(_texts(table.get(key)) for key in ("run", "boot", "back")))
    return Owed()


def _texts(value: Any) -> frozenset[str]:
    listed = value if isinstance(value, list) else ()
    return frozenset(one for one in listed if isinstance(one, str))


def add(
    layout: Layout,
    *,
    run: Iterable[str] = (),
    boot: Iterable[str] = (),
    back: Iterable[str] = (),
) -> None:
    """Record, durably, that these are owed to run, to boot, to be gone back from.

    Raises OwedError.
    """
    _change(layout, Owed.__or__, Owed(frozenset(run), frozenset(boot), frozenset(back)))


def drop(
    layout: Layout,
    *,
    run: Iterable[str] = (),
    boot: Iterable[str] = (),
    back: Iterable[str] = (),
) -> None:
    """Record, durably, that these are owed nothing any more. Raises OwedError."""
    _change(layout, Owed.__sub__, Owed(frozenset(run), frozenset(boot), frozenset(back)))


def _change(layout: Layout, step: Callable[[Owed, Owed], Owed], what: Owed) -> None:
    old = read(layout)
    if step(old, what) == old:
        return  # there may be no state to be locked
    with locked(layout):
        old = read(layout)
        _write(layout, old, step(old, what))


def _write(layout: Layout, old: Owed, new: Owed) -> None:
    if old == new:
        return
    try:
        if new == Owed():
            layout.stopped.unlink()
            files.sync_folder(layout.state)
            return
        table = {
            "format": FORMAT,
            "run": sorted(new.run, key=order),
            "boot": sorted(new.boot, key=order),
            "back": sorted(new.back),
        }
        files.put(layout.stopped, json.dumps(table).encode() + b"\n")
    except OSError as error:
        raise OwedError(
            f"{layout.stopped}: {error.strerror}: who is to run again cannot be recorded",
            hint="mend this, then run the same command again",
        ) from error


def forgotten(
    layout: Layout, instances: Iterable[Instance], running: Container[str]
) -> tuple[Instance, ...]:
    """Those of *instances* that a killed run has left down; *running* are the names of the others.

    None while a run is stopping and starting instances: that one does it.
    """
    run = read(layout).run
    down = tuple(one for one in instances if one.suffix in run and one.name not in running)
    return () if down and is_changing(layout) else down
