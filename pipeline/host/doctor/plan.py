"""What has to be done so that what is wanted is there: pure, printable."""

from __future__ import annotations

from itertools import starmap
from typing import TYPE_CHECKING

from pipeline.errors import ends
from pipeline.host.doctor import bounds, limits, rows
from pipeline.host.doctor.rows import Claim, Stage
from pipeline.host.roots.actions import (
    Action,
    Clean,
    Create,
    Mend,
    Plan,
    Rebuild,
    StoreImage,
    WriteLists,
)
from pipeline.host.state.records import LAST_SLOT, Users
from pipeline.host.units.runners import RUNNERS, dearest
from pipeline.host.wanted import PORT_BASE
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.host.doctor.facts import Facts
    from pipeline.host.roots.needs import Needs
    from pipeline.host.state.records import Instance, Runner
    from pipeline.host.wanted import Target, Wanted


def ask(
    wanted: Wanted,
    facts: Facts,
    needs: Needs,
    *,
    running: frozenset[str] = frozenset(),
    runner: Runner | None = None,
    typed: tuple[str, ...] = (),
) -> rows.Asked:
    """What `limits` is to answer: a claim for each target that can be; pure.

    *running*: names of those that run now; they and the targets will be there in the end. *runner*
    is what starts all of them, None: what each has, or is to have. *typed*: of the command line.
    """
    known = {one.suffix: one for one in facts.instances}
    todo = _todo(wanted, known, facts)
    new, impossible = _new(todo, known, wanted, facts.taken)
    odd = [*_moved_ports(wanted, known, facts), *_foreign(todo, known, facts), *impossible]
    if new and wanted.users is Users.PRIVATE and not facts.is_root:
        odd.append("only root can give instances user ids of their own (users=private)")
    fresh = {claim.suffix for claim in new}
    there = [known[one.suffix] for one in wanted.targets if one.suffix in known.keys() - fresh]
    claims = (*new, *map(_standing, there))
    names = {claim.name for claim in claims}
    old = (*there, *(one for one in facts.instances if one.name in running - names))
    kept = [one for one in facts.instances if one.suffix not in fresh]
    is_private = wanted.users is Users.PRIVATE and (fresh or not there)
    return rows.Asked(
        count=len(running | names),
        claims=claims,
        prefix=wanted.prefix,
        runner=_runner(wanted, fresh, old, runner),
        users=Users.PRIVATE
        if is_private or any(one.users is Users.PRIVATE for one in old)
        else Users.HOST,
        registered=_registered(wanted, fresh, old, runner),
        running=len(running),
        kept_ports={one.port: one.name for one in kept},
        kept_slots={one.number: one.name for one in kept if one.users is Users.PRIVATE},
        odd=tuple(odd),
        needs=needs,
        disk=wanted.disk or 0,
        is_stored=needs.digest in facts.images,
        typed=typed,
    )


def _todo(wanted: Wanted, known: dict[str, Instance], facts: Facts) -> list[Target]:
    """Those of the targets that are not wholly there."""
    whole = {*known, *(action.suffix for action in _rebuilds(wanted, facts))}
    return [
        target
        for target in wanted.targets
        if target.suffix not in whole or target.name not in facts.roots
    ]


def _standing(one: Instance) -> Claim:
    return Claim(one.suffix, one.port, one.number, users=one.users, is_new=False, disk=one.disk)


def _runner(
    wanted: Wanted, new: set[str], old: tuple[Instance, ...], runner: Runner | None
) -> Runner:
    """The one that takes most of a host, of those that there will be."""
    if runner:
        return runner
    kinds = {one.runner for one in old}
    if new or not kinds:
        kinds.add(wanted.runner)
    return dearest(kinds)


def _registered(
    wanted: Wanted, new: set[str], old: tuple[Instance, ...], runner: Runner | None
) -> int:
    """How many of these hold a connection to the system bus."""
    asked = {target.suffix for target in wanted.targets} if wanted.register else set()
    many = sum(
        RUNNERS[runner or one.runner].cost.is_registrable
        for one in old
        if one.register or one.suffix in asked
    )
    fresh = len(new & asked) if RUNNERS[runner or wanted.runner].cost.is_registrable else 0
    return many + fresh


