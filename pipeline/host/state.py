"""What this host knows of its instances: one JSON each below PREFIX/.nifty, where no instance can.

An instance is there when its state and its root both are. State without a root is an unfinished
deploy; a root without state is somebody else's.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.host.layout import Layout

FORMAT = 1
FIRST_BASE = 524288
RANGE = 65536
# The last range below 0x70000000, where the one systemd sets aside for containers ends.
LAST_SLOT = 28663


class StateError(NiftyError):
    """State that is damaged, or of a format this program does not read."""


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

    @property
    def name(self) -> str:
        """The name of its root and its host name: `nifty7`."""
        return f"nifty{self.suffix}"


def base_of(slot: int, users: Users) -> int:
    """The first user id of *slot*."""
    return FIRST_BASE + RANGE * slot if users is Users.PRIVATE else 0


def order(suffix: str) -> tuple[bool, int, str]:
    """Sorts numbers as numbers, names after them."""
    return (False, int(suffix), "") if suffix.isdecimal() else (True, 0, suffix)


def file_name(suffix: str) -> str:
    """The state file of an instance."""
    return f"{suffix or '_'}.json"


def encode(instance: Instance) -> bytes:
    """The JSON of one instance, one line."""
    table = {field: getattr(instance, field) for field in _FIELDS}
    return json.dumps({"format": FORMAT, "name": instance.name, **table}).encode() + b"\n"


def read(layout: Layout, suffix: str) -> Instance | None:
    """One instance; None if it is not known. Raises StateError."""
    path = layout.instances / file_name(suffix)
    try:
        return decode(path.read_bytes(), path, suffix)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error


def read_all(layout: Layout) -> tuple[Instance, ...]:
    """All instances in the order of `order`; empty before the first deploy. Raises StateError."""
    folder = os.fspath(layout.instances)
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".json")]  # noqa: PTH208 (bare names, ten times as fast)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StateError(f"{folder}: {error.strerror}") from error
    suffixes = sorted(("" if name == "_.json" else name[:-5] for name in names), key=order)
    found = (read(layout, suffix) for suffix in suffixes)
    return tuple(instance for instance in found if instance is not None)


def write(layout: Layout, instance: Instance) -> None:
    """Record *instance*, replacing what was known of it; atomic (rename(2))."""
    name = file_name(instance.suffix)
    write_atomic(layout, layout.instances / name, encode(instance))


def remove(layout: Layout, suffix: str) -> None:
    """Forget an instance; nothing happens if it is not known."""
    (layout.instances / file_name(suffix)).unlink(missing_ok=True)


def write_atomic(layout: Layout, path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """*path* with *content*, by way of PREFIX/.nifty/new: there is never half a file."""
    temporary = layout.new / f"{os.getpid()}.{path.name}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600)
    try:
        with open(file, "wb") as stream:  # noqa: PTH123 (a descriptor has no path)
            stream.write(content)
            os.fchmod(file, mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def decode(text: bytes, path: Path, suffix: str) -> Instance:
    """The instance in *text*. Raises StateError that names *path*, where it was found."""
    hint = f"if nothing can be saved: remove {path} and the root, and deploy again"
    try:
        table = json.loads(text)
    except ValueError as error:
        raise StateError(f"{path}: broken JSON: {error}", hint=hint) from error
    if not isinstance(table, dict):
        raise StateError(f"{path}: expected an object", hint=hint)
    if table.get("format") != FORMAT:
        raise StateError(
            f"{path}: state of format {table.get('format')!r}, this program reads {FORMAT}",
            hint="use the version of the program that wrote it, or a newer one",
        )
    table.pop("format")
    table.pop("name", None)
    wrong = sorted(set(table) ^ set(_FIELDS))
    if wrong:
        raise StateError(f"{path}: missing or unknown: {', '.join(wrong)}", hint=hint)
    try:
        values = {field: _FIELDS[field](value) for field, value in table.items()}
    except ValueError as error:
        raise StateError(f"{path}: {error}", hint=hint) from error
    instance = Instance(**values)
    if instance.suffix != suffix:
        raise StateError(f"{path}: holds the state of {instance.name}", hint=hint)
    return instance


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {value!r}")  # noqa: TRY004 (one kind for `decode`)
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected a whole number, found {value!r}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {value!r}")  # noqa: TRY004 (as `_text`)
    return value


# A reader for each field of Instance, in the order the JSON has them.
_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "suffix": _text,
    "number": _whole,
    "port": _whole,
    "image": _text,
    "previous": _text_or_none,
    "share": Share,
    "users": Users,
    "base": _whole,
    "runner": Runner,
    "host_key": _text,
    "machine_id": _text,
    "login": _text,
    "boot": _truth,
    "register": _truth,
    "fleet": _truth,
}
