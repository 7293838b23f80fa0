"""What a release holds of an image that was built: archives, and the documents that go with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import ProblemsError
from pipeline.image import archive
from pipeline.image.manifest import NOTICE
from pipeline.image.rootfs import File
from pipeline.release import envelope, incus, names, provenance, vex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.sources.store import Store
    from pipeline.image.manifest import Manifest
    from pipeline.release.provenance import Builder

    # Of all versioned files of a release, which are more or others by it.
    Addition = Callable[[dict[str, bytes]], dict[str, bytes]]


class ContentsError(ProblemsError):
    """Images and documents that cannot be one release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image as the build left it: *manifest*, *digest*, its tar's sha256, its three files."""

    manifest: Manifest
    digest: str
    tar_sha256: str
    contents: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file of a release; *is_fixed*: one version of it has the same bytes for ever."""

    name: str
    content: bytes
    is_fixed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What documents are made from: *recipes*, the *store* of sources, this program's folder.

    *key* signs provenance; without, there is none.
    """

    recipes: Recipes
    store: Store
    project: Path
    builder: Builder
    key: Ed25519PrivateKey | None


def images(built: Iterable[Built]) -> Iterator[Item]:
    """The archives and manifests of *built*, and what Incus wants with them."""
    for one in built:
        for ending, content in one.contents.items():
            yield Item(name=_named(one, ending), content=content)
        half = incus.metadata(one.manifest)
        yield Item(name=_named(one, incus.ENDING), content=half, is_fixed=False)


def bill(built: Iterable[Built], recipes: Recipes) -> Iterator[Item]:
    """The bill of materials of each of *built*. Raises OriginError."""
    from pipeline.release import sbom  # noqa: PLC0415 (slow to import)

    for one in built:
        content = sbom.sbom(one.manifest, recipes, digest=one.digest, tar_sha256=one.tar_sha256)
        yield Item(name=_named(one, "cdx.json"), content=content, is_fixed=False)


def exchange(built: Iterable[Built], recipes: Recipes) -> Iterator[Item]:
    """What is known of vulnerabilities of each of *built*. Raises OriginError, AuditError."""
    for one in built:
        content = vex.vex(one.manifest, recipes)
        yield Item(name=_named(one, "vex.json"), content=content, is_fixed=False)


# What goes with each image: whoever has something to add, adds a function here.
DOCUMENTS = (bill, exchange)


def items(built: Sequence[Built], recipes: Recipes) -> list[Item]:
    """Every file that *built*, made of *recipes*, gives a release."""
    return [
        *images(built),
        *(item for document in DOCUMENTS for item in document(built, recipes)),
    ]


def of_all(built: Sequence[Built], shop: Workshop) -> Addition:
    """What is made of a version as a whole, whatever architectures: source, and provenance.

    *built* are all of its images. Raises OriginError, SourceError, ContentsError.
    """

    def add(contents: dict[str, bytes]) -> dict[str, bytes]:
        _complete(built, contents)
        first = built[0].manifest
        stem = f"{first.name}_{first.version}"
        archived = f"{stem}_source.tar.zst"
        made = {**contents, archived: _source(built, shop, contents.get(archived, b""))}
        name = f"{stem}.{names.PROVENANCE}"
        before = made.pop(name, None)
        if shop.key is None:
            return {name: content for name, content in made.items() if not _is_provenance(name)}
        subjects = digests(made, first.name, first.version)
        manifests = [one.manifest for one in built]
        told = provenance.statement(manifests, shop.recipes, subjects, shop.builder)
        made[name] = _enclosed(told, before, shop.key)
        return {name: _signed(name, content, shop.key) for name, content in made.items()}

    return add


def digests(contents: Mapping[str, bytes], image: str, version: str) -> dict[str, str]:
    """The sha256 of every file of that version but its provenance, which is about them."""
    return {
        name: hashlib.sha256(content).hexdigest()
        for name, content in contents.items()
        if (named := names.parse(name)) and (named.image, named.version) == (image, version)
        if named.ending != names.PROVENANCE
    }


def _complete(built: Sequence[Built], contents: Mapping[str, bytes]) -> None:
    """Nobody tells how something was built that they have not built."""
    first = built[0].manifest
    here = {one.manifest.needs.architecture for one in built}
    there = {
        named.architecture
        for name in contents
        if (named := names.parse(name)) and named.architecture
        if (named.image, named.version) == (first.name, first.version)
    }
    if missing := sorted(there - here):
        raise ContentsError(
            f"{first.name} {first.version} is published for more architectures than are built:",
            [f"{one}: not in artifacts/" for one in missing],
            hint=f"doit build image={first.name} arch={missing[0]}, and publish again",
        )


def _source(built: Sequence[Built], shop: Workshop, before: bytes) -> bytes:
    from pipeline.release import source  # noqa: PLC0415 (the compiler's side of the house)

    first = min(built, key=lambda one: one.manifest.needs.architecture)
    notice = archive.read(first.contents["tar.zst"]).find(NOTICE)
    return source.source(
        first.manifest,
        shop.recipes,
        project=shop.project,
        store=shop.store,
        notice=notice.content if isinstance(notice, File) else b"",
        digests={one.manifest.needs.architecture: one.digest for one in built},
        before=before,
    )


def _enclosed(statement: bytes, before: bytes | None, key: Ed25519PrivateKey) -> bytes:
    """*statement* in an envelope; what another builder has stated *before*, if the same, stays."""
    if before is not None:
        there = envelope.read(before)
        if provenance.is_same_but_builder(there.payload, statement):
            return before
    return envelope.envelope(statement, [key])


def _signed(name: str, content: bytes, key: Ed25519PrivateKey) -> bytes:
    """The provenance of every version is signed by the key of today, as all sums are."""
    if not _is_provenance(name):
        return content
    there = envelope.read(content)
    if there.signed_by([key.public_key()]):
        return content
    return envelope.envelope(there.payload, [key], dict(there.signatures))


def _is_provenance(name: str) -> bool:
    named = names.parse(name)
    return named is not None and named.ending == names.PROVENANCE


def _named(one: Built, ending: str) -> str:
    about = one.manifest
    return names.name(about.name, about.version, about.needs.architecture, ending)
