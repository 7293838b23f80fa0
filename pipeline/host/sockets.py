"""Who listens on this host: the kernel's table of TCP sockets."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Mapping

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
