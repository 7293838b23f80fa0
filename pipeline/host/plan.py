"""What has to be done so that what is wanted is there: pure, printable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import ProblemsError
from pipeline.host import state
from pipeline.host.state import LAST_SLOT, Users

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.host.facts import Facts
    from pipeline.host.state import Instance
    from pipeline.host.wanted import Target, Wanted

PORT_BASE = 2200
# (first, last, whose): common enough that a clash would surprise
_WELL_KNOWN = (
    (2375, 2376, "Docker"),
    (2379, 2380, "etcd"),
    (3000, 3000, "Grafana and others"),
    (3128, 3128, "Squid"),
    (3306, 3306, "MySQL"),
    (3389, 3389, "RDP"),
    (5432, 5432, "PostgreSQL"),
    (5900, 5900, "VNC"),
    (6379, 6379, "Redis"),
    (8080, 8080, "HTTP"),
    (9090, 9090, "Prometheus"),
    (27017, 27017, "MongoDB"),
)


class PlanError(ProblemsError):
    """What is wanted cannot be done on this host as it is; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one instance of an image takes, and the image itself, once."""

    digest: str
    files: tuple[int, ...]  # bytes of each file of an instance
    directories: int
    links: int
    once: int  # bytes of what is stored for all
    lacking: tuple[str, ...] = ()  # why drop-ins of the image would not start on this host

    def bytes_each(self, block: int, directory: int) -> int:
        """Bytes on a file system with such blocks; its JSON in the state included."""
        blocks = sum(-(-size // block) for size in self.files) + 1
        return blocks * block + (self.directories + 1) * directory

    @property
    def inodes_each(self) -> int:
        """Inodes, with the root and the state."""
        return len(self.files) + self.directories + self.links + 2


@dataclass(frozen=True, slots=True)
class Clean:
    """Remove what a dead run left in `new`."""

    leftover: str

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        return f"remove .nifty/new/{self.leftover}, left by a run that was killed"


@dataclass(frozen=True, slots=True)
class StoreImage:
    """Keep the image on this host and write its shared part."""

    digest: str

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        return f"write image {self.digest[:12]} to cbin/ and .nifty/images/"


@dataclass(frozen=True, slots=True)
class Create:
    """Make an instance's root and record it; *finish*: its state is there already."""

    suffix: str
    number: int
    port: int
    finish: bool = False

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        how = "finish" if self.finish else "create"
        return f"{how} nifty{self.suffix}, port {self.port}"


@dataclass(frozen=True, slots=True)
class WriteLists:
    """Write known_hosts and ssh_config anew from the state."""

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        return "write .nifty/known_hosts and .nifty/ssh_config"