def plan(wanted: Wanted, facts: Facts, needs: Needs) -> Plan:
    """What to do so that every target of *wanted* is there; pure.

    What is there already stays as it is. Raises PlanError with all that stands against it.
    """
    asked = ask(wanted, facts, needs)
    found = limits.deploy_rows(asked, facts.site)
    limits.refuse(asked, found, Stage.DEPLOY)
    known = {one.suffix: one for one in facts.instances}
    creations = tuple(
        Create(
            claim.suffix,
            claim.slot,
            claim.port,
            finish=claim.suffix in known,
            disk=claim.disk,
        )
        for claim in asked.new
    )
    lost = _rebuilds(wanted, facts)
    actions: list[Action] = [Clean(name) for name in facts.leftovers]
    is_used = lost or creations or any(one.image == needs.digest for one in known.values())
    if is_used and needs.digest not in facts.images:
        actions.append(StoreImage(needs.digest))
    actions += lost
    actions += starmap(Mend, facts.lost.items())
    actions += (*bounds.rebounds(wanted, known, facts), *creations)
    if lost or creations or not facts.lists_current:
        actions.append(WriteLists())
    warnings = (*limits.warnings(found), *_difference_warnings(wanted, known, facts, needs))
    return Plan(wanted=wanted, actions=tuple(actions), warnings=warnings)


def _moved_ports(wanted: Wanted, known: dict[str, Instance], facts: Facts) -> Iterator[str]:
    for target in wanted.targets:
        one = known.get(target.suffix)
        if one and target.name in facts.roots and target.port not in (None, one.port):
            yield f"{one.name} is deployed with port {one.port}, which {target.port} cannot replace"


def _foreign(todo: list[Target], known: dict[str, Instance], facts: Facts) -> Iterator[str]:
    for target in todo:
        if target.suffix not in known and target.name in facts.roots:
            yield f"{target.name} is there and was not made by this program: it stays untouched"


def _rebuilds(wanted: Wanted, facts: Facts) -> list[Rebuild]:
    """Those of the targets whose state is damaged and whose root is there."""
    return [
        Rebuild(target.suffix, target.port)
        for target in wanted.targets
        if target.suffix in facts.damaged and target.name in facts.roots
    ]


def _new(
    todo: list[Target],
    known: dict[str, Instance],
    wanted: Wanted,
    taken: frozenset[int],
) -> tuple[list[Claim], list[str]]:
    """A port and a slot for each of *todo*, and why some cannot have them, a line each."""
    held = {one.number for one in known.values()} | taken
    held |= {int(target.suffix) for target in wanted.targets if target.suffix.isdecimal()}
    free = (slot for slot in range(LAST_SLOT, -1, -1) if slot not in held)
    claims: list[Claim] = []
    impossible: list[str] = []
    for target in todo:
        old = known.get(target.suffix)
        port = _port(target, old)
        if port is None:
            impossible.append(f"{target.name}: a new instance with a name needs port=")
            continue
        if old:
            slot: int | None = old.number
        else:
            slot = int(target.suffix) if target.suffix.isdecimal() else next(free, None)
        if slot is None:
            impossible.append(f"{target.name}: no user range is free")
            continue
        disk = old.disk if old and wanted.disk is None else wanted.disk or 0
        claims.append(Claim(target.suffix, port, slot, users=wanted.users, disk=disk))
    return claims, impossible


def _port(target: Target, old: Instance | None) -> int | None:
    if target.port is not None:
        return target.port
    if old:
        return old.port
    return PORT_BASE + int(target.suffix) if target.suffix.isdecimal() else None


def _difference_warnings(
    wanted: Wanted, known: dict[str, Instance], facts: Facts, needs: Needs
) -> Iterator[str]:
    there = [
        known[target.suffix]
        for target in wanted.targets
        if target.suffix in known and target.name in facts.roots
    ]
    images = [one for one in there if one.image != needs.digest]
    if images:
        yield f"{_names(images)} stay on another image; '{to_type('upgrade')}' moves them"
    others = [
        one for one in there if one.share is not wanted.share or one.users is not wanted.users
    ]
    if others:
        yield f"{_names(others)} stay with another share= or users=; undeploy them to change it"
    runners = [one for one in there if one.runner is not wanted.runner]
    if runners:
        told = to_type("upgrade runner=…")
        yield f"{_names(runners)} stay with another runner=; '{told}' changes it"
    free = bounds.unbounded(wanted, known, facts)
    if free:
        yield f"{_names(free)} stay without disk=; undeploy them to change it"
    asked = {target.suffix for target in wanted.targets}
    halves = [
        one for one in known.values() if one.suffix not in asked and one.name not in facts.roots
    ]
    if halves:
        yield f"{_names(halves)} have no root: deploy or undeploy them by name to end this"


def _names(instances: list[Instance]) -> str:
    return ends([one.name for one in instances], most=3)
