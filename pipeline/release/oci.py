"""An image as an OCI index, the same bytes each time: what registries hold and engines run.

Each architecture has two manifests with one configuration: first its layer as gzip, which every
engine takes, then as zstd, the published `.tar.zst` itself, which newer ones choose by the
annotation. Formats: image-spec 1.1 (manifest.md, image-index.md, config.md, image-layout.md).
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.errors import NiftyError
from pipeline.image.archive import DEFAULT_LIMITS
from pipeline.image.compressed import CompressedError, pieces
from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pipeline.image.manifest import Manifest

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
EMPTY = "application/vnd.oci.empty.v1+json"
# By this engines that know zstd choose its manifest among those of their platform
# (containers/image, internal/manifest/oci_index.go).
ZSTD_ANNOTATION = "io.github.containers.compression.zstd"

# As Go calls them: GOARCH, of which image-spec's platforms are made.
PLATFORMS: Mapping[str, Mapping[str, str]] = {
    "x86_64": {"architecture": "amd64", "os": "linux"},
    "aarch64": {"architecture": "arm64", "os": "linux"},
    "riscv64": {"architecture": "riscv64", "os": "linux"},
}

_NAMES = "org.opencontainers.image."
_EPOCH_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class OciError(NiftyError):
    """Images or documents that cannot be one index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes with their media type and name: `sha256:` and 64 hexadecimal digits."""

    media_type: str
    content: bytes = field(repr=False)
    digest: str

    @classmethod
    def of(cls, media_type: str, content: bytes) -> Blob:
        """The blob of *content*, digested."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return cls(media_type=media_type, content=content, digest=digest)

    def descriptor(self, **more: Any) -> dict[str, Any]:
        """What others say of it (descriptor.md); *more* are further properties."""
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.content),
            **more,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One architecture's: the published `.tar.zst`, whole, and what its manifest says.

    *engines*, if it is there, is its gzip layer: for an index that somebody else has packed.
    """

    archive: bytes = field(repr=False)
    manifest: Manifest
    engines: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One manifest of an index: its platform's name here, and its layer."""

    architecture: str
    manifest: Blob
    layer: Blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index and everything that it names; *created* is the images' own time stamp (RFC 3339)."""

    blob: Blob
    version: str
    created: str
    entries: tuple[Entry, ...]
    configs: tuple[Blob, ...]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Configurations and layers: what must be there before a manifest is."""
        return (*self.configs, *(entry.layer for entry in self.entries))


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrer:
    """Documents about an index: a manifest with a subject, and the files in it as its layers."""

    manifest: Blob
    blobs: tuple[Blob, ...]
    descriptor: Mapping[str, Any]


def index(images: Sequence[Image]) -> Index:
    """The index of *images*, one for each architecture, in whatever order they come.

    Raises OciError if there is none, an architecture is there twice or has no name here, they are
    not of one name, version and time, an archive cannot be unpacked, or its gzip layer is another.
    """
    _refuse(images)
    ordered = sorted(images, key=lambda one: PLATFORMS[_architecture(one)]["architecture"])
    first = ordered[0].manifest
    entries: list[Entry] = []
    configs: list[Blob] = []
    described: list[dict[str, Any]] = []
    for image in ordered:
        tar = _unpacked(image.archive)
        config = _config(image.manifest, f"sha256:{hashlib.sha256(tar).hexdigest()}")
        configs.append(config)
        platform = PLATFORMS[_architecture(image)]
        for layer, more in (
            (Blob.of(GZIP, _for_engines(image, tar)), {}),
            (Blob.of(ZSTD, image.archive), {"annotations": {ZSTD_ANNOTATION: "true"}}),
        ):
            made = _manifest(image.manifest, config, layer)
            entries.append(Entry(architecture=_architecture(image), manifest=made, layer=layer))
            described.append(made.descriptor(platform=platform, **more))
    table = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": described,
        "annotations": _annotations(first),
    }
    return Index(
        blob=_json(INDEX, table),
        version=first.version,
        created=_created(first),
        entries=tuple(entries),
        configs=tuple(configs),
    )


def gzip(tar: bytes) -> bytes:
    """*tar* as one gzip member without time or name (RFC 1952).

    Its bytes are those of the zlib that Python is linked with; another implementation, such as
    zlib-ng, packs otherwise, and the gzip manifest's digest is another then.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    # magic, deflate, no flags, no time, best compression, unknown system
    head = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    tail = struct.pack("<LL", zlib.crc32(tar), len(tar) & 0xFFFFFFFF)
    return b"".join((head, packer.compress(tar), packer.flush(), tail))


def referrer(to: Index, kind: str, documents: Iterable[tuple[str, str, bytes]]) -> Referrer:
    """*documents* (file name, media type, content) as one artifact of type *kind* about *to*.

    An artifact as manifest.md, "Guidelines for Artifact Usage", wants it: an empty configuration,
    the files as layers, the index as subject.
    """
    empty = Blob.of(EMPTY, b"{}")
    layers = [(name, Blob.of(media, content)) for name, media, content in sorted(documents)]
    if not layers:
        raise OciError(f"no document to refer to the image: {kind}")
    annotations = {f"{_NAMES}created": to.created}
    manifest = _json(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": empty.descriptor(),
            "layers": [
                blob.descriptor(annotations={f"{_NAMES}title": name}) for name, blob in layers
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


def referrers(to: Index, documents: Mapping[str, bytes]) -> tuple[Referrer, ...]:
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
    return _json(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed.values()]})


