"""Which instances are to have a bound on their disk, and whether they can: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ends
from pipeline.host.doctor.rows import Row, Stage, Status
from pipeline.host.roots.actions import Rebound
from pipeline.host.roots.quota import BYTES_AN_INODE, MIB, Means, told
from pipeline.host.state.records import Users

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.host.doctor import rows
    from pipeline.host.doctor.facts import Facts
    from pipeline.host.doctor.site import PrefixFacts
    from pipeline.host.roots.quota import Ability
    from pipeline.host.state.records import Instance
    from pipeline.host.wanted import Wanted


def rebounds(wanted: Wanted, known: dict[str, Instance], facts: Facts) -> Iterator[Rebound]:
    """Those of *wanted* that are there with a bound, and are to have another or none."""
    for target in wanted.targets:
        one = known.get(target.suffix)
        if one is None or one.name not in facts.roots or not one.disk:
            continue
        if wanted.disk not in (None, one.disk):
            yield Rebound(one.suffix, one.disk, wanted.disk)


def unbounded(wanted: Wanted, known: dict[str, Instance], facts: Facts) -> list[Instance]:
    """Those of *wanted* that are there without the bound asked for, and cannot get it."""
    if not wanted.disk:
        return []
    found = (known.get(target.suffix) for target in wanted.targets)
    return [one for one in found if one and not one.disk and one.name in facts.roots]


def row(asked: rows.Asked, facts: PrefixFacts) -> Row:
    """Whether the disks of instances can be bounded there, and whether that was asked for."""
    problems = tuple(_problems(asked, facts))
    notes = () if problems else tuple(_notes(asked, facts.quota))
    is_asked = asked.disk or any(claim.disk for claim in asked.claims)
    means = facts.quota.means
    return Row(
        name=f"bound on each disk below {facts.path}",
        found=means.value if means else facts.quota.lacking,
        needed="project quota or btrfs qgroup" if is_asked else "any",
        status=Status.FAIL if problems else Status.WARN if notes else Status.OK,
        why="one instance can fill the disk of all",
        todo="; ".join(problems or notes),
        stage=Stage.DEPLOY,
        detail=problems or notes,
    )


def _problems(asked: rows.Asked, facts: PrefixFacts) -> Iterator[str]:
    new = [claim for claim in asked.claims if claim.is_new and claim.disk]
    sizes = {claim.disk for claim in new} | ({asked.disk} if asked.disk else set())
    if not sizes:
        return
    if facts.quota.means is None:
        yield f"disk=: {facts.quota.lacking} below {facts.path}: {facts.quota.todo}; or disk=none"
    if any(claim.users is Users.HOST for claim in new):
        # only a user namespace keeps root from giving files another project
        yield "disk= with users=host: root inside could lift the bound; leave out one of them"
    least = max(
        asked.needs.bytes_each(facts.block, facts.directory, beside=0),
        asked.needs.inodes_each(beside=0) * BYTES_AN_INODE,
    )
    for size in sorted(size for size in sizes if size < least):
        yield (
            f"disk={told(size)}: an instance of this image takes {least / MIB:.1f} MiB "
            "before anything is written in it"
        )


def _notes(asked: rows.Asked, ability: Ability) -> Iterator[str]:
    bounded = [claim.name for claim in asked.claims if claim.disk]
    if ability.means is None and bounded:
        yield f"{ends(bounded, most=3)} can outgrow disk=, {ability.lacking}: {ability.todo}"
    if ability.means is Means.QGROUP and (bounded or asked.disk):
        yield (
            "disk= on btrfs holds back no hostile root, whose own subvolumes are not counted; "
            "against such choose a prefix= on ext4 or xfs"
        )