Action = Clean | StoreImage | Create | WriteLists


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Actions in the order in which they are done; none if all is as wanted."""

    wanted: Wanted
    actions: tuple[Action, ...]
    warnings: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """For `dry=yes`: the warnings, then one line for each action, or that there is none."""
        told = tuple(str(action) for action in self.actions) or ("nothing to do",)
        return (*(f"warning: {warning}" for warning in self.warnings), *told)

    @property
    def creations(self) -> tuple[Create, ...]:
        """The instances to be made."""
        return tuple(action for action in self.actions if isinstance(action, Create))


def plan(wanted: Wanted, facts: Facts, needs: Needs) -> Plan:
    """What to do so that every target of *wanted* is there; pure.

    What is there already stays as it is. Raises PlanError with all that stands against it.
    """
    known = {one.suffix: one for one in facts.instances}
    todo = [
        target
        for target in wanted.targets
        if target.suffix not in known or target.name not in facts.roots
    ]
    problems = [*_moved_ports(wanted, known, facts), *_foreign(todo, known, facts)]
    creations = tuple(_creations(todo, known, wanted, problems))
    problems += [
        *_port_problems(creations, known, facts),
        *_slot_problems(creations, wanted, known),
    ]
    problems += _space_problems(len(creations), facts, needs)
    problems += needs.lacking if creations else ()
    if creations and wanted.users is Users.PRIVATE and not facts.is_root:
        problems.append("only root can give instances user ids of their own (users=private)")
    if problems:
        raise PlanError(
            f"nothing was changed below {wanted.prefix}:",
            problems,
            hint="'doit deploy ... dry=yes' shows what would be done",
        )
    actions: list[Action] = [Clean(name) for name in facts.leftovers]
    if creations and needs.digest not in facts.images:
        actions.append(StoreImage(needs.digest))
    actions += creations
    if creations or not facts.lists_current:
        actions.append(WriteLists())
    warnings = (
        *_port_warnings(creations, facts),
        *_difference_warnings(wanted, known, facts, needs),
        *_range_warnings(creations, wanted, facts),
    )
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


def _creations(
    todo: list[Target], known: dict[str, Instance], wanted: Wanted, problems: list[str]
) -> Iterator[Create]:
    held = {one.number for one in known.values()}
    held |= {int(target.suffix) for target in wanted.targets if target.suffix.isdecimal()}
    free = (slot for slot in range(LAST_SLOT, -1, -1) if slot not in held)
    for target in todo:
        old = known.get(target.suffix)
        port = target.port
        if port is None and old:
            port = old.port
        elif port is None and target.suffix.isdecimal():
            port = PORT_BASE + int(target.suffix)
        if port is None:
            problems.append(f"{target.name}: a new instance with a name needs port=")
            continue
        if old:
            slot: int | None = old.number
        else:
            slot = int(target.suffix) if target.suffix.isdecimal() else next(free, None)
        if slot is None:
            problems.append(f"{target.name}: no user range is free")
            continue
        yield Create(target.suffix, slot, port, finish=old is not None)


def _port_problems(
    creations: tuple[Create, ...], known: dict[str, Instance], facts: Facts
) -> Iterator[str]:
    todo = {action.suffix for action in creations}
    holder = {one.port: one.name for one in known.values() if one.suffix not in todo}
    for action in creations:
        name, port = f"nifty{action.suffix}", action.port
        if not 1 <= port <= 65535:
            yield f"{name}: port {port} is outside 1-65535"
        elif port in holder:
            yield f"{name}: port {port} is given to {holder[port]}"
        elif port in facts.listening:
            yield f"{name}: port {port} is taken by a listener on this host (ss -ltnp)"
        holder.setdefault(port, name)


def _slot_problems(
    creations: tuple[Create, ...], wanted: Wanted, known: dict[str, Instance]
) -> Iterator[str]:
    if wanted.users is not Users.PRIVATE:
        return
    holder = {one.number: one.name for one in known.values() if one.users is Users.PRIVATE}
    for action in creations:
        name = f"nifty{action.suffix}"
        if action.number > LAST_SLOT:
            yield f"{name}: user ranges end with number {LAST_SLOT} (or users=host)"
        elif holder.get(action.number, name) != name:
            yield f"{name}: its user range is held by {holder[action.number]}"


def _space_problems(count: int, facts: Facts, needs: Needs) -> Iterator[str]:
    if not count:
        return
    space = facts.space
    once = 0 if needs.digest in facts.images else needs.once
    wanted = count * needs.bytes_each(space.block, space.directory) + once
    if wanted > space.free:
        yield (
            f"not enough disk: {count} instances take {_mib(wanted)}, {_mib(space.free)} are free"
        )
    inodes = count * needs.inodes_each
    if space.inodes is not None and inodes > space.inodes:
        yield f"not enough inodes: {count} instances take {inodes}, {space.inodes} are free"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def _port_warnings(creations: tuple[Create, ...], facts: Facts) -> Iterator[str]:
    ports = {action.port for action in creations}
    clashes = [
        f"{low if low == high else f'{low}-{high}'} ({whose})"
        for low, high, whose in _WELL_KNOWN
        if not ports.isdisjoint(range(low, high + 1))
    ]
    if clashes:
        yield f"ports known for something else are among them: {', '.join(clashes)}"
    low, high = facts.ephemeral
    ephemeral = [port for port in ports if low <= port <= high]
    if ephemeral:
        yield (
            f"{len(ephemeral)} ports from {min(ephemeral)} on are ephemeral here ({low}-{high}): "
            "an outgoing connection may hold one when its instance starts"
        )


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
        yield f"{_list(images)} stay on another image; 'doit upgrade' moves them"
    others = [
        one for one in there if one.share is not wanted.share or one.users is not wanted.users
    ]
    if others:
        yield f"{_list(others)} stay with another share= or users=; undeploy them to change it"
    runners = [one for one in there if one.runner is not wanted.runner]
    if runners:
        yield f"{_list(runners)} stay with another runner=; 'doit upgrade runner=…' changes it"
    asked = {target.suffix for target in wanted.targets}
    halves = [
        one for one in known.values() if one.suffix not in asked and one.name not in facts.roots
    ]
    if halves:
        yield f"{_list(halves)} have no root: deploy or undeploy them by name to end this"


def _list(instances: list[Instance]) -> str:
    names = [one.name for one in instances]
    return ", ".join(names) if len(names) < 4 else f"{names[0]} ... {names[-1]} ({len(names)})"


def _range_warnings(creations: tuple[Create, ...], wanted: Wanted, facts: Facts) -> Iterator[str]:
    if wanted.users is not Users.PRIVATE:
        return
    for ids in facts.subordinate:
        hit = [
            action.suffix
            for action in creations
            if state.base_of(action.number, wanted.users) < ids.first + ids.count
            and ids.first < state.base_of(action.number + 1, wanted.users)
        ]
        if hit:
            yield (
                f"user {ids.owner} may use ids of nifty{hit[0]} and {len(hit) - 1} more "
                f"(/etc/subuid gives him {ids.first}-{ids.first + ids.count - 1})"
            )