def layout(made: Index, about: Iterable[Referrer] = (), *, tag: str) -> dict[str, bytes]:
    """Every file of an OCI image layout, by its path below the layout's directory.

    `skopeo copy --all oci:DIRECTORY:TAG` reads it, and docker's `oci-import`. What is *about* the
    index is listed beside it.
    """
    kept = {blob.digest: blob for blob in (*made.blobs, made.blob)}
    kept |= {entry.manifest.digest: entry.manifest for entry in made.entries}
    listed = [made.blob.descriptor(annotations={f"{_NAMES}ref.name": tag})]
    for one in about:
        kept |= {blob.digest: blob for blob in (*one.blobs, one.manifest)}
        listed.append(dict(one.descriptor))
    top = _json(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})
    files = {f"blobs/{digest.replace(':', '/')}": kept[digest].content for digest in sorted(kept)}
    return {**files, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": top.content}


def write_layout(folder: Path, content: Mapping[str, bytes]) -> None:
    """Have *folder* hold the files of `layout`; its index.json is written last.

    Each is whole or not there. Blobs of an earlier index stay. Raises OSError.
    """
    for name, data in content.items():
        path = beneath(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not files.holds(path, data):
            files.put_cached(path, data)


def _architecture(image: Image) -> str:
    return image.manifest.needs.architecture


def _refuse(images: Sequence[Image]) -> None:
    if not images:
        raise OciError("no image to make an index of", hint="doit build")
    seen: set[str] = set()
    for image in images:
        architecture = _architecture(image)
        if architecture not in PLATFORMS:
            raise OciError(f"{architecture}: no platform of OCI is known for it")
        if architecture in seen:
            raise OciError(f"two images for {architecture}: an index has one")
        seen.add(architecture)
    said = {
        _architecture(image): f"{one.name} {one.version} of {_created(one)}"
        for image in images
        for one in [image.manifest]
    }
    if len(set(said.values())) > 1:
        told = ", ".join(f"{name}: {what}" for name, what in said.items())
        raise OciError(
            f"not of one release: {told}", hint="doit build arch=... for each, of one checkout"
        )


def _for_engines(image: Image, tar: bytes) -> bytes:
    if image.engines and _unpacked(image.engines) != tar:
        raise OciError(f"the gzip layer for {_architecture(image)} is not the archive's content")
    return image.engines or gzip(tar)


def _unpacked(packed: bytes) -> bytes:
    sink = io.BytesIO()
    try:
        for piece in pieces(io.BytesIO(packed)):
            sink.write(piece)
            if sink.tell() > DEFAULT_LIMITS.max_bytes:
                raise OciError(f"more than {DEFAULT_LIMITS.max_bytes} bytes when unpacked: refused")
    except CompressedError as error:
        raise OciError(f"the image's archive: {error}", hint=error.hint) from None
    return sink.getvalue()


def _config(manifest: Manifest, diff_id: str) -> Blob:
    """How an engine runs it. Its own init powers off on SIGUSR2 (BusyBox, init/init.c)."""
    return _json(
        CONFIG,
        {
            "created": _created(manifest),
            **PLATFORMS[manifest.needs.architecture],
            "config": {
                "Cmd": ["/bin/sh"],
                "Env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"],
                "Labels": _annotations(manifest),
                "StopSignal": "SIGUSR2",
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": _created(manifest), "created_by": "doit build"}],
        },
    )


def _manifest(manifest: Manifest, config: Blob, layer: Blob) -> Blob:
    return _json(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "annotations": _annotations(manifest),
        },
    )


def _annotations(manifest: Manifest) -> dict[str, str]:
    """Annotations, and labels, of one meaning everywhere (annotations.md).

    Licences are left out where a drop-in's are: those are not told in SPDX's words.
    """
    said = {
        f"{_NAMES}title": manifest.title,
        f"{_NAMES}version": manifest.version,
        f"{_NAMES}created": _created(manifest),
    }
    own = {one.licence for one in manifest.components}
    linked = {part.licence for one in manifest.components for part in one.includes}
    if (own or linked) and not manifest.dropins:
        terms = {term for licence in own | linked for term in _terms(licence)}
        said[f"{_NAMES}licenses"] = " AND ".join(sorted(terms, key=lambda term: term.strip("(")))
    return said


def _terms(licence: str) -> list[str]:
    """What an SPDX expression joins by AND, so that none of it is told twice."""
    if "(" in licence or " OR " in licence:
        return [f"({licence})" if " OR " in licence else licence]
    return licence.split(" AND ")


def _created(manifest: Manifest) -> str:
    return datetime.fromtimestamp(manifest.epoch, UTC).strftime(_EPOCH_FORMAT)


def _json(media_type: str, table: Mapping[str, Any]) -> Blob:
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    return Blob.of(media_type, text.encode())
