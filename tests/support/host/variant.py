"""Images for tests that differ from the default one in some lines of its recipe.

`python -m tests.support.host.variant FILE`, run inside the test machine with the recipe's
changes as JSON on standard input, writes a plain tar: what it takes of its host is the machine's.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.builder.assembly import assemble
from pipeline.builder.components import compile as compiling
from pipeline.builder.components.results import Built
from pipeline.builder.recipes import catalogue
from pipeline.builder.recipes.image import Image
from pipeline.image import archive
from pipeline.paths import PROJECT


@dataclass(frozen=True, slots=True)
class Variant:
    """What changes: keys of the recipe, and keys of the account luser."""

    recipe: dict[str, object]
    luser: dict[str, object]


def pack(variant: Variant) -> bytes:
    """The archive of the default image with *variant*, of components that `doit build` compiled."""
    return archive.write_zstd(tar(variant))


def tar(variant: Variant) -> bytes:
    """The same, not compressed."""
    recipes = catalogue.load(PROJECT / "recipes")
    table = json.loads(recipes.images["nifty"].model_dump_json())
    table |= variant.recipe
    table["account"] = [
        one | (variant.luser if one["name"] == "luser" else {}) for one in table["account"]
    ]
    image = Image.model_validate_json(json.dumps(table))
    machine = os.uname().machine
    built = {}
    for name in image.components:
        component = recipes.components[name]
        folder = PROJECT / "artifacts" / "components" / machine / name
        told = json.loads((folder / "component.json").read_text("utf-8"))
        built[name] = Built(
            name=name,
            digest=compiling.input_digest(component, recipes.folder(component), machine),
            folder=folder,
            program=component.program.file,
            applets=tuple(told["applets"]),
            linked=tuple(told["linked"]),
            licences=told["licences"],
        )
    made = assemble.assemble(image, recipes, built, architecture=machine)
    return archive.write_tar(made.rootfs, mtime=made.manifest.epoch)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(tar(Variant(json.load(sys.stdin), {})))
