"""From what and by whom an image was built: an in-toto statement with SLSA's provenance, signed.

Without a time of day, and of nothing but the recipes, so that who builds again makes the same
statement and may put a signature of their own beside the first.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md,
https://slsa.dev/spec/v1.0/provenance; how it is signed, `envelope` knows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.builder.recipes.component import Https
from pipeline.paths import beneath
from pipeline.release import origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.recipes.component import Component
    from pipeline.builder.recipes.image import Package
    from pipeline.image.manifest import Manifest

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Who built, as URIs: *kind* says how to repeat it, *name* who did it.

    *commit* is that of this program, with *changed* files or not; None: it is not known.
    """

    name: str
    kind: str
    commit: str | None = None
    changed: bool = False


def statement(
    manifests: Sequence[Manifest],
    recipes: Recipes,
    subjects: Mapping[str, str],
    builder: Builder,
) -> bytes:
    """The statement that *builder* made *subjects*, sha256 by file name, of these recipes.

    *manifests* are those of one image for each architecture. UTF-8, the same bytes each time, in
    whatever order they come. Raises OriginError if one was made of other recipes.
    """
    for manifest in manifests:
        origin.check(manifest, recipes)
    ordered = sorted(manifests, key=lambda one: one.needs.architecture)
    outer = {
        "image": ordered[0].name,
        "version": ordered[0].version,
        "architectures": [one.needs.architecture for one in ordered],
    }
    materials = [part for one in ordered for part in _materials(one, recipes)]
    if builder.commit:
        materials.append({"name": "nifty", "digest": {"gitCommit": builder.commit}})
    inner = {"changed": builder.changed} if builder.commit else {}
    table = {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": builder.kind,
                "externalParameters": outer,
                "internalParameters": inner,
                "resolvedDependencies": _once(materials),
            },
            "runDetails": {"builder": {"id": builder.name}},
        },
    }
    return json.dumps(table, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def is_same_but_builder(one: bytes, other: bytes) -> bool:
    """Whether two statements differ in who built at most: each made the same of the same."""

    def told(payload: bytes) -> Any:
        table = json.loads(payload)
        table["predicate"]["runDetails"]["builder"]["id"] = ""
        return table

    try:
        return bool(told(one) == told(other))
    except (ValueError, KeyError, TypeError):
        return False


def _once(materials: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What several architectures share stands there once."""
    return [*{json.dumps(one, sort_keys=True): one for one in materials}.values()]


def _materials(manifest: Manifest, recipes: Recipes) -> Iterator[dict[str, Any]]:
    """ResourceDescriptors of recipes, sources, patches, packages and the compiler."""
    image = recipes.images.get(manifest.name)
    if image:
        yield _recipe(recipes, f"images/{image.name}.toml")
    for record in manifest.components:
        component = recipes.components[record.name]
        yield _recipe(recipes, f"components/{component.name}/recipe.toml")
        yield _fetched(component)
        for patch in component.patch:
            yield {
                "name": f"recipes/components/{component.name}/{patch.file}",
                "digest": {"sha256": patch.sha256},
            }
    for package in image.package if image else ():
        yield _fetched(package)
    for name, version in sorted({tool for item in manifest.components for tool in item.tools}):
        yield {"name": name, "uri": f"pkg:pypi/{name}@{version}"}


def _recipe(recipes: Recipes, path: str) -> dict[str, Any]:
    content = beneath(recipes.root, path).read_bytes()
    return {"name": f"recipes/{path}", "digest": {"sha256": hashlib.sha256(content).hexdigest()}}


def _fetched(item: Component | Package) -> dict[str, Any]:
    url = next((place.url for place in item.location if isinstance(place, Https)), None)
    found = {"name": item.source.file, "digest": {"sha256": item.source.sha256}}
    return {**found, "uri": url} if url else found
