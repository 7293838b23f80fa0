"""The corresponding source of an image: one archive from which the very same image is built again.

The GPL asks for the source of all modules that a program contains, and for the scripts that control
compilation (version 2, section 3): so upstream's files as they were fetched, the compiler's
libraries, recipes and patches, and this program. `doit build offline=yes` there needs no network
but for the wheels that pyproject.toml pins.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from pipeline.builder.components import linked, toolchain
from pipeline.builder.recipes.component import Https
from pipeline.image import archive
from pipeline.image.compressed import CompressedError, pieces
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, Symlink
from pipeline.release import gathered, origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.recipes.component import Component
    from pipeline.builder.recipes.image import Package
    from pipeline.builder.sources.store import Store
    from pipeline.image.manifest import Manifest

_README = """\
# The source of {title} {version}

Everything from which the image was made, and what makes it. With Python 3.11 or newer:

    python3 -m venv .venv
    .venv/bin/pip install -e '.[build]'
{builds}

The compiler and all else that decides a byte is pinned in pyproject.toml; pip fetches it. Nothing
else is fetched: the files that recipes name lie in sources/, and artifacts/store leads there.
The images' digests are then

{digests}

| here | what |
|---|---|
| sources/ | upstream's files as they were fetched, by their sha256; signatures, release keys |
| sources/{zig}/ | what of the compiler is linked in: musl, compiler-rt, zig's part of libc |
| recipes/ | how each is built: patches, configuration, flags |
| dodo.py, pipeline/ | the program that builds |
| manifest.csv | each part with version, licence and origin |
| NOTICE, LICENSES/ | the licences, together as in the image and each by itself |
{binary}"""
_BINARY = """
Taken as it is, of a distribution that has its source: {names}.
"""


def source(
    manifest: Manifest,
    recipes: Recipes,
    *,
    project: Path,
    store: Store,
    notice: bytes,
    digests: Mapping[str, str],
    before: bytes = b"",
) -> bytes:
    """A `.tar.zst` of everything that *manifest*'s image is made of: the same bytes each time.

    *project* is the folder of this program; of a git checkout what git tracks is taken, and what
    the image's recipe names. *store* has every source, *notice* is the image's, *digests* are the
    image's by architecture. If *before* is an archive of just that, it is not packed again. Raises
    OriginError, SourceError, ToolchainError.
    """
    origin.check(manifest, recipes)
    components = [recipes.components[item.name] for item in manifest.components]
    image = recipes.images.get(manifest.name)
    fetched: list[Component | Package] = [*components]
    fetched += image.package if image else ()
    top = f"{manifest.name}-source-{manifest.version}"
    zig = f"ziglang-{dict(toolchain.versions())['ziglang']}"
    texts = {
        "README.md": _readme(manifest, components, fetched, digests, zig).encode(),
        "manifest.csv": _table(components, fetched).encode(),
        "NOTICE": notice,
        **dict(gathered.program(project, [item.name for item in components], manifest.name)),
        **_below("sources", gathered.sources(fetched, recipes, store)),
        **_below(f"sources/{zig}", gathered.wheel()),
        **_below("LICENSES", gathered.licences(components, store)),
    }
    entries: list[Entry] = [
        File(path=f"{top}/{name}", content=text) for name, text in texts.items()
    ]
    entries.append(Symlink(path=f"{top}/artifacts/store", target="../sources"))
    rootfs = Rootfs.of([*entries, *_folders(entries)])
    tar = archive.write_tar(rootfs, mtime=manifest.epoch)
    return before if _is_of(before, tar) else archive.write_zstd(tar)


def _is_of(packed: bytes, tar: bytes) -> bool:
    """Whether *packed* is *tar*, compressed: packing takes a hundred times as long as this."""
    left = memoryview(tar)
    try:
        for piece in pieces(io.BytesIO(packed)):
            if left[: len(piece)] != piece:
                return False
            left = left[len(piece) :]
    except CompressedError:
        return False
    return not left


def _below(folder: str, files: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files}


def _folders(entries: Iterable[Entry]) -> Iterator[Directory]:
    inside = {
        entry.path[:at] for entry in entries for at, char in enumerate(entry.path) if char == "/"
    }
    yield from (Directory(path=path) for path in sorted(inside))


def _readme(
    manifest: Manifest,
    components: Iterable[Component],
    fetched: Iterable[Component | Package],
    digests: Mapping[str, str],
    zig: str,
) -> str:
    compiled = [item.name for item in components if item.build.system != "prebuilt"]
    names = [f"{item.name} {item.version}" for item in fetched if item.name not in compiled]
    lines = (f"    {digest}  {architecture}" for architecture, digest in sorted(digests.items()))
    word = f"    .venv/bin/doit build offline=yes image={manifest.name} arch="
    return _README.format(
        title=manifest.title,
        version=manifest.version,
        builds="\n".join(f"{word}{architecture}" for architecture in sorted(digests)),
        digests="\n".join(lines),
        zig=zig,
        binary=_BINARY.format(names=", ".join(names)) if names else "",
    )


def _table(
    components: Iterable[Component],
    fetched: Iterable[Component | Package],
) -> str:
    """Buildroot's `legal-info` has such a one: a line for each part."""
    sink = io.StringIO()
    rows = csv.writer(sink, lineterminator="\n")
    rows.writerow(("name", "version", "licence", "file", "sha256", "origin"))
    for item in fetched:
        url = next((place.url for place in item.location if isinstance(place, Https)), "")
        pin = item.source
        rows.writerow((item.name, item.version, item.licence, pin.file, pin.sha256, url))
    for component in components:
        for one in component.include:
            rows.writerow((one.name, one.version, one.licence, component.source.file, "", ""))
    for name, library in linked.of_compiler().items():
        rows.writerow((name, library.version, library.licence, "of the ziglang wheel", "", ""))
    return sink.getvalue()
