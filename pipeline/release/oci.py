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

from pipeline.errors import NiftyError
from pipeline.image.archive import DEFAULT_LIMITS
from pipeline.image.compressed import CompressedError, pieces

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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

ANNOTATIONS = "org.opencontainers.image."
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

    @classmethod
    def of_table(cls, media_type: str, table: Mapping[str, Any]) -> Blob:
        """That of *table* as JSON, the same bytes each time."""
        text = json.dumps(table, sort_keys=True, separators=(",", ":"))
        return cls.of(media_type, text.encode())

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
        blob=Blob.of_table(INDEX, table),
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
    return Blob.of_table(
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
    return Blob.of_table(
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
        f"{ANNOTATIONS}title": manifest.title,
        f"{ANNOTATIONS}version": manifest.version,
        f"{ANNOTATIONS}created": _created(manifest),
    }
    own = {one.licence for one in manifest.components}
    linked = {part.licence for one in manifest.components for part in one.includes}
    if (own or linked) and not manifest.dropins:
        terms = {term for licence in own | linked for term in _terms(licence)}
        said[f"{ANNOTATIONS}licenses"] = " AND ".join(
            sorted(terms, key=lambda term: term.strip("("))
        )
    return said


def _terms(licence: str) -> list[str]:
    """What an SPDX expression joins by AND, so that none of it is told twice."""
    if "(" in licence or " OR " in licence:
        return [f"({licence})" if " OR " in licence else licence]
    return licence.split(" AND ")


def _created(manifest: Manifest) -> str:
    return datetime.fromtimestamp(manifest.epoch, UTC).strftime(_EPOCH_FORMAT)
