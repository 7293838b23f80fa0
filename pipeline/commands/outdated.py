"""`doit outdated`: pinned versions beside the newest releases."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.builder.upkeep import releases
from pipeline.commands.places import CACHE
from pipeline.commands.recipes import load
from pipeline.commands.tables import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.builder.upkeep.releases import Outdated
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """List them; raise RecipeError for recipes that are not valid."""
    known = load()
    rows = releases.outdated(
        known.components.values(), offline=settings.offline, work=CACHE / "apt"
    )
    if settings.format == "json":
        print_json([{**asdict(row), "outdated": row.is_outdated} for row in rows])
    else:
        _print_outdated(rows)
    known.check("components/")  # those that are not valid are not among the rows


def _print_outdated(rows: Iterable[Outdated]) -> None:
    table: list[tuple[str, ...]] = []
    for row in rows:
        verdict = "outdated" if row.is_outdated else "current" if row.newest else "unknown"
        why = row.origin or " ".join((row.reason or "").split())
        table.append((row.name, row.pinned, row.newest or "?", verdict, why))
    print_table(("component", "pinned", "newest", "", "told by"), table)
