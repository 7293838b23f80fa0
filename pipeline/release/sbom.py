"""The bill of materials of an image: CycloneDX 1.6 as JSON.

What is in the image, what is linked into each program, from which source, with which patches, made
by which compiler. A function of manifest and recipes: nothing of the machine or the moment is in
it. https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import (
    Component,
    ComponentType,
    Diff,
    Patch,
    PatchClassification,
    Pedigree,
)
from cyclonedx.model.issue import IssueClassification, IssueType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from pipeline.builder.recipes.component import DebianBinary, Https
from pipeline.release import identifiers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pipeline.builder.recipes import component, image
    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.image.manifest import (
        ComponentRecord,
        DropinRecord,
        IncludeRecord,
        Manifest,
        PackageRecord,
        PatchRecord,
    )


def sbom(manifest: Manifest, recipes: Recipes, *, digest: str, tar_sha256: str) -> bytes:
    """The document of the image that *manifest* describes: UTF-8, the same bytes each time.

    *recipes* are those it was built from; of one that is not there the source's address is left
    out. *digest* is the image's, *tar_sha256* that of its archive as plain tar.
    """
    image = Component(
        type=ComponentType.CONTAINER,
        name=manifest.name,
        version=manifest.version,
        bom_ref=f"image:{manifest.name}",
        purl=PackageURL.from_string(identifiers.purl(manifest.name, manifest.version)),
        hashes=[_sha256(tar_sha256)],
        properties=[
            Property(name="nifty:architecture", value=manifest.needs.architecture),
            Property(name="nifty:digest", value=digest),
        ],
    )
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"nifty:{digest}"),
        metadata=BomMetaData(
            component=image,
            timestamp=datetime.fromtimestamp(manifest.epoch, UTC),
            tools=ToolRepository(components=_tools(manifest.components)),
        ),
        components=[
            *(_component(item, recipes.components.get(item.name)) for item in manifest.components),
            *(_dropin(item, _packages(recipes, manifest.name)) for item in manifest.dropins),
        ],
    )
    bom.register_dependency(image, bom.components)
    for component in bom.components:
        bom.register_dependency(component, component.components)
    # the library's own order, but one line for each value, as the other documents have
    table = json.loads(JsonV1Dot6(bom).output_as_string())
    return (json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _tools(components: Iterable[ComponentRecord]) -> Iterator[Component]:
    """The wheels that made the programs."""
    for name, version in sorted({tool for item in components for tool in item.tools}):
        yield Component(
            type=ComponentType.APPLICATION,
            name=name,
            version=version,
            bom_ref=f"tool:{name}",
            purl=PackageURL("pypi", None, name, version),
        )


def _component(record: ComponentRecord, known: component.Component | None) -> Component:
    source = known.source if known and known.source.sha256 == record.source_sha256 else None
    url = _url(known) if known and source else None
    qualifiers = {"checksum": f"sha256:{record.source_sha256}"}
    if url:
        qualifiers["download_url"] = url
    references = [ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(record.homepage))]
    if url:
        references.append(
            ExternalReference(
                type=ExternalReferenceType.SOURCE_DISTRIBUTION,
                url=XsUri(url),
                hashes=[_sha256(record.source_sha256)],
            )
        )
    return Component(
        type=ComponentType.APPLICATION,
        name=record.name,
        version=record.version,
        bom_ref=record.name,
        licenses=[LicenseExpression(record.licence)],
        hashes=[_sha256(record.sha256)],
        purl=PackageURL.from_string(identifiers.purl(record.name, record.version, **qualifiers)),
        cpe=record.cpe and identifiers.cpe(record.cpe, record.version),
        external_references=references,
        pedigree=Pedigree(patches=map(_patch, record.patches)) if record.patches else None,
        components=[_include(record, item) for item in record.includes],
        properties=[Property(name="nifty:path", value=f"/{record.path}")],
    )


def _url(component: component.Component) -> str | None:
    return next((place.url for place in component.location if isinstance(place, Https)), None)


def _patch(record: PatchRecord) -> Patch:
    return Patch(
        type=PatchClassification.BACKPORT if record.cves else PatchClassification.UNOFFICIAL,
        diff=Diff(url=XsUri(record.file)),
        resolves=[IssueType(type=IssueClassification.SECURITY, id=cve) for cve in record.cves],
    )


def _include(record: ComponentRecord, item: IncludeRecord) -> Component:
    return Component(
        type=ComponentType.LIBRARY,
        name=item.name,
        version=item.version,
        bom_ref=f"{record.name}/{item.name}",
        licenses=[LicenseExpression(item.licence)],
        purl=PackageURL.from_string(identifiers.purl(item.name, item.version)),
        cpe=item.cpe and identifiers.cpe(item.cpe, item.version),
    )


def _packages(recipes: Recipes, image: str) -> Mapping[tuple[str, str], image.Package]:
    """The packages that the recipe of *image* pins, by name and version."""
    known = recipes.images.get(image)
    return {(item.name, item.version): item for item in known.package} if known else {}


def _dropin(record: DropinRecord, known: Mapping[tuple[str, str], image.Package]) -> Component:
    """A program that was taken as it is, and the packages its files are of."""
    return Component(
        type=ComponentType.APPLICATION,
        name=record.target.rpartition("/")[2],
        bom_ref=f"dropin:{record.target}",
        properties=[
            Property(name="nifty:libraries", value=record.libraries),
            Property(name="nifty:path", value=f"/{record.target}"),
        ],
        components=[
            _package(record, item, known.get((item.name, item.version))) for item in record.packages
        ],
    )


def _package(record: DropinRecord, item: PackageRecord, known: image.Package | None) -> Component:
    """What is not of a pinned package is of the build host's, whose distribution is not told."""
    place = (
        next((at for at in known.location if isinstance(at, DebianBinary)), None) if known else None
    )
    licences: list[DisjunctiveLicense | LicenseExpression] = []
    if known:
        licences.append(LicenseExpression(known.licence))
    elif item.licence:
        licences.append(DisjunctiveLicense(name=item.licence))
    arch = {"arch": place.architecture} if place else None
    return Component(
        type=ComponentType.LIBRARY,
        name=item.name,
        version=item.version,
        bom_ref=f"dropin:{record.target}/{item.name}",
        licenses=licences,
        purl=PackageURL("deb", "debian", item.name, item.version, arch) if place else None,
    )
