"""`check`: what this host lacks for so many instances, as rows; and what forbids to begin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.host.doctor.claims import claim_rows
from pipeline.host.doctor.ground import memory_row, prefix_rows, system_rows
from pipeline.host.doctor.kernel import bus_rows, kernel_rows, systemd_rows
from pipeline.host.doctor.rows import Asked, PlanError, Row, Stage, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.host.doctor.probe import Host
    from pipeline.host.doctor.site import Site


def check(asked: Asked, host: Host) -> tuple[Row, ...]:
    """Every row there is for *asked* on *host*, always in the same order; reads nothing."""
    return (
        *system_rows(asked, host),
        *kernel_rows(asked, host),
        *systemd_rows(asked, host),
        *bus_rows(asked, host),
        *deploy_rows(asked, host),
        memory_row(asked, host),
    )


def deploy_rows(asked: Asked, site: Site) -> tuple[Row, ...]:
    """Of `check` those that deploying alone depends on; all that is asked again under the lock."""
    return (
        *claim_rows(asked, site),
        *prefix_rows(asked, site),
        *_image_rows(asked),
    )


def _image_rows(asked: Asked) -> Iterator[Row]:
    if asked.new and asked.needs.digest:
        lacking = asked.needs.lacking
        yield Row(
            name=f"image {asked.needs.digest[:12]}",
            found="does not run here" if lacking else "runs here",
            needed="what this host has and gives",
            status=Status.FAIL if lacking else Status.OK,
            why="its programs would not start, or it asks for more than an image may have",
            todo="; ".join(lacking),
            stage=Stage.DEPLOY,
            detail=lacking,
        )


def blocking(rows: Iterable[Row], stage: Stage = Stage.START) -> tuple[Row, ...]:
    """The rows that would make *stage* fail half-way; starting includes deploying."""
    stages = (Stage.DEPLOY,) if stage is Stage.DEPLOY else tuple(Stage)
    return tuple(row for row in rows if row.status is Status.FAIL and row.stage in stages)


def refuse(asked: Asked, rows: Iterable[Row], stage: Stage = Stage.START) -> None:
    """Raise PlanError with all blocking rows at once, if there are any."""
    found = blocking(rows, stage)
    if not found:
        return
    fixable = any(row.fixable for row in found)
    raise PlanError(
        f"this host cannot {stage.value} {asked.words}; nothing was changed below {asked.prefix}:",
        lines(found),
        hint=asked.command if fixable else asked.command.removesuffix(" fix=yes"),
    )


def warnings(rows: Iterable[Row]) -> tuple[str, ...]:
    """What those who deploy are to know of, though it stops nothing."""
    return tuple(line for row in rows if row.status is Status.WARN for line in row.detail)


def lines(rows: Iterable[Row]) -> tuple[str, ...]:
    """What each of *rows* says in an error: a line, or one for each instance."""
    return tuple(
        line
        for row in rows
        for line in row.detail
        or (f"{row.name}: {row.found}, needed {row.needed}: {row.why}; {row.todo}",)
    )


def as_json(rows: Iterable[Row]) -> str:
    """The rows as a JSON array of objects, their fields in the order of Row."""
    return json.dumps(
        [
            {
                "name": row.name,
                "found": row.found,
                "needed": row.needed,
                "status": row.status.value,
                "why": row.why,
                "todo": row.todo,
                "stage": row.stage.value,
                "fixable": row.fixable,
                "detail": row.detail,
            }
            for row in rows
        ],
        indent=2,
    )
