"""`check`: what this host lacks for so many instances, as rows; and what forbids to begin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.errors import ProblemsError
from pipeline.host.claims import port_rows, user_rows
from pipeline.host.ground import prefix_rows, system_rows
from pipeline.host.kernel import bus_rows, kernel_rows, systemd_rows
from pipeline.host.rows import Row, Stage, Status, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.host.probe import Host


class HostLacksError(ProblemsError):
    """A host on which deploying or starting would fail half-way."""


def check(wanted: Wanted, host: Host) -> tuple[Row, ...]:
    """Every row there is for *wanted* on *host*, always in the same order; reads nothing."""
    return (
        *system_rows(wanted, host),
        *kernel_rows(wanted, host),
        *systemd_rows(wanted, host),
        *bus_rows(wanted, host),
        *port_rows(wanted, host),
        *user_rows(wanted, host),
        *prefix_rows(wanted, host),
    )


def blocking(rows: Iterable[Row], stage: Stage = Stage.START) -> tuple[Row, ...]:
    """The rows that would make *stage* fail half-way; starting includes deploying."""
    stages = (Stage.DEPLOY,) if stage is Stage.DEPLOY else tuple(Stage)
    return tuple(row for row in rows if row.status is Status.FAIL and row.stage in stages)


def refuse(wanted: Wanted, rows: Iterable[Row], stage: Stage = Stage.START) -> None:
    """Raise HostLacksError with all blocking rows at once, if there are any."""
    found = blocking(rows, stage)
    if not found:
        return
    fixable = any(row.fixable for row in found)
    raise HostLacksError(
        f"this host cannot {stage.value} {wanted.count} instances:",
        lines(found),
        hint=wanted.command if fixable else wanted.command.removesuffix(" fix=yes"),
    )


def lines(rows: Iterable[Row]) -> tuple[str, ...]:
    """A line for each of *rows* in an error."""
    return tuple(
        f"{row.name}: {row.found}, needed {row.needed}: {row.why}; {row.todo}" for row in rows
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
            }
            for row in rows
        ],
        indent=2,
    )
