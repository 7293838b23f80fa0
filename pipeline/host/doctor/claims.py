"""What others may have a claim to: names, TCP ports and user numbers of instances."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.errors import counted, some
from pipeline.host.doctor.rows import Asked, Row, Stage, Status, unreadable
from pipeline.host.state.records import FIRST_BASE, LAST_SLOT, RANGE, Users, base_of
from pipeline.host.units import sockets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pipeline.host.doctor.rows import Claim
    from pipeline.host.doctor.site import Site

LAST_PORT = 65535
# What programs many people run listen on: name, ports
KNOWN_PORTS = (
    ("Docker", (2375, 2376, 2377)),
    ("etcd", (2378, 2379, 2380)),
    ("Grafana", (3000,)),
    ("Squid", (3128,)),
    ("MySQL", (3306,)),
    ("RDP", (3389,)),
    ("PostgreSQL", (5432,)),
    ("AMQP", (5672,)),
    ("VNC", (5900,)),
    ("Redis", (6379,)),
    ("Kubernetes", (6443, 10250)),
    ("HTTP", (8080, 8443)),
    ("Prometheus", (9090, 9100)),
    ("Elasticsearch", (9200,)),
    ("memcached", (11211,)),
    ("MongoDB", (27017,)),
)


def claim_rows(asked: Asked, site: Site) -> Iterator[Row]:
    """Names, ports and user numbers: there are such, nobody has them, nobody will want them."""
    yield Row(
        name="instances",
        found=f"{len(asked.odd)} impossible" if asked.odd else asked.words,
        needed="names and ports that can be",
        status=Status.FAIL if asked.odd else Status.OK,
        why="they cannot be deployed so",
        todo="; ".join(asked.odd),
        stage=Stage.DEPLOY,
        detail=asked.odd,
    )
    if asked.claims:
        yield from _port_rows(asked, site)
        yield from _user_rows(asked, site)


def _port_rows(asked: Asked, site: Site) -> Iterator[Row]:
    ports = [claim.port for claim in asked.claims]
    new = asked.new
    beyond = [claim for claim in new if not 1 <= claim.port <= LAST_PORT]
    yield _row(
        "TCP ports",
        found=f"{min(ports)}-{max(ports)}",
        needed=f"up to {LAST_PORT}",
        bad=Status.FAIL if beyond else Status.OK,
        why="there is no such port",
        todo="fewer instances, or a lower first= or port=",
        detail=[f"{one.name}: port {one.port} is outside 1-65535" for one in beyond],
    )
    given = tuple(_given(new, asked.kept_ports))
    yield _row(
        "TCP ports of others",
        found=some(claim.port for claim, _ in given),
        bad=Status.FAIL if given else Status.OK,
        why="another instance has that port",
        todo="choose port= or first=",
        detail=[f"{one.name}: port {one.port} is given to {whose}" for one, whose in given],
    )
    yield _taken(asked, {claim for claim, _ in given}, site)
    low = [port for port in sorted(ports) if 1 <= port < site.open_ports]
    yield _row(
        "TCP ports for root",
        found=f"{some(low)} of 1-{site.open_ports - 1}" if low else "",
        bad=Status.FAIL if low else Status.OK,
        why="no instance has CAP_NET_BIND_SERVICE, with users=host neither",
        todo="choose a higher port=, or let everybody on this host listen there: "
        f"sysctl -w net.ipv4.ip_unprivileged_port_start={low[0] if low else ''}",
    )
    yield _known(ports, new)
    yield _ephemeral(ports, new, site)


def _row(
    name: str,
    *,
    found: str,
    bad: Status,
    why: str,
    todo: str,
    needed: str = "none",
    detail: Iterable[str] = (),
) -> Row:
    return Row(
        name=name,
        found=found or "none",
        needed=needed,
        status=bad,
        why=why,
        todo="" if bad is Status.OK else todo,
        stage=Stage.DEPLOY,
        detail=tuple(detail),
    )


def _given(new: Iterable[Claim], kept: Mapping[int, str]) -> Iterator[tuple[Claim, str]]:
    """New ones whose port is another's, and whose."""
    holder = dict(kept)
    for claim in new:
        whose = holder.setdefault(claim.port, claim.name)
        if whose != claim.name:
            yield claim, whose


def _taken(asked: Asked, given: set[Claim], site: Site) -> Row:
    """Who listens on a port of those to come, or, not being it, of one that is there."""
    name, why = "TCP ports taken", "the instance's SSH server cannot listen"
    if site.listening is None:
        return unreadable(name, "none", why, stage=Stage.DEPLOY)
    taken = {}
    for claim in asked.claims:
        owners = site.listening.get(claim.port, frozenset())
        if not claim.is_new:
            owners = frozenset(sockets.foreign(owners, base_of(claim.slot, claim.users)))
        if owners and claim not in given:
            whose = ", ".join(sockets.holder(one, asked.kept_slots) for one in sorted(owners))
            taken[claim] = f"{claim.name}: port {claim.port} is taken by {whose} (ss -ltnp)"
    return replace(
        _row(
            name,
            found=some(sorted(claim.port for claim in taken)),
            bad=Status.FAIL if taken else Status.OK,
            why=why,
            todo="stop who listens (ss -ltnp), or choose port= or first=",
            detail=taken.values(),
        ),
        # what is there already is in nobody's way before it starts
        stage=Stage.DEPLOY if any(claim.is_new for claim in taken) or not taken else Stage.START,
    )


