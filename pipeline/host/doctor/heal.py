"""What of a fleet is damaged, as rows for doctor, and the way out of it: for all commands."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline import trees
from pipeline.errors import NiftyError
from pipeline.host.doctor.rows import Row, Status
from pipeline.host.roots import access, images, mend
from pipeline.host.state import clients, records
from pipeline.host.state import layout as layouts
from pipeline.host.state.layout import locked, prepare
from pipeline.host.units import control, sync
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pipeline.host.roots.access import Access
    from pipeline.host.roots.images import Image
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance, Known

_NAMED = 5


def rows(layout: Layout, known: Known) -> Iterator[Row]:
    """A row for state, each image, roots, and what is made from the state, if it is damaged."""
    if known.damaged:
        yield _row(
            "state of instances",
            f"{len(known.damaged)} damaged",
            "nobody can start or change these instances",
            [one.why for one in known.damaged],
            way_out=to_type("undeploy names=… gives up those that fix=yes cannot mend"),
            fixable=any(one.is_ours for one in known.damaged),
        )
    for digest in _used(known.instances):
        if found := images.damage(layout, digest):
            why = "its instances do not run or cannot be upgraded"
            yield _row(f"image {digest[:12]}", "damaged", why, found)
    if lost := mend.look(layout, known.instances):
        told = [
            f"nifty{suffix}: {', '.join(f'/{path}' for path in paths[:3])}"
            for suffix, paths in lost.items()
        ]
        yield _row("files of instances", f"{len(lost)} lost some", "they may not come up", told)
    if old := sync.outdated(layout, known):
        told = [str(path) for path in old]
        why = "units and ssh read these"
        yield _row("made from the state", f"{len(old)} not as it says", why, told)


def _row(
    name: str,
    found: str,
    why: str,
    lines: Sequence[str],
    *,
    way_out: str | None = None,
    fixable: bool = True,
) -> Row:
    more = [f"and {len(lines) - _NAMED} more"] if len(lines) > _NAMED else []
    return Row(
        name=name,
        found=found,
        needed="whole",
        status=Status.FAIL,
        why=why,
        todo="; ".join([*lines[:_NAMED], *more, *filter(None, [way_out])]),
        fixable=fixable,
    )


def heal(layout: Layout, image: Image | None = None) -> tuple[str, ...]:
    """Mend all that `rows` finds; a line for what was done, what was given up, and what stays.

    *image* is put in the place of a damaged one with its digest. What systemd reads is for
    `sync.settle`. Raises LayoutError, StateError, or OSError.
    """
    if not layout.state.is_dir():
        return ()
    prepare(layout)
    with locked(layout):
        trees.empty(layout.new)
        known = records.look(layout)
        told = [*_heal_images(layout, known.instances, image)]
        if known.damaged:
            told += _heal_states(layout, known)
            known = records.look(layout)
        if lost := mend.look(layout, known.instances):
            told += mend.mend(layout, lost, _granted(layout))
            # with new host keys, some of them
            known = records.look(layout)
        if clients.write(layout, known.instances):
            told.append(f"{layout.known_hosts} and {layout.ssh_config.name} are as the state says")
    return tuple(told)


def heal_if_needed(
    layout: Layout, chosen: Iterable[Instance], image: Image | None = None
) -> tuple[str, ...]:
    """`heal`, if *chosen* or their images look as if they would not run. Raises as that.

    No archive is read but that of *image*, no state but what was read already.
    """
    some = tuple(chosen)
    used = _used(some)
    is_whole = all(images.looks_whole(layout, digest) for digest in used)
    if is_whole and image is not None and image.digest in used:
        is_whole = images.is_stored(layout, image)
    return () if is_whole and not mend.look(layout, some) else heal(layout, image)


def _heal_images(layout: Layout, present: Sequence[Instance], image: Image | None) -> Iterator[str]:
    used = _used(present)
    if image is not None and image.digest in used and images.store(layout, image):
        yield f"image {image.digest[:12]} is whole again"
    for digest in dict.fromkeys((*used, *_stored(layout))):
        yield from images.mend(layout, digest)


def _heal_states(layout: Layout, known: Known) -> Iterator[str]:
    there = layouts.instance_roots(layout)
    ours = [one for one in known.damaged if one.is_ours]
    rooted = {
        one.suffix: one
        for one in ours
        if f"nifty{one.suffix}" in there and records.SUFFIX.fullmatch(one.suffix)
    }
    if rooted:
        made, told = mend.rebuild_states(
            layout, dict.fromkeys(rooted), known.instances, control.is_enabled
        )
        yield from told
        stay = rooted.keys() - {one.suffix for one in made}
        if stay:
            names = ",".join(suffix or "nifty" for suffix in sorted(stay, key=records.order))
            yield to_type(f"undeploy names={names} gives up what cannot be mended")
    for one in ours:
        if one.suffix not in rooted:
            records.remove(layout, one.suffix)
            yield f"given up: {one.why}; it had no root"
    for one in known.damaged:
        if not one.is_ours:
            yield f"left as it is: {one.why}"


def _used(present: Sequence[Instance]) -> tuple[str, ...]:
    used = dict.fromkeys(one.image for one in present)
    return tuple(used | dict.fromkeys(one.previous for one in present if one.previous))


def _stored(layout: Layout) -> tuple[str, ...]:
    with suppress(FileNotFoundError):
        found = {path.stem for path in layout.images.iterdir()}
        return tuple(sorted(digest for digest in found if records.DIGEST.fullmatch(digest)))
    return ()


def _granted(layout: Layout) -> Access | None:
    try:
        return access.present(layout)
    except NiftyError:
        return None
