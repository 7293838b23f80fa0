"""What is so on this host before a deploy: read once, so that a plan is a pure function of it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline import trees
from pipeline.errors import reason
from pipeline.host.doctor import site
from pipeline.host.state import clients, records
from pipeline.host.state import layout as layouts
from pipeline.host.state.layout import LayoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.host.doctor.site import Site
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance, Known


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything a plan asks for.

    *instances*: in the state, *damaged*: suffixes of those whose state cannot be used, and
    *taken*, the numbers of user ranges that their roots belong to. *lost*: by suffix, paths in a
    root that lost their contents. *roots*: names below the prefix that begin with `nifty`, whatever
    they are. *images*: digests stored here. *leftovers*: names in `new`, dead if the lock is ours.
    *lists_current*: known_hosts and ssh_config say what the state says.
    """

    instances: tuple[Instance, ...] = ()
    damaged: frozenset[str] = frozenset()
    taken: frozenset[int] = frozenset()
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roots: frozenset[str] = frozenset()
    site: Site
    images: frozenset[str] = frozenset()
    leftovers: tuple[str, ...] = ()
    lists_current: bool = True
    is_root: bool = True


def gather(layout: Layout, known: Known) -> Facts:
    """The facts of this host, the state of which is *known*; changes nothing.

    Raises LayoutError with the path of what cannot be looked at.
    """
    damaged = frozenset(one.suffix for one in known.damaged)
    try:
        return Facts(
            instances=known.instances,
            damaged=damaged,
            taken=frozenset(_slots(layout, damaged)),
            roots=layouts.instance_roots(layout),
            site=site.read(prefix=layout.prefix),
            images=frozenset(
                name.removesuffix(".json")
                for name in layouts.names(layout.images)
                if name.endswith(".json")
            ),
            leftovers=tuple(sorted(layouts.names(layout.new))),
            lists_current=not (known.instances or layout.known_hosts.exists())
            or clients.are_current(layout, known.instances),
            is_root=os.geteuid() == 0,
        )
    except OSError as error:
        raise LayoutError(reason(error)) from error


def _slots(layout: Layout, suffixes: Iterable[str]) -> Iterable[int]:
    """The numbers of the user ranges that the roots of *suffixes* belong to."""
    for suffix in suffixes:
        with suppress(OSError), trees.opened(layout.prefix) as prefix:
            owner = os.stat(f"nifty{suffix}", dir_fd=prefix, follow_symlinks=False).st_uid
            if owner >= records.FIRST_BASE:
                yield (owner - records.FIRST_BASE) // records.RANGE
