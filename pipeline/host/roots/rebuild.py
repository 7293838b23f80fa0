"""State that is lost, made anew from what else this host has of an instance.

The owner of the root says the user range, the files that its unit reads say runner and image, the
clients' lists and the root itself the rest. What the instance could have forged (all in its root)
is only used if it is what it should look like, and never against another instance.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.errors import NiftyError, reason
from pipeline.host.roots import access, identity, quota
from pipeline.host.state import kept, records
from pipeline.host.state.layout import environment_file, mounts_file
from pipeline.host.state.records import Instance, Runner, Share, StateError, Users
from pipeline.host.wanted import PORT_BASE
from pipeline.image import inittab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pipeline.host.state.layout import Layout
    from pipeline.image.manifest import Manifest

# Bytes of a text in a root, of a unit's variables, and of the clients' lists.
_LIMIT = 1 << 16
_LISTS = 1 << 24


def rebuild(
    layout: Layout,
    suffix: str,
    known: Sequence[Instance],
    *,
    boots: Callable[[str], bool],
    port: int | None = None,
) -> Instance:
    """The state of nifty*suffix*, whose root is there; *known* are the others.

    *boots* says of a suffix whether that instance starts with the host.

    It is on *port* if neither the clients' lists nor its own inittab say another.
    A key or a machine-id that is lost is a new one here, for `mend` to write. Raises StateError for
    what cannot be found out.
    """
    name = f"nifty{suffix}"
    try:
        with trees.opened(layout.prefix) as at, trees.opened(name, at=at) as root:
            return _rebuilt(layout, suffix, root, known, boots(suffix), port)
    except OSError as error:
        raise StateError(f"{name}: {reason(error)}") from error
    except kept.ImageError as error:
        raise StateError(f"{name}: {error.message}", hint=error.hint) from error


def _rebuilt(
    layout: Layout,
    suffix: str,
    root: int,
    known: Sequence[Instance],
    boot: bool,  # noqa: FBT001 (a field like the others)
    port: int | None,
) -> Instance:
    name = f"nifty{suffix}"
    unit = _unit_text(layout, suffix)
    owner = os.fstat(root).st_uid
    base = 0 if owner == os.geteuid() else owner  # an ordinary user makes them his own
    digest = _image(layout, name, unit, known)
    manifest = kept.described(layout, digest)
    ports = _ports(layout, name, _text(root, manifest.ssh.file), manifest)
    usual = PORT_BASE + int(suffix) if suffix.isdecimal() else None
    return Instance(
        suffix=suffix,
        number=_number(name, suffix, base, known),
        port=_port(name, known, ports, port, usual),
        image=digest,
        share=Share.NONE if _has_programs(root) else Share.CBIN,
        users=Users.PRIVATE if base else Users.HOST,
        base=base,
        runner=_runner(layout, suffix, unit, known),
        host_key=_host_key(root, manifest),
        machine_id=_machine_id(root, known),
        login=manifest.ssh.accounts[0].name if manifest.ssh.accounts else "",
        boot=boot,
        register="NIFTY_REGISTER=yes" in unit,
        fleet=_has_fleet_key(layout, root, manifest),
        disk=use.limit if (use := quota.use(root)) else 0,
    )


def host_key_in(root: int, path: str) -> str | None:
    """The public line of the host key in *path* of an open root; None if that is no such key."""
    with suppress(OSError), trees.parent(root, path) as (above, name):
        return identity.public_of(files.read(name, limit=_LIMIT, at=above))
    return None


def _unit_text(layout: Layout, suffix: str) -> str:
    """What the instance's unit reads, as far as it is there."""
    texts = []
    for path in (environment_file(layout.prefix, suffix), mounts_file(layout.prefix, suffix)):
        with suppress(OSError):
            texts.append(files.read_text(path, limit=_LIMIT))
    return "\n".join(texts)


def _text(root: int, path: str) -> str:
    """A text in the root, nothing if it cannot be read."""
    with suppress(OSError), trees.parent(root, path) as (above, name):
        return files.read(name, limit=_LIMIT, at=above).decode(errors="replace")
    return ""


def _has_programs(root: int) -> bool:
    """Whether the root has a /cbin of its own: else that is an empty mount point."""
    with suppress(OSError), trees.opened("cbin", at=root) as folder:
        return bool(os.listdir(folder))  # noqa: PTH208 (a descriptor has no path)
    return False


def _image(layout: Layout, name: str, unit: str, known: Sequence[Instance]) -> str:
    there = {path.stem for path in layout.images.iterdir()}
    there = {digest for digest in there if records.DIGEST.fullmatch(digest)}
    for digest in re.findall(r"/cbin/([0-9a-f]{64})\b", unit):
        if digest in there:
            return str(digest)
    used = Counter(one.image for one in known if one.image in there).most_common()
    if used and (len(used) == 1 or used[0][1] > used[1][1]):
        return used[0][0]
    if len(there) == 1:
        return there.pop()
    raise StateError(f"{name}: which of {len(there)} images it is made of is not known any more")


def _number(name: str, suffix: str, base: int, known: Sequence[Instance]) -> int:
    number = int(suffix) if suffix.isdecimal() else 0
    if not base:
        return number
    slot, rest = divmod(base - records.FIRST_BASE, records.RANGE)
    if slot < 0 or rest:
        raise StateError(f"{name}: its root belongs to user {base}, which begins no user range")
    for one in known:
        if one.users is Users.PRIVATE and one.base == base:
            raise StateError(f"{name}: its root belongs to the user range of {one.name}")
    return slot


def _port(
    name: str, known: Sequence[Instance], found: Iterable[int], *otherwise: int | None
) -> int:
    held = {one.port for one in known}
    for port in (*found, *otherwise):
        if port is not None and 1 <= port <= 65535 and port not in held:
            return port
    raise StateError(f"{name}: its port is not known any more")


def _ports(layout: Layout, name: str, table: str, manifest: Manifest) -> Iterator[int]:
    """What could be its port, the surest first."""
    with suppress(OSError):
        lists = files.read_text(layout.ssh_config, limit=_LISTS)
        found = re.search(rf"^Host {re.escape(name)}\n  Port ([0-9]{{1,5}})$", lists, re.MULTILINE)
        if found:
            yield int(found[1])
    with suppress(inittab.InittabError):
        yield inittab.port_of(table, manifest.ssh.place)


def _runner(layout: Layout, suffix: str, unit: str, known: Sequence[Instance]) -> Runner:
    if mounts_file(layout.prefix, suffix).is_file() or "NIFTY_BASE=" in unit:
        return Runner.SERVICE
    if "NIFTY_USERS=" in unit or not known:
        return Runner.NSPAWN
    return Counter(one.runner for one in known).most_common(1)[0][0]


def _host_key(root: int, manifest: Manifest) -> str:
    found = host_key_in(root, manifest.ssh.host_key)
    return found or identity.public_line(identity.new_host_key().public)


def _machine_id(root: int, known: Sequence[Instance]) -> str:
    found = _text(root, identity.MACHINE_ID).strip()
    is_own = re.fullmatch(r"[0-9a-f]{32}", found) and found not in {one.machine_id for one in known}
    return found if is_own else identity.new_machine_id()


def _has_fleet_key(layout: Layout, root: int, manifest: Manifest) -> bool:
    try:
        fleet = access.fleet_access(layout)
    except NiftyError:
        return False
    if fleet is None or not manifest.ssh.accounts:
        return False
    lines = _text(root, f"{manifest.ssh.accounts[0].home}/.ssh/authorized_keys".lstrip("/"))
    return not set(fleet.lines).isdisjoint(lines.splitlines())
