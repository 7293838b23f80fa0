"""Documents about an index in a registry: SBOM, VEX, provenance, source, and who signed it all.

Each is a manifest whose subject is the index (image-spec 1.1, manifest.md; distribution-spec 1.1,
"Listing Referrers").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.release.oci import ANNOTATIONS, EMPTY, INDEX, MANIFEST, Blob, OciError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.release.oci import Index

# What a release's file is to who looks for it by type, by the end of its name: the artifact's type
# and the file's own.
_DOCUMENTS = (
    (".cdx.json", "application/vnd.cyclonedx+json", "application/vnd.cyclonedx+json"),
    (".vex.json", "application/vnd.openvex+json", "application/vnd.openvex+json"),
    (".intoto.json", "application/vnd.in-toto+json", "application/vnd.dsse.envelope.v1+json"),
    ("_source.tar.zst", "application/vnd.nifty.source.v1", "application/zstd"),
)
# Of these neither is of use alone: they are one artifact.
SUMS = "application/vnd.nifty.sums.v1"
_TOGETHER = {
    "SHA256SUMS": "text/plain",
    "SHA256SUMS.gpg": "application/pgp-signature",
    "nifty-keyring.pgp": "application/pgp-keys",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrer:
    """Documents about an index: a manifest with a subject, and the files in it as its layers."""

    manifest: Blob
    blobs: tuple[Blob, ...]
    descriptor: Mapping[str, Any]


def referrer(to: Index, kind: str, documents: Iterable[tuple[str, str, bytes]]) -> Referrer:
    """*documents* (file name, media type, content) as one artifact of type *kind* about *to*.

    An artifact as manifest.md, "Guidelines for Artifact Usage", wants it: an empty configuration,
    the files as layers, the index as subject.
    """
    empty = Blob.of(EMPTY, b"{}")
    layers = [(name, Blob.of(media, content)) for name, media, content in sorted(documents)]
    if not layers:
        raise OciError(f"no document to refer to the image: {kind}")
    annotations = {f"{ANNOTATIONS}created": to.created}
    manifest = Blob.of_table(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": empty.descriptor(),
            "layers": [
                blob.descriptor(annotations={f"{ANNOTATIONS}title": name}) for name, blob in layers
            ],
            "subject": to.blob.descriptor(),
            "annotations": annotations,
        },
    )
    return Referrer(
        manifest=manifest,
        blobs=(empty, *(blob for _name, blob in layers)),
        descriptor=manifest.descriptor(artifactType=kind, annotations=annotations),
    )


def of_documents(to: Index, documents: Mapping[str, bytes]) -> tuple[Referrer, ...]:
    """An artifact for each of *documents*, file names and contents, that is known by its name.

    Those are SBOM, VEX, provenance and source, and checksums with their signature and keyring; of
    others nothing is made.
    """
    found = [
        (kind, name, [(name, media, content)])
        for name, content in documents.items()
        for ending, kind, media in _DOCUMENTS
        if name.endswith(ending)
    ]
    if "SHA256SUMS" in documents:
        several = [
            (name, media, documents[name]) for name, media in _TOGETHER.items() if name in documents
        ]
        found.append((SUMS, "", several))
    return tuple(referrer(to, kind, several) for kind, _name, several in sorted(found))


def fallback_tag(digest: str) -> str:
    """The tag below which referrers of *digest* are listed where a registry lists none itself.

    distribution-spec 1.1, "Referrers Tag Schema".
    """
    return digest.replace(":", "-", 1)


def fallback_index(present: Iterable[Mapping[str, Any]], more: Iterable[Referrer]) -> Blob:
    """What lies below that tag: the descriptors that were *present*, and those of *more*."""
    listed = {one["digest"]: one for one in present}
    for one in more:
        listed.setdefault(one.descriptor["digest"], one.descriptor)
    return Blob.of_table(
        INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed.values()]}
    )
