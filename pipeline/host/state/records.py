"""What this host knows of its instances: one JSON each below PREFIX/.nifty, where no instance can.

An instance is there when its state and its root both are. State without a root is an unfinished
deploy; a root without state is somebody else's. A file that cannot be used is one instance's
misfortune: `look` gives the others, and all such files with the reason for each.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline import files, trees
from pipeline.errors import NiftyError, ProblemsError, counted
from pipeline.host.state import fields
from pipeline.host.state.batch import Batch
from pipeline.image.manifest import ACCOUNT
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping
    from pathlib import Path

    from pipeline.host.state.layout import Layout

FORMAT = 1
FIRST_BASE = 524288
RANGE = 65536
# The last range below 0x70000000, where the one systemd sets aside for containers ends.
LAST_SLOT = 28663

SUFFIX = re.compile(r"|[1-9][0-9]{0,9}|[a-z]([a-z0-9-]{0,56}[a-z0-9])?")
DIGEST = re.compile(r"[0-9a-f]{64}")
# What may stand in ssh_config, known_hosts and a terminal without any thought.
_LOGIN = re.compile(f"({ACCOUNT})?")
_HOST_KEY = re.compile(r"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-P][A-Za-z0-9+/]{42}")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")

# Bytes; ours are some 500.
_LIMIT = 1 << 16
_NAMED = 20


class StateError(NiftyError):
    """State that is damaged, or of a format this program does not read."""


class NewerStateError(StateError):
    """State that a newer version of this program wrote: it is not damaged, and not ours to mend."""


class DamagedError(ProblemsError):
    """State files that cannot be used, all of them; the other instances are not concerned."""


class Share(StrEnum):
    """What instances of one image share."""

    CBIN = "cbin"
    NONE = "none"


class Users(StrEnum):
    """Whether an instance has a range of user ids of its own or the host's."""

    PRIVATE = "private"
    HOST = "host"


