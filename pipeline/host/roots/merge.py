"""What an upgrade does with one path: pure, from what lies there and what two images say of it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from pipeline.image import inittab
from pipeline.image.rootfs import Directory

if TYPE_CHECKING:
    from pipeline.image.inittab import PortPlace
    from pipeline.image.rootfs import Entry


class Strange(Enum):
    """Something no image holds: a pipe, a device, a file larger than any version of it."""

    STRANGE = "strange"


class Verdict(Enum):
    """What to do with a path."""

    LEAVE = "leave"
    PUT = "put"
    REMOVE = "remove"
    KEEP = "keep"  # both changed it: the instance's stays, the image's is laid beside it


def decide(disk: Entry | Strange | None, old: Entry | None, new: Entry | None) -> Verdict:
    """The fate of a path; owners of *disk* as inside the instance, None: nothing is there.

    What the user removed comes back only if the new image has it changed.
    """
    if new in (old, disk):
        return Verdict.LEAVE
    if new is None:
        return Verdict.REMOVE if disk == old else Verdict.LEAVE
    if disk in (old, None) or _between(disk, old, new):
        return Verdict.PUT
    return Verdict.KEEP


def _between(disk: Entry | Strange | None, old: Entry | None, new: Entry) -> bool:
    """A directory that a killed upgrade had given its new owner and not yet its new mode."""
    if not (isinstance(disk, Directory) and isinstance(old, Directory)):
        return False
    if not isinstance(new, Directory):
        return False
    owners = ((old.uid, old.gid), (new.uid, new.gid))
    return (disk.uid, disk.gid) in owners and disk.mode in (old.mode, new.mode)


def merge_table(
    disk: str, old: str, new: str, *, places: tuple[PortPlace, PortPlace], port: int
) -> str | None:
    """The new image's inittab with the lines of the user's own, on *port*; None on a conflict.

    *old* and *new* as deployed with that port, *places* where each has it. A line that the user
    changed or removed and the image changed as well is a conflict. What was merged before comes
    back as it is, so that an interrupted upgrade can be repeated.
    """
    mine, was, will = (text.splitlines() for text in (disk, old, new))
    dropped = set(was) - set(will)
    if set(will) <= set(mine) and dropped.isdisjoint(mine):
        return disk
    gone = set(was) - set(mine)
    if not gone.isdisjoint(dropped):
        return None
    lines = [line for line in will if line not in gone]
    lines += [line for line in mine if line not in was and line not in will]
    merged = "".join(f"{line}\n" for line in lines)
    for place in reversed(places):
        try:
            return inittab.with_port(merged, place, port)
        except inittab.InittabError:
            continue
    return None
