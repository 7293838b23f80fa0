"""Whether what is deployed still fits its host: that is upgraded, too, and reconfigured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import some
from pipeline.host.binds import dropins
from pipeline.host.doctor import examination, heal, resolver
from pipeline.host.doctor.rows import Row, Status
from pipeline.host.state import kept, owed
from pipeline.host.wanted import meaning
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance, Known
    from pipeline.libraries import LibraryRoot


def rows(layout: Layout, known: Known) -> Iterator[Row]:
    """All there is to be said of the instances deployed, the state being *known*."""
    yield from heal.rows(layout, known)
    yield from dropin_rows(layout, known.instances)
    names = examination.running(known.instances)
    row = resolver.resolver_row(one for one in known.instances if one.name in names)
    if row is not None:
        yield row
    yield from forgotten_rows(owed.forgotten(layout, known.instances, names))


def forgotten_rows(down: Sequence[Instance]) -> Iterator[Row]:
    """A row if there are any *down* that a killed run left so (`owed.forgotten`)."""
    if down:
        yield Row(
            name="stopped for a change",
            found=some([one.name for one in down]),
            needed="none",
            status=Status.WARN,
            why="an upgrade, restart or backup was killed before it started them again",
            todo=f"type that command again, or {to_type(f'start {meaning(down)}')}",
        )


def forgotten_lines(down: Sequence[Instance]) -> Iterator[str]:
    """The same for `doit status`."""
    for row in forgotten_rows(down):
        yield f"{row.found}: down, {row.why}: {row.todo}"


def dropin_rows(
    layout: Layout, there: Iterable[Instance], root: LibraryRoot | None = None
) -> Iterator[Row]:
    """A row for each image of *there* with libraries of the host below *root* (None: this)."""
    users: dict[str, list[str]] = {}
    for one in there:
        users.setdefault(one.image, []).append(one.name)
    for digest, names in users.items():
        try:
            manifest = kept.described(layout, digest)
        except kept.ImageError:
            continue  # which a row of its own says
        taken = [record for record in manifest.dropins if record.libraries == "bind"]
        problems = dropins.bound(manifest, root).problems
        if not taken and not problems:
            continue
        shown = some(names)
        yield Row(
            name=f"drop-ins of image {digest[:12]}",
            found="do not start" if problems else "would start",
            needed="libraries of this host",
            status=Status.FAIL if problems else Status.OK,
            why=f"programs of the host do not start in {shown}"
            if taken
            else f"it asks for more than an image may have: {shown} cannot be started",
            todo="; ".join(
                [*problems, f"build {manifest.name} anew, then {to_type('upgrade image=…')}"]
            )
            if problems
            else "",
        )
