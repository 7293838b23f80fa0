"""The files that belong to the source of an image, from where they lie: paths and contents."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from pipeline.builder.components import linked, toolchain
from pipeline.builder.sources import unpack
from pipeline.errors import NiftyError
from pipeline.image import archive
from pipeline.image.rootfs import File
from pipeline.paths import beneath
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.recipes.component import Component
    from pipeline.builder.recipes.image import Package
    from pipeline.builder.sources.store import Store

    Contents = Iterator[tuple[str, bytes]]

# What of this program a build needs.
PROGRAM = ("dodo.py", "pipeline", "pyproject.toml", "recipes")
# What of the compiler's wheel is linked in: musl, compiler-rt, and zig's part of libc.
_WHEEL = (
    "LICENSE",
    "lib/c",
    "lib/c.zig",
    "lib/compiler_rt",
    "lib/compiler_rt.zig",
    "lib/libc/musl",
)


class SourceError(NiftyError):
    """A file that belongs to the source and is not there."""


def program(project: Path, components: Iterable[str], image: str) -> Contents:
    """This program and its recipes below *project*.

    Of a git checkout, what git tracks, so that nobody's notes are published, and the recipes of
    *components* and *image*; elsewhere all files of PROGRAM but caches. Raises ProgramError.
    """
    own = (f"recipes/images/{image}.toml", *(f"recipes/components/{name}" for name in components))
    paths = set(_files(project, own))
    if (project / ".git").exists() and shutil.which("git"):
        # whoever the checkout belongs to: git is only asked what it tracks
        words = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--", *PROGRAM]
        paths |= {path for path in run(words, cwd=project).stdout.split("\0") if path}
    else:
        paths |= set(_files(project, PROGRAM))
    for path in sorted(paths):
        if (found := beneath(project, path)).is_file():
            yield path, found.read_bytes()


def _files(root: Path, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        top = beneath(root, name)
        for path in (top, *top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.name[0] != ".":
                yield path.relative_to(root).as_posix()


def sources(items: Iterable[Component | Package], recipes: Recipes, store: Store) -> Contents:
    """Each file as the store calls it, and beside it its signature and the key.

    Raises SourceError for one that the store does not have.
    """
    for item in items:
        yield (
            store.path(item.source.sha256, item.source.file).name,
            _stored(item, store).read_bytes(),
        )
        if signature := item.source.signature:
            folder = recipes.root / "components" / item.name
            yield signature.file, beneath(folder, signature.file).read_bytes()
            yield f"{item.name}-{signature.key}", beneath(folder, signature.key).read_bytes()


def _stored(item: Component | Package, store: Store) -> Path:
    path = store.get(item.source)
    if path is None:
        raise SourceError(f"{item.source.file}: not in {store.root}", hint="doit build fetches it")
    return path


def wheel() -> Contents:
    """What of the compiler's wheel is linked into programs. Raises ToolchainError without it."""
    root = toolchain.library().parent
    for name in _files(root, _WHEEL):
        yield name, beneath(root, name).read_bytes()


def licences(components: Iterable[Component], store: Store) -> Contents:
    """The licence files, in a folder for each component, and those of the compiler's libraries."""
    for component in components:
        texts = _in_source(_stored(component, store))
        for item in component.licence_files:
            yield f"{component.name}/{item.file}", texts[item.file]
    for name, library in linked.of_compiler().items():
        yield f"{name}/{library.file}", library.text()


def _in_source(packed: Path) -> dict[str, bytes]:
    """The files of a source by their paths below the top folder, or of a `.deb` by theirs."""
    is_package = packed.suffix == ".deb"
    rootfs = unpack.deb_tree(packed) if is_package else archive.read(packed)
    return {
        entry.path if is_package else entry.path.partition("/")[2]: entry.content
        for entry in rootfs
        if isinstance(entry, File)
    }
