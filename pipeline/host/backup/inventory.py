"""What is in a backup: its first member, a JSON object, and the order of the members after it.

    nifty-backup.json     the inventory: format, instances, images
    images/DIGEST.image   the archive of each image in use, as it was deployed
    fleet_key             the private key that opens instances of a fleet without another
    roots/niftyN/...      the root of each instance, parents first, names in order
    nifty-backup.sha256   the sha256 of all bytes before it

Nothing of it is believed when it is read: state that no deploy could have made is refused here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import NiftyError
from pipeline.host import wanted
from pipeline.host.backup.parcel import ParcelError
from pipeline.host.state import records
from pipeline.host.state.records import StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.host.state.records import Instance

FORMAT = 1
NAME = b"nifty-backup.json"
SEAL = b"nifty-backup.sha256"
FLEET_KEY = b"fleet_key"
MAX_KEY = 1 << 16
# 28,664 instances, the most there are user ranges for, take 12 MB
MAX_BYTES = 32 << 20
_KEYS = frozenset(("format", "program", "images", "fleet_key", "live", "instances"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """*instances* as they were recorded, in the order of their roots; *images* are digests.

    *fleet_key*: the archive has one. *live*: names of those that ran while they were copied.
    """

    instances: tuple[Instance, ...]
    images: tuple[str, ...]
    fleet_key: bool = False
    live: tuple[str, ...] = ()


def encode(inventory: Inventory) -> bytes:
    """The JSON of *inventory*."""
    table = {
        "format": FORMAT,
        "program": "nifty",
        "images": inventory.images,
        "fleet_key": inventory.fleet_key,
        "live": inventory.live,
        "instances": [json.loads(records.encode(one)) for one in inventory.instances],
    }
    return json.dumps(table, indent=1).encode() + b"\n"


def decode(text: bytes) -> Inventory:
    """What `encode` wrote. Raises ParcelError with the first thing that is not so."""
    try:
        table = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ParcelError(f"its inventory is damaged: {why}") from None
    if not isinstance(table, dict) or table.get("program") != "nifty":
        raise ParcelError("not a backup of this program")
    if table.get("format") != FORMAT:
        raise ParcelError(
            f"of format {str(table.get('format'))[:20]!r}, this program reads {FORMAT}: "
            "use a newer one"
        )
    if table.keys() != _KEYS:
        raise ParcelError("its inventory is damaged: keys are missing or unknown")
    images, live, listed = (_list(table[key], key) for key in ("images", "live", "instances"))
    instances = tuple(_instance(one) for one in listed)
    names = [one.name for one in instances]
    for is_so, why in (
        (not instances, "no instance is in it"),
        (not isinstance(table["fleet_key"], bool), "fleet_key is neither true nor false"),
        (not all(_is_digest(one) for one in images), "digests that are none"),
        (names != [one.name for one in _ordered(instances)], "instances out of order"),
        (len(set(names)) < len(names), "an instance stands there twice"),
        (_twice([one.port for one in instances]), "two instances have one port"),
        (list(images) != sorted(set(images)), "images out of order"),
        (set(images) != set(used(instances)), "not exactly the images that its instances need"),
        (not all(isinstance(one, str) and one in names for one in live), "live names nobody"),
    ):
        if is_so:
            raise ParcelError(f"its inventory is damaged: {why}")
    return Inventory(
        instances=instances, images=tuple(images), fleet_key=table["fleet_key"], live=tuple(live)
    )


def image_path(digest: str) -> bytes:
    """The member with an image's archive."""
    return f"images/{digest}.image".encode()


def root_path(name: str) -> bytes:
    """What the paths of an instance's members begin with."""
    return f"roots/{name}/".encode()


def used(instances: Sequence[Instance]) -> tuple[str, ...]:
    """Digests of the images that *instances* have or could go back to, in order."""
    both = (digest for one in instances for digest in (one.image, one.previous))
    return tuple(sorted({digest for digest in both if digest is not None}))


def _ordered(instances: Sequence[Instance]) -> list[Instance]:
    return sorted(instances, key=lambda one: records.order(one.suffix))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key stands there twice")
    return table


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise ParcelError(f"its inventory is damaged: {key} is no list")
    return value


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and records.DIGEST.fullmatch(value) is not None


def _twice(values: list[int]) -> bool:
    return len(set(values)) < len(values)


def _instance(table: Any) -> Instance:
    """An instance that a deploy could have made: its values go into files that programs obey."""
    suffix = table.get("suffix") if isinstance(table, dict) else None
    if not isinstance(suffix, str):
        raise ParcelError("its inventory is damaged: an instance without a name")
    try:
        if wanted.named([suffix or "nifty"])[0].suffix != suffix:
            raise ParcelError(f"its inventory is damaged: {suffix[:80]!r} is no name")
        one = records.decode(json.dumps(table).encode(), Path(f"nifty{suffix}"), suffix)
    except StateError as error:
        raise ParcelError(f"its inventory is damaged: {error.message[:200]}") from None
    except NiftyError:
        raise ParcelError(f"its inventory is damaged: {suffix[:80]!r} is no name") from None
    # where its users are is the other host's business
    return replace(one, number=0, base=0)