class Runner(StrEnum):
    """How systemd starts an instance."""

    NSPAWN = "nspawn"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One deployed root.

    *number* is its slot: user ids are *base* to *base* + 65535 (0: the host's own). *image* and
    *previous* are digests. *host_key* is the public line without a comment. *login* is
    the account that ssh_config names, *boot*: started with the host,
    *disk*: the most bytes its root may hold, 0: no bound (see quota),
    *register*: machinectl knows it, *fleet*: the fleet's
    key opens it, so ssh_config names that key.
    """

    suffix: str
    number: int
    port: int
    image: str
    previous: str | None = None
    share: Share = Share.CBIN
    users: Users = Users.PRIVATE
    base: int
    runner: Runner = Runner.NSPAWN
    host_key: str
    machine_id: str
    login: str
    boot: bool = False
    register: bool = False
    fleet: bool = False
    disk: int = 0

    @property
    def name(self) -> str:
        """The name of its root and its host name: `nifty7`."""
        return f"nifty{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A state file that cannot be used, and *why*: one line with its path.

    *suffix* is that of the instance by the file's name; not *is_ours*: a newer version's.
    """

    path: Path
    suffix: str
    why: str
    is_ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Everything below PREFIX/.nifty/instances, in the order of `order`."""

    instances: tuple[Instance, ...] = ()
    damaged: tuple[Damaged, ...] = ()

    def without(self, suffixes: Container[str]) -> Known:
        """The same but for *suffixes*."""
        return Known(
            instances=tuple(one for one in self.instances if one.suffix not in suffixes),
            damaged=tuple(one for one in self.damaged if one.suffix not in suffixes),
        )

    def with_those(self, some: Iterable[Instance]) -> Known:
        """The same with *some*, which are recorded by now, in the place of what they were."""
        there = {one.suffix: one for one in some}
        rest = self.without(there)
        every = (*rest.instances, *there.values())
        return replace(rest, instances=tuple(sorted(every, key=lambda one: order(one.suffix))))


def base_of(slot: int, users: Users) -> int:
    """The first user id of *slot*."""
    return FIRST_BASE + RANGE * slot if users is Users.PRIVATE else 0


def order(suffix: str) -> tuple[bool, int, str]:
    """Sorts numbers as numbers, names after them."""
    is_number = suffix.isascii() and suffix.isdecimal()
    return (False, int(suffix), "") if is_number else (True, 0, suffix)


def file_name(suffix: str) -> str:
    """The state file of an instance."""
    return f"{suffix or '_'}.json"


def encode(instance: Instance) -> bytes:
    """The JSON of one instance, one line."""
    table = {field: getattr(instance, field) for field in _FIELDS}
    if not instance.disk:
        del table["disk"]  # as versions that do not know it have it
    return json.dumps({"format": FORMAT, "name": instance.name, **table}).encode() + b"\n"


def read(layout: Layout, suffix: str) -> Instance | None:
    """One instance; None if it is not known. Raises StateError."""
    path = layout.instances / file_name(suffix)
    try:
        return decode(files.read(path, limit=_LIMIT), path, suffix)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}", hint=_hint()) from error


def read_all(layout: Layout) -> tuple[Instance, ...]:
    """All instances whose state can be used: see `look`."""
    return look(layout).instances


def look(layout: Layout) -> Known:
    """All there is; nothing before the first deploy. Raises StateError if nothing can be seen.

    Ten thousand files take most of a second: a command reads them once and hands on what it read,
    and once more under the lock where another run may have changed them meanwhile.
    """
    folder = os.fspath(layout.instances)
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".json")]  # noqa: PTH208 (bare names, ten times as fast)
    except FileNotFoundError:
        return Known()
    except OSError as error:
        raise StateError(f"{folder}: {error.strerror}") from error
    suffixes = ("" if name == "_.json" else name[:-5] for name in names)
    return look_at(layout, sorted(suffixes, key=order))


def look_at(layout: Layout, suffixes: Iterable[str]) -> Known:
    """What is recorded of *suffixes*, in their order; nothing of those that are not known."""
    found, damaged = [], []
    for suffix in suffixes:
        try:
            if not SUFFIX.fullmatch(suffix):
                told = (
                    f"{layout.instances}: {fields.shown(file_name(suffix))}: "
                    "not the name of an instance"
                )
                raise StateError(told)  # noqa: TRY301 (one kind with those that cannot be read)
            one = read(layout, suffix)
        except StateError as error:
            damaged.append(
                Damaged(
                    path=layout.instances / file_name(suffix),
                    suffix=suffix,
                    why=error.message,
                    is_ours=not isinstance(error, NewerStateError),
                )
            )
            continue
        if one is not None:
            found.append(one)
    return Known(instances=tuple(found), damaged=tuple(damaged))


def refuse(damaged: Iterable[Damaged]) -> None:
    """Raise DamagedError that names all of *damaged*; nothing happens if there are none."""
    lines = [one.why for one in damaged]
    if not lines:
        return
    more = [f"and {len(lines) - _NAMED} more"] if len(lines) > _NAMED else []
    raise DamagedError(
        f"{counted(len(lines), 'instance has', 'instances have')} state that cannot be used, "
        "the others are not concerned:",
        [*lines[:_NAMED], *more],
        hint=_hint(),
    )


def write(layout: Layout, instance: Instance) -> None:
    """Record *instance*, replacing whatever was there, durably."""
    with Batch(layout) as batch:
        record(batch, layout, instance)
        batch.commit()


def record(batch: Batch, layout: Layout, instance: Instance) -> None:
    """Have *batch* write the state of *instance*."""
    batch.put(layout.instances / file_name(instance.suffix), encode(instance))


def remove(layout: Layout, suffix: str) -> None:
    """Forget an instance, whatever its state file is; nothing happens if it is not known."""
    with trees.opened(layout.instances) as folder:
        trees.remove(folder, file_name(suffix))


def decode(text: bytes, path: Path, suffix: str) -> Instance:
    """The instance in *text*. Raises StateError that names *path*, where it was found."""
    if not text.strip(b"\0"):
        raise StateError(f"{path}: empty, as after a power failure", hint=_hint())
    try:
        return _decode(text, suffix)
    except RecursionError:
        raise StateError(f"{path}: broken JSON: nested too deeply", hint=_hint()) from None
    except NewerStateError as error:
        raise NewerStateError(f"{path}: {error.message}", hint=error.hint) from None
    except ValueError as error:
        raise StateError(f"{path}: {error}", hint=_hint()) from error


def _decode(text: bytes, suffix: str) -> Instance:
    try:
        table = json.loads(text)
    except ValueError as error:
        raise ValueError(f"broken JSON: {error}") from error
    if not isinstance(table, dict):
        raise ValueError("expected an object")  # noqa: TRY004 (one kind for `decode`)
    found = table.pop("format", None)
    if found != FORMAT or isinstance(found, bool):
        told = f"state of format {fields.shown(found)}, this program reads {FORMAT}"
        if isinstance(found, int) and found > FORMAT:
            raise NewerStateError(told, hint="use the version of the program that wrote it")
        raise ValueError(told)
    table.pop("name", None)
    table.setdefault("disk", 0)
    wrong = sorted(set(table) ^ set(_FIELDS))
    if wrong:
        raise ValueError(f"missing or unknown: {fields.shown(', '.join(wrong))[1:-1]}")
    values = {}
    for field, value in table.items():
        try:
            values[field] = _FIELDS[field](value)
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from error
    instance = Instance(**values)
    if instance.suffix != suffix:
        raise ValueError(f"holds the state of {instance.name}")
    if (instance.base == 0) is not (instance.users is Users.HOST):
        raise ValueError(f"base {instance.base} does not go with users={instance.users}")
    return instance


def _hint() -> str:
    return (
        f"{to_type('doctor fix=yes')} makes it anew from the root; "
        f"or {to_type('undeploy names=…')} removes both"
    )


# A reader for each field of Instance, in the order the JSON has them.
_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "suffix": fields.like(SUFFIX, "the end of an instance's name"),
    "number": fields.within(0, 1 << 31),
    "port": fields.within(1, 65535),
    "image": fields.like(DIGEST, "a sha256"),
    "previous": fields.or_none(fields.like(DIGEST, "a sha256 or null")),
    "share": fields.one_of(Share),
    "users": fields.one_of(Users),
    "base": fields.within(0, (1 << 32) - RANGE),
    "runner": fields.one_of(Runner),
    "host_key": fields.like(_HOST_KEY, "an ed25519 key"),
    "machine_id": fields.like(_MACHINE_ID, "32 hex digits"),
    "login": fields.like(_LOGIN, "an account's name"),
    "boot": fields.truth,
    "register": fields.truth,
    "fleet": fields.truth,
    "disk": fields.within(0, 1 << 50),
}
