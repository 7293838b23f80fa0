"""What known vulnerabilities mean for an image: OpenVEX 0.2.0, as `doit audit` judges them.

A scanner that goes by versions reports what patches of the recipes have cured, and what is switched
off; with this document it does not. https://github.com/openvex/spec/blob/main/OPENVEX-SPEC.md
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any

from pipeline.builder.upkeep.audit import Status, audit
from pipeline.builder.upkeep.releases import order
from pipeline.release import identifiers, origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.upkeep.audit import Finding
    from pipeline.image.manifest import Manifest

CONTEXT = "https://openvex.dev/ns/v0.2.0"


def vex(
    manifest: Manifest, recipes: Recipes, *, author: str = "nifty", images: Iterable[str] = ()
) -> bytes:
    """The document of the image that *manifest* describes: UTF-8, the same bytes each time.

    Each vulnerability of a component is told once, of the product that the bill of materials calls
    so. *images* are further names of the whole image, such as `identifiers.oci` gives, each with
    the component inside. The time is that of the last look into the tables.

    Raises OriginError if the image was made of other recipes, AuditError for tables that are wrong.
    """
    origin.check(manifest, recipes)
    found = audit(recipes, (item.name for item in manifest.components))
    images = tuple(images)
    products = {item.name: _products(item.name, recipes, images) for item in manifest.components}
    statements = [_statement(one, products[one.component]) for one in found]
    seen = max((one.checked for one in found), default=None)
    at = (
        datetime.combine(seen, time(), UTC) if seen else datetime.fromtimestamp(manifest.epoch, UTC)
    )
    content = json.dumps([author, statements], sort_keys=True)
    table = {
        "@context": CONTEXT,
        # of other statements, another document
        "@id": uuid.uuid5(uuid.NAMESPACE_URL, content).urn,
        "author": author,
        "role": "builder of the image",
        "timestamp": at.isoformat(),
        "version": 1,
        "tooling": "nifty: doit audit",
        "statements": statements,
    }
    return (json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _products(name: str, recipes: Recipes, images: Iterable[str]) -> list[dict[str, Any]]:
    component = recipes.components[name]
    purl = identifiers.purl(component.name, component.version)
    names = {"purl": purl}
    if component.cpe:
        names["cpe23"] = identifiers.cpe(component.cpe, component.version)
    own = {"@id": purl, "identifiers": names}
    return [own, *({"@id": image, "subcomponents": [own]} for image in images)]


def _statement(finding: Finding, products: list[dict[str, Any]]) -> dict[str, Any]:
    row = finding.cve
    vulnerability = {
        "@id": f"https://www.cve.org/CVERecord?id={row.id}",
        "name": row.id,
        "description": f"{row.where}: {row.what}",
    }
    return {
        "vulnerability": vulnerability,
        "timestamp": datetime.combine(finding.checked, time(), UTC).isoformat(),
        "products": products,
        **_judgement(finding),
    }


def _judgement(finding: Finding) -> Mapping[str, str]:
    fixed = finding.cve.fixed
    match finding.status:
        case Status.PATCHED:
            return {"status": "fixed", "status_notes": f"patched: {finding.reason}"}
        case Status.FIXED if fixed is not None and order(fixed) <= order(finding.version):
            return {"status": "fixed", "status_notes": finding.reason}
        case Status.FIXED | Status.OFF:
            return {
                "status": "not_affected",
                "justification": "vulnerable_code_not_present",
                "status_notes": finding.reason,
            }
        case Status.OPEN:
            return {
                "status": "affected",
                "action_statement": finding.reason,
                "status_notes": f"in {finding.cve.where}",
            }
