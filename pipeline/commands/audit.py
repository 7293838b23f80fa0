"""`doit audit`: the known vulnerabilities of the image's components."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.builder.upkeep import audit as auditing
from pipeline.commands.recipes import chosen, load
from pipeline.commands.tables import print_json, print_table
from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from pipeline.builder.upkeep.audit import Finding
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """List them; raise NiftyError if one is open."""
    known = load()
    found = auditing.audit(known, chosen(known, settings).components)
    if settings.format == "json":
        print_json([_flat(finding) for finding in found])
    else:
        lines = [
            (one.cve.id, f"{one.component} {one.version}", one.status, one.cve.where, one.reason)
            for one in found
        ]
        print_table(("CVE", "component", "status", "where", "because"), lines)
    left = [one.cve.id for one in found if one.status is auditing.Status.OPEN]
    if left:
        raise NiftyError(
            f"{len(left)} open: {', '.join(left)}",
            hint="doit outdated; or a patch in the recipe, or the option off",
        )


def _flat(finding: Finding) -> dict[str, object]:
    return {
        "component": finding.component,
        "version": finding.version,
        "status": finding.status.value,
        "because": finding.reason,
        **finding.cve.model_dump(mode="json"),
    }
