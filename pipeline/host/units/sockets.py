"""Who listens on this host: the kernel's table of TCP sockets."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.host.state.records import FIRST_BASE, RANGE
from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_LISTEN = "0A"  # TCP_LISTEN (include/net/tcp_states.h)


def listening(root: Path = Path("/")) -> Mapping[int, frozenset[int]] | None:
    """Ports in state LISTEN, any address, each with the user numbers of the sockets' owners.

    Of /proc/net/tcp and tcp6 below *root* (proc_pid_net(5)); v6 sockets take v4 connections, too.
    None if neither can be read.
    """
    owners: dict[int, set[int]] = defaultdict(set)
    is_there = False
    for name in ("tcp", "tcp6"):
        try:
            lines = beneath(root, f"proc/net/{name}").read_text("ascii", "replace").splitlines()[1:]
        except OSError:
            continue
        is_there = True
        for line in lines:
            _slot, local, _remote, state, _queues, _timer, _retries, owner = line.split(None, 8)[:8]
            if state == _LISTEN:
                owners[int(local.rpartition(":")[2], 16)].add(int(owner))
    return {port: frozenset(found) for port, found in owners.items()} if is_there else None


def foreign(owners: Collection[int], base: int) -> tuple[int, ...]:
    """Those of *owners* that are no users of the instance whose numbers begin at *base*.

    With the host's users (*base* 0) its server is the host's root, and so is the root of any other
    program: this table cannot tell them apart, so everybody but root is foreign.
    """
    ours = range(base, base + RANGE) if base else (0,)
    return tuple(sorted(owner for owner in owners if owner not in ours))


def holder(owner: int, slots: Mapping[int, str]) -> str:
    """Whose the user number *owner* is: an instance's, by its range (*slots*), or this host's."""
    slot, inside = divmod(owner - FIRST_BASE, RANGE)
    return f"user {inside} of {slots[slot]}" if slot in slots else f"user {owner} of this host"
