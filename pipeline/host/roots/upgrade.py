"""Moves instances to another image: what the image owns is replaced, what is theirs stays.

Each path that differs between the images is looked at in the instance's root. Files are replaced by
way of a rename once they are on the disk, the state is written last: killed at any point, also by a
power failure, running it again finishes it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.errors import ProblemsError, reason
from pipeline.host.roots import images
from pipeline.host.roots.differences import Differences, Kept
from pipeline.host.roots.guest import Staging, Unstaging, is_root
from pipeline.host.state import clients, kept, records
from pipeline.host.state.batch import Batch
from pipeline.host.state.layout import locked, prepare
from pipeline.program import to_type
from pipeline.progress import bar

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence

    from pipeline.host.roots.images import Image
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance, Known


class UpgradeError(ProblemsError):
    """An upgrade that cannot begin, or ended early; what was not finished is told."""


@dataclass(frozen=True, slots=True)
class Move:
    """An instance goes from one image to another."""

    suffix: str
    old: str
    new: str

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        return f"move nifty{self.suffix} from image {self.old[:12]} to {self.new[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeReport:
    """Suffixes of the instances that were moved, and what stayed in them.

    *stay*: suffixes of those that cannot be moved for want of images that are *lost*.
    """

    moved: tuple[str, ...]
    kept: tuple[Kept, ...]
    stay: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def plan_upgrade(
    known: Iterable[Instance],
    roots: Container[str],
    suffixes: Iterable[str] | None,
    digest: str | None,
) -> tuple[Move, ...]:
    """Moves of *suffixes* (None: all *known*) to image *digest*, or back to their previous one.

    Pure; *roots* are names below the prefix. Those that are there already do not move.
    Raises UpgradeError with all problems.
    """
    there = {one.suffix: one for one in known}
    asked = tuple(there) if suffixes is None else tuple(suffixes)
    problems, moves = [], []
    for suffix in asked:
        one = there.get(suffix)
        if one is None or one.name not in roots:
            problems.append(f"nifty{suffix}: not deployed by this program")
            continue
        target = digest or one.previous
        if target is None:
            problems.append(f"{one.name}: was never upgraded, so there is no way back")
        elif target != one.image:
            moves.append(Move(suffix, one.image, target))
    if problems:
        raise UpgradeError("nothing was upgraded:", problems, hint=to_type("status lists them all"))
    return tuple(moves)


def lost_images(layout: Layout, moves: Iterable[Move], image: Image | None) -> dict[str, str]:
    """Why images that *moves* go from or back to cannot be read on this host, by their digests."""
    needed = {digest for move in moves for digest in (move.old, move.new)}
    if image is not None:
        needed.discard(image.digest)
    lost = {}
    for digest in sorted(needed):
        try:
            images.stored(layout, digest)
        except kept.ImageError as error:
            lost[digest] = error.message
    return lost


def preview_upgrade(
    layout: Layout,
    known: Sequence[Instance],
    image: Image | None,
    suffixes: Iterable[str] | None = None,
) -> tuple[Move, ...]:
    """The moves of `upgrade` for *suffixes* of those *known*, None for all of them.

    Raises UpgradeError, also for an image that this host cannot run; going back is never refused.
    """
    roots = {one.name for one in known if is_root(layout, one.name)}
    moves = plan_upgrade(known, roots, suffixes, image.digest if image else None)
    if image is not None and moves and image.bound.problems:
        raise UpgradeError("nothing was upgraded:", image.bound.problems)
    return moves


def upgrade(
    layout: Layout,
    suffixes: Collection[str],
    image: Image | None,
    *,
    differ: Differences | None = None,
    wait: bool = True,
) -> UpgradeReport:
    """Move *suffixes* to *image*; None: each back to its previous one (`rollback=yes`).

    They should be stopped, or be restarted afterwards: the shared part changes with a restart.
    Nothing is read or written of other instances; `tidy` is to be called when all are done.
    *differ*: what several calls have in common. Raises UpgradeError, or LockedError without *wait*.
    """
    prepare(layout)
    with locked(layout, wait=wait):
        trees.empty(layout.new)
        known = records.look_at(layout, suffixes).instances
        moves = preview_upgrade(layout, known, image, suffixes)
        there = {one.suffix: one for one in known}
        kept = _move(layout, there, moves, image, differ or Differences(layout))
    return UpgradeReport(moved=tuple(move.suffix for move in moves), kept=tuple(kept))


@dataclass(slots=True)
class _Done:
    """How far it came: states of those that were *moved*, what was *kept*, and *where* it is."""

    moved: list[Instance] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    where: str = ""


def _move(
    layout: Layout,
    there: Mapping[str, Instance],
    moves: Sequence[Move],
    image: Image | None,
    differ: Differences,
) -> list[Kept]:
    """Keep the image, change the roots, then the states; each is on the disk before the next.

    Raises UpgradeError; the states of those that were changed by then say so.
    """
    done = _Done()
    why: str | None = None
    with Batch(layout) as batch:
        try:
            if image is not None and moves:
                images.store(layout, image)
            _change(layout, there, moves, differ, batch, done, going_back=image is None)
        except KeyboardInterrupt:
            why = "interrupted"
        except OSError as error:
            why = f"{f'{done.where}: ' if done.where else ''}{reason(error)}"
        try:
            batch.commit()
        except OSError as error:
            done.moved, why = [], why or reason(error)
    if why:
        count = len(done.moved)
        _unstage(layout, there, moves[count:], differ, going_back=image is None)
        raise UpgradeError(
            f"upgrade stopped: {count} of {len(moves)} instances were moved:",
            [why],
            hint="mend this, then run the same command again: it finishes what is left",
        )
    return done.kept


def _change(
    layout: Layout,
    there: Mapping[str, Instance],
    moves: Sequence[Move],
    differ: Differences,
    batch: Batch,
    done: _Done,
    *,
    going_back: bool,
) -> None:
    """Lay beside what goes into the roots, then put it there; *batch* has the states of *done*.

    Raises OSError.
    """
    with bar("upgrade", len(moves)) as step, trees.opened(layout.prefix) as at:
        for move in moves:
            one = there[move.suffix]
            done.where = one.name
            change = differ.between(move.old, move.new)
            change.apply(at, one, going_back=going_back, root=Staging)
        done.where = ""
        files.sync(layout.prefix)
        for move in moves:
            one = there[move.suffix]
            done.where = one.name
            done.kept += differ.between(move.old, move.new).apply(at, one, going_back=going_back)
            login = differ.login(move.new)
            moved = replace(one, image=move.new, previous=move.old, login=login)
            records.record(batch, layout, moved)
            done.moved.append(moved)
            step()
    done.where = ""
    if any(one.login != there[one.suffix].login for one in done.moved):
        clients.put(batch, layout, records.look(layout).with_those(done.moved).instances)


def _unstage(
    layout: Layout,
    there: Mapping[str, Instance],
    moves: Sequence[Move],
    differ: Differences,
    *,
    going_back: bool,
) -> None:
    """Take away what was laid ready for *moves*, where that can be done."""
    with suppress(OSError, kept.ImageError), trees.opened(layout.prefix) as at:
        for move in moves:
            one = there[move.suffix]
            differ.between(move.old, move.new).apply(at, one, going_back=going_back, root=Unstaging)


def tidy(layout: Layout, known: Known) -> None:
    """Clients' lists as the state is, and no image that nobody has or could go back to.

    *known* is all the state, read under the lock, which is held until this is done. A full disk is
    no error here: the next run does it. With state that is damaged no image is removed: an instance
    may have it.
    """
    used = {digest for one in known.instances for digest in (one.image, one.previous)}
    try:
        # the state that does not name them any more is on the disk before they go
        files.sync(layout.state)
        stored = {path.stem for path in layout.images.iterdir()}
        stored |= {path.name for path in layout.shared.iterdir()}
        for digest in set() if known.damaged else stored - used:
            # what else lies in cbin/ is somebody's own
            if records.DIGEST.fullmatch(digest):
                images.remove(layout, digest)
        clients.write(layout, known.instances)
    except OSError:
        return
