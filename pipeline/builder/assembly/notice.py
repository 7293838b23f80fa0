"""NOTICE: what is in an image, under which licences, and the texts that must go with copies.

The GPL wants its own text given along with the program (version 2, section 1), the MIT and BSD
licences want theirs in every copy. A text that several parts share stands there once.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pipeline.builder.components import linked
from pipeline.image import manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pipeline.builder.components.results import Built
    from pipeline.builder.recipes.component import Component, LicenceFile
    from pipeline.builder.recipes.image import Image

    Packages = tuple[manifest.PackageRecord, ...]

_HEAD = """\
{title} {version}: who wrote what is in it, and under which licences

Each program, where it lies, its licence as an SPDX expression, the source it was compiled from,
and below it the libraries that are linked into it. The licences follow.
"""


def includes(component: Component, built: Built) -> tuple[manifest.IncludeRecord, ...]:
    """What is linked into *component*: what its recipe names, then the compiler's libraries."""
    own = (
        manifest.IncludeRecord(
            name=item.name,
            version=item.version,
            licence=item.licence,
            cpe=item.cpe,
            licence_files=records(item.licence_file),
        )
        for item in component.include
    )
    return (*own, *(_record(library) for library in _taken(built)))


def _taken(built: Built) -> Iterator[linked.Library]:
    if built.linked:  # a prebuilt program asks no compiler
        yield from (one for name, one in linked.of_compiler().items() if name in built.linked)


def _record(library: linked.Library) -> manifest.IncludeRecord:
    sha256 = hashlib.sha256(library.text()).hexdigest()
    return manifest.IncludeRecord(
        name=library.name,
        version=library.version,
        licence=library.licence,
        cpe=library.cpe,
        licence_files=(manifest.LicenceRecord(file=library.file, sha256=sha256),),
    )


def records(files: Iterable[LicenceFile]) -> tuple[manifest.LicenceRecord, ...]:
    """Licence files as the manifest has them."""
    return tuple(manifest.LicenceRecord(file=item.file, sha256=item.sha256) for item in files)


def text(
    image: Image, components: Iterable[Component], built: Mapping[str, Built], *, packages: Packages
) -> str:
    """The file: the same for the same recipes and tools.

    *packages* are those of a distribution from which files were taken.
    """
    parts: list[str] = []
    texts: dict[str, dict[str, None]] = {}  # of whom: an ordered set
    for component in components:
        item = built[component.name]
        parts.append(_part(component, item))
        for whose, content in _texts(component, item):
            texts.setdefault(f"{content.rstrip()}\n", {})[whose] = None
    if packages:
        lines = (f"{one.name} {one.version}: {one.licence or 'see there'}\n" for one in packages)
        parts.append("Taken from packages of the distribution:\n" + "".join(lines))
    title = _HEAD.format(title=image.title, version=image.version)
    licences = (
        f"{'=' * 78}\n{', '.join(whose)}\n{'=' * 78}\n\n{it}" for it, whose in texts.items()
    )
    return "\n".join((title, *parts, *licences))


def _part(component: Component, built: Built) -> str:
    lines = [
        f"{component.name} {component.version} (/cbin/{built.program}): {component.licence}",
        f"    {component.homepage}",
        f"    {component.source.file}, sha256 {component.source.sha256}",
    ]
    if component.patch:
        many = "es" * (len(component.patch) > 1)
        lines.append(f"    changed by {len(component.patch)} patch{many} of the recipe")
    lines += (f"    {it.name} {it.version}: {it.licence}" for it in includes(component, built))
    return "".join(f"{line}\n" for line in lines)


def _texts(component: Component, built: Built) -> Iterator[tuple[str, str]]:
    """Each text, with what it belongs to."""
    for name, files in (
        (component.name, component.licence_file),
        *((item.name, item.licence_file) for item in component.include),
    ):
        for file in files:
            yield f"{name}: {file.file}", built.licences[file.file]
    for library in _taken(built):
        yield f"{library.name}: {library.file}", library.text().decode("utf-8")
