"""Whether instances run, and who holds their ports: for a thousand in one call of systemctl."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.host.state.records import Users
from pipeline.host.units import sockets, systemd
from pipeline.host.units.unit_files import patterns, unit_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.host.state.records import Instance
    from pipeline.host.units.systemd import State


def states(instances: Iterable[Instance]) -> Mapping[str, State]:
    """The state of each instance's unit, by the instance's name; one call of systemctl."""
    found = systemd.states(patterns())
    return {
        instance.name: found.get(unit_of(instance), systemd.State.INACTIVE)
        for instance in instances
    }


def holders(
    instances: Iterable[Instance],
    known: Iterable[Instance],
    owners: Mapping[int, frozenset[int]] | None = None,
) -> Mapping[str, str]:
    """Who listens on the port of one of *instances* without being it, by that one's name.

    *known*: all instances there are. *owners*: what `sockets.listening` gave.
    """
    owners = (sockets.listening() or {}) if owners is None else owners
    found = {
        one.name: others
        for one in instances
        if (others := sockets.foreign(owners.get(one.port, ()), one.base))
    }
    slots = {one.number: one.name for one in known if one.users is Users.PRIVATE} if found else {}
    return {
        name: ", ".join(sockets.holder(owner, slots) for owner in others)
        for name, others in found.items()
    }
