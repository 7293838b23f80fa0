"""`known_hosts` and `ssh_config`: what an SSH client needs to connect without a question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import files
from pipeline.host.state.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance


_UNKNOWN = "there is no such instance: status lists those there are"


def known_hosts(instances: Iterable[Instance]) -> str:
    """One line for each instance (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return "".join(
        f"[localhost]:{one.port},[127.0.0.1]:{one.port},[::1]:{one.port} {one.host_key}\n"
        for one in instances
    )


def ssh_config(instances: Iterable[Instance], layout: Layout) -> str:
    """A client's configuration (ssh_config(5)); what all have in common comes last."""
    fleet = f"  IdentityFile {_quoted(layout.fleet_key)}\n  IdentitiesOnly yes\n"
    there = tuple(instances)
    hosts = "".join(
        f"Host {one.name}\n  Port {one.port}\n  User {one.login}\n{fleet if one.fleet else ''}"
        for one in there
    )
    known = "".join(f" !{one.name}" for one in there)
    return (
        "# written by nifty, and replaced at each deploy\n"
        f"{hosts}"
        # the host's own sshd is on this address, too: what is no instance must not ask that
        f"Host nifty*{known}\n  Port 1\n"
        # by a shell: ssh ends the command as soon as that closes its standard output
        f"  ProxyCommand sh -c 'echo {_UNKNOWN} >&2'\n"
        "Host nifty*\n  HostName 127.0.0.1\n"
        f"  UserKnownHostsFile {_quoted(layout.known_hosts)}\n"
        "  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n"
        # nobody has a password; who lacks the key is told so, and not asked for one three times
        "  PreferredAuthentications publickey\n"
    )


def _quoted(path: object) -> str:
    # a percent sign starts a token there
    return '"' + str(path).replace("%", "%%") + '"'


def write(layout: Layout, instances: Iterable[Instance]) -> bool:
    """Both files, durably, for exactly *instances*; no if both are right already.

    Raises OSError.
    """
    with Batch(layout) as batch:
        put(batch, layout, instances)
        return batch.commit()


def put(batch: Batch, layout: Layout, instances: Iterable[Instance]) -> None:
    """Have *batch* write those of both files that are not right already. Raises OSError."""
    known = tuple(instances)
    for path, text in texts(layout, known).items():
        if not files.holds(path, text.encode()):
            batch.put(path, text.encode())


def are_current(layout: Layout, instances: tuple[Instance, ...]) -> bool:
    """Whether both files are what `write` would make."""
    found = texts(layout, instances)
    return all(files.holds(path, text.encode()) for path, text in found.items())


def texts(layout: Layout, instances: tuple[Instance, ...]) -> dict[Path, str]:
    """Both files for exactly *instances*."""
    return {
        layout.known_hosts: known_hosts(instances),
        layout.ssh_config: ssh_config(instances, layout),
    }