def _known(ports: Iterable[int], new: Iterable[Claim]) -> Row:
    listed = {port: name for name, theirs in KNOWN_PORTS for port in theirs}
    known = [f"{port} {listed[port]}" for port in sorted(ports) if port in listed]
    hit = {claim.port for claim in new} & listed.keys()
    told = [
        f"{_spans(sorted(hit.intersection(theirs)))} ({name})"
        for name, theirs in KNOWN_PORTS
        if hit.intersection(theirs)
    ]
    return _row(
        "TCP ports others use",
        found=some(known),
        bad=Status.WARN if known else Status.OK,
        why="such a program, installed later, finds its port taken",
        todo="choose port= or first= if you run one of them",
        detail=[f"ports known for something else are among them: {', '.join(told)}"] if hit else (),
    )


def _spans(ports: list[int]) -> str:
    """`2375-2377`, or `6443, 10250`."""
    first, last = ports[0], ports[-1]
    if last - first == len(ports) - 1 and first != last:
        return f"{first}-{last}"
    return ", ".join(map(str, ports))


def _ephemeral(ports: Iterable[int], new: Iterable[Claim], site: Site) -> Row:
    name = "TCP ports outgoing"
    why = "a connection of the host may hold the port at the moment the instance starts"
    if site.ephemeral is None:
        return unreadable(name, "none", why, stage=Stage.DEPLOY)
    low, high = site.ephemeral
    inside = [port for port in ports if low <= port <= high]
    hit = [claim.port for claim in new if low <= claim.port <= high]
    reserve = f"{min(inside)}-{max(inside)}" if inside else ""
    verb = "is" if len(hit) == 1 else "are"
    told = (
        f"{counted(len(hit), 'port')} from {min(hit, default=0)} on {verb} ephemeral here "
        f"({low}-{high}): an outgoing connection may hold one when its instance starts"
    )
    return _row(
        name,
        found=f"{reserve} of {low}-{high}" if inside else "",
        bad=Status.WARN if inside else Status.OK,
        why=why,
        todo=f"sysctl -w net.ipv4.ip_local_reserved_ports={reserve}",
        detail=[told] if hit else (),
    )


def _user_rows(asked: Asked, site: Site) -> Iterator[Row]:
    slots = {one.slot: one for one in asked.claims if one.users is Users.PRIVATE}
    if not slots:
        return
    last = FIRST_BASE + RANGE * (LAST_SLOT + 1) - 1
    ends = f"user ranges end with number {LAST_SLOT} (or users=host)"
    problems = []
    for claim in asked.new:
        if claim.users is not Users.PRIVATE:
            continue
        if claim.slot > LAST_SLOT:
            problems.append(f"{claim.name}: {ends}")
        elif (whose := asked.kept_slots.get(claim.slot, claim.name)) != claim.name:
            problems.append(f"{claim.name}: its user range is held by {whose}")
    yield _row(
        "user numbers",
        found=f"{FIRST_BASE + RANGE * min(slots)}-{FIRST_BASE + RANGE * (max(slots) + 1) - 1}",
        needed=f"up to {last}",
        bad=Status.FAIL if problems else Status.OK,
        why="what systemd sets aside for containers ends there, and each instance has its own",
        todo="fewer instances, another first=, or users=host",
        detail=problems,
    )
    yield _others(slots, site)


def _others(slots: Mapping[int, Claim], site: Site) -> Row:
    """Who else may use numbers of the instances that have *slots*."""
    taken, told, known = [], [], set()
    for one in site.user_ranges:
        first = max((one.start - FIRST_BASE) // RANGE, 0)
        end = (one.start + one.count - 1 - FIRST_BASE) // RANGE
        hit = [slots[slot] for slot in range(first, min(end, max(slots)) + 1) if slot in slots]
        if hit:
            taken.append(f"{one.owner} ({one.file} {one.start}:{one.count})")
        # most have the same numbers in /etc/subuid and /etc/subgid
        same = (one.owner, one.start, one.count)
        if same not in known and any(claim.is_new for claim in hit):
            known.add(same)
            told.append(
                f"user {one.owner} may use ids of {hit[0].name} and {len(hit) - 1} more "
                f"({one.file} gives him {one.start}-{one.start + one.count - 1})"
            )
    return _row(
        "user numbers of others",
        found=some(taken),
        bad=Status.WARN if taken else Status.OK,
        why="who owns such a number may read and signal what is inside an instance",
        todo="move their range, or choose first= beyond it",
        detail=told,
    )
