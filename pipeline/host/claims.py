"""What others may have a claim to: the TCP ports and the user numbers of instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.host.rows import Row, Stage, Status, Wanted, unreadable
from pipeline.host.state import FIRST_BASE, LAST_SLOT, RANGE, Users

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.host.probe import Host

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


def user_rows(wanted: Wanted, host: Host) -> Iterator[Row]:
    """The numbers of the instances' users: within what the kernel has, and nobody else's."""
    if wanted.users is Users.HOST:
        return
    start = FIRST_BASE + RANGE * wanted.first
    end = start + RANGE * wanted.count - 1
    last = FIRST_BASE + RANGE * (LAST_SLOT + 1) - 1
    fits = end <= last
    yield Row(
        name="user numbers",
        found=f"{start}-{end}",
        needed=f"up to {last}",
        status=Status.OK if fits else Status.FAIL,
        why="what systemd sets aside for containers ends there, and 32 bits not far above",
        todo="" if fits else "fewer instances, a lower first=, or users=host",
        stage=Stage.DEPLOY,
    )
    taken = [
        f"{one.owner} ({one.file} {one.start}:{one.count})"
        for one in host.user_ranges
        if one.start <= end and start < one.start + one.count
    ]
    yield Row(
        name="user numbers of others",
        found=_some(taken) or "none",
        needed="none",
        status=Status.WARN if taken else Status.OK,
        why="who owns such a number may read and signal what is inside an instance",
        todo="move their range, or choose first= beyond it" if taken else "",
        stage=Stage.DEPLOY,
    )


def port_rows(wanted: Wanted, host: Host) -> Iterator[Row]:
    """The instances' SSH ports: exist, are free, and nobody is likely to want them."""
    ports = wanted.all_ports
    beyond = [port for port in ports if not 1 <= port <= LAST_PORT]
    yield Row(
        name="TCP ports",
        found=f"{min(ports)}-{max(ports)}",
        needed=f"up to {LAST_PORT}",
        status=Status.FAIL if beyond else Status.OK,
        why="there is no such port",
        todo="fewer instances, or a lower first= or port=" if beyond else "",
        stage=Stage.DEPLOY,
    )
    name, why = "TCP ports taken", "the instance's SSH server cannot listen"
    if host.listening is None:
        yield unreadable(name, "none", why, stage=Stage.DEPLOY)
    else:
        taken = sorted((host.listening & set(ports)) - wanted.own_ports)
        yield Row(
            name=name,
            found=_some(taken) or "none",
            needed="none",
            status=Status.FAIL if taken else Status.OK,
            why=why,
            todo="stop who listens (ss -ltnp), or choose port= or first=" if taken else "",
            stage=Stage.DEPLOY,
        )
    yield _known(ports)
    yield _ephemeral(ports, host)


def _known(ports: Iterable[int]) -> Row:
    listed = {port: name for name, theirs in KNOWN_PORTS for port in theirs}
    known = [f"{port} {listed[port]}" for port in ports if port in listed]
    return Row(
        name="TCP ports others use",
        found=_some(known) or "none",
        needed="none",
        status=Status.WARN if known else Status.OK,
        why="such a program, installed later, finds its port taken",
        todo="choose port= or first= if you run one of them" if known else "",
        stage=Stage.DEPLOY,
    )


def _ephemeral(ports: Iterable[int], host: Host) -> Row:
    name = "TCP ports outgoing"
    why = "a connection of the host may hold the port at the moment the instance starts"
    if host.ephemeral is None:
        return unreadable(name, "none", why, stage=Stage.DEPLOY)
    low, high = host.ephemeral
    inside = [port for port in ports if low <= port <= high]
    reserve = f"{min(inside)}-{max(inside)}" if inside else ""
    return Row(
        name=name,
        found=f"{reserve} of {low}-{high}" if inside else "none",
        needed="none",
        status=Status.WARN if inside else Status.OK,
        why=why,
        todo=f"sysctl -w net.ipv4.ip_local_reserved_ports={reserve}" if inside else "",
        stage=Stage.DEPLOY,
    )


def _some(things: Iterable[object]) -> str:
    """The first five, and how many more."""
    words = [str(thing) for thing in things]
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more
