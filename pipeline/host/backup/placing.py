"""Where instances of a backup go on this host: ports, user ranges and room, as deploy asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.host.doctor import examination, plan
from pipeline.host.doctor.rows import Asked, Claim
from pipeline.host.roots import images
from pipeline.host.roots.needs import USUAL, Needs
from pipeline.host.state import records
from pipeline.host.state.records import Runner, Users
from pipeline.host.units.runners import RUNNERS, dearest
from pipeline.host.wanted import Target, Wanted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.host.backup.scanning import Room
    from pipeline.host.doctor.facts import Facts
    from pipeline.host.roots.images import Image
    from pipeline.host.state.records import Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Instances as they are to be here, each with its user range, and what that asks of the host.

    What can never be is not in *make*, but in *asked*.
    """

    make: tuple[Instance, ...]
    asked: Asked


def place(
    make: Sequence[Instance],
    known: Facts,
    prefix: Path,
    needed: Needs,
    *,
    typed: tuple[str, ...],
) -> Placed:
    """A place for each of *make*, beside those that are *known*; *needed* is room for all.

    Changes nothing. *typed*: of the command line.
    """
    claims, odd, placed = _claims(make, known, prefix)
    running = examination.running(known.instances)
    new = {claim.suffix for claim in claims}
    kept = [one for one in known.instances if one.suffix not in new]
    every = (*placed, *(one for one in kept if one.name in running))
    asked = Asked(
        count=len(running | {claim.name for claim in claims}),
        claims=claims,
        prefix=prefix,
        runner=dearest({one.runner for one in every} or {Runner.NSPAWN}),
        users=Users.PRIVATE if any(one.users is Users.PRIVATE for one in every) else Users.HOST,
        registered=sum(one.register and RUNNERS[one.runner].cost.is_registrable for one in every),
        running=len(running),
        kept_ports={one.port: one.name for one in kept},
        kept_slots={one.number: one.name for one in kept if one.users is Users.PRIVATE},
        odd=odd,
        needs=needed,
        typed=typed,
    )
    return Placed(make=placed, asked=asked)


def needs(rooms: Sequence[Room], new: Sequence[Image]) -> Needs:
    """Room for instances that take *rooms*, no two alike, and for images that are *new* here."""
    return Needs(
        digest="",
        files=(),
        directories=0,
        links=0,
        once=sum(room.size for room in rooms) + sum(map(images.size_of, new)),
        once_inodes=sum(room.inodes for room in rooms)
        + sum(3 + len(image.rootfs) for image in new),
    )


def _claims(
    make: Sequence[Instance], known: Facts, prefix: Path
) -> tuple[tuple[Claim, ...], tuple[str, ...], tuple[Instance, ...]]:
    """A port and a user range of this host for each, what can never be, and each with its range."""
    claims: list[Claim] = []
    odd: list[str] = []
    placed: list[Instance] = []
    for users in Users:
        group = {one.suffix: one for one in make if one.users is users}
        targets = tuple(Target(one.suffix, one.port) for one in group.values())
        asked = plan.ask(Wanted(targets=targets, prefix=prefix, users=users), known, USUAL)
        claims += [replace(claim, disk=group[claim.suffix].disk) for claim in asked.claims]
        odd += asked.odd
        new = [
            replace(
                group[claim.suffix],
                number=claim.slot,
                base=records.base_of(claim.slot, users),
            )
            for claim in asked.claims
        ]
        placed += new
        others = tuple(one for one in known.instances if one.suffix not in group)
        known = replace(known, instances=(*others, *new))
    ordered = sorted(placed, key=lambda one: records.order(one.suffix))
    return tuple(claims), tuple(odd), tuple(ordered)
