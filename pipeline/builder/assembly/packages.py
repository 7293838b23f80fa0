"""Debian binary packages as one directory tree, from which drop-ins are taken."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.builder.assembly.dropins import Tree
from pipeline.builder.assembly.owners import Owner
from pipeline.builder.sources.unpack import SourceError, deb_tree
from pipeline.image.rootfs import Directory, File, Symlink, settled
from pipeline.libraries import LibraryRoot
from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.builder.recipes.image import Dropin, Package

# A merged /usr, which the packages take for granted and none of them brings (hier(7) of Debian).
_MERGED = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32")}


@contextmanager
def trees(
    packages: Sequence[Package], file_of: Callable[[Package], Path]
) -> Iterator[Callable[[Dropin], Tree]]:
    """A function that gives the tree a drop-in is taken from: its packages', or the build host's.

    *file_of* gives a package's verified `.deb`. The trees are gone after the `with` block. Raises
    SourceError for a package that cannot be unpacked.
    """
    known = {package.name: package for package in packages}
    made: dict[tuple[str, ...], Tree] = {}
    with tempfile.TemporaryDirectory(prefix="nifty-packages-") as name:

        def tree_of(dropin: Dropin) -> Tree:
            key = dropin.packages
            if key not in made:
                folder = Path(name, str(len(made)))
                chosen = [known[one] for one in key]
                made[key] = unpacked(chosen, file_of, folder) if key else Tree(root=LibraryRoot())
            return made[key]

        yield tree_of


def unpacked(packages: Sequence[Package], file_of: Callable[[Package], Path], folder: Path) -> Tree:
    """*packages* unpacked into *folder*, which is made; an earlier one's file stands."""
    folder.mkdir()
    for link, target in _MERGED.items():
        beneath(folder, target).mkdir(parents=True, exist_ok=True)
        beneath(folder, link).symlink_to(target)
    owners: dict[str, Owner] = {}
    for package in packages:
        owner = Owner(name=package.name, version=package.version, licence=package.licence)
        for entry in deb_tree(file_of(package)):
            path = settled(entry.path, _MERGED)
            place = beneath(folder, path)
            if path in _MERGED or f"/{path}" in owners:
                continue
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                match entry:
                    case Directory():
                        place.mkdir(exist_ok=True)
                        continue
                    case Symlink():
                        place.symlink_to(entry.target)
                    case File():
                        place.write_bytes(entry.content)
                        place.chmod(0o755 if entry.mode & 0o111 else 0o644)
            except OSError as error:
                raise SourceError(f"{package.name}: /{path}: {error.strerror}") from error
            owners[f"/{path}"] = owner
    return Tree(root=LibraryRoot(path=folder), packages=owners)
