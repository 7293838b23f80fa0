"""The images of a release as an OCI image layout: `skopeo copy oci:release/oci:nifty_2026.11 …`.

Each version of an image is one index under its own name, with every architecture that is there
(image-spec 1.1, image-layout.md). One that was published stays as it is while its archives do.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pipeline.image import archive, manifest
from pipeline.release import names, oci

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Described = dict[str, Any]

FOLDER = "oci"
_REF_NAME = "org.opencontainers.image.ref.name"
_ARCHIVE = "tar.zst"


def of_release(contents: Mapping[str, bytes], before: Mapping[str, bytes]) -> dict[str, bytes]:
    """Every file of the layout, by its path below the release, of the archives in *contents*.

    *before* are those of the layout that was there. Raises OciError, ArchiveError, ManifestError.
    """
    listed: list[Described] = []
    blobs: dict[str, bytes] = {}
    for tag, archives in sorted(_versions(contents).items()):
        found = _kept(tag, archives, before) or _made(tag, archives)
        listed.append(found[0])
        blobs |= found[1]
    if not listed:
        return {}
    table = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listed}
    made = {
        **{_path(digest): content for digest, content in blobs.items()},
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps(table, sort_keys=True, separators=(",", ":")).encode(),
    }
    return {f"{FOLDER}/{path}": content for path, content in sorted(made.items())}


def _versions(contents: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """The archives of each version, by their names; called as the files begin: image_version."""
    found: dict[str, dict[str, bytes]] = {}
    for name, content in contents.items():
        named = names.parse(name)
        if named and named.architecture and named.ending == _ARCHIVE:
            found.setdefault(f"{named.image}_{named.version}", {})[name] = content
    return found


def _made(tag: str, archives: Mapping[str, bytes]) -> tuple[Described, dict[str, bytes]]:
    made = oci.index(
        [
            oci.Image(archive=content, manifest=manifest.read(archive.read(content), name=name))
            for name, content in archives.items()
        ]
    )
    every = (*made.blobs, made.blob, *(entry.manifest for entry in made.entries))
    described = made.blob.descriptor(annotations={_REF_NAME: tag})
    return described, {blob.digest: blob.content for blob in every}


def _kept(
    tag: str, archives: Mapping[str, bytes], before: Mapping[str, bytes]
) -> tuple[Described, dict[str, bytes]] | None:
    """What was published as *tag*, if it has just these *archives*."""
    try:
        listed = json.loads(before[f"{FOLDER}/index.json"])["manifests"]
        described = next(one for one in listed if one["annotations"][_REF_NAME] == tag)
        blobs = dict(_reached(described["digest"], before))
    except (KeyError, StopIteration):
        return None
    wanted = {f"sha256:{hashlib.sha256(content).hexdigest()}" for content in archives.values()}
    layers = {
        layer["digest"]
        for content in blobs.values()
        if content[:1] == b"{"
        for layer in json.loads(content).get("layers", ())
        if layer["mediaType"] == oci.ZSTD
    }
    return (described, blobs) if layers == wanted else None


def _reached(digest: str, before: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The blob *digest* and all that it names. Raises KeyError for one that is not there."""
    content = before[f"{FOLDER}/{_path(digest)}"]
    yield digest, content
    if content[:1] == b"{":
        table = json.loads(content)
        inner = [*table.get("manifests", ()), *table.get("layers", ())]
        inner += [table["config"]] if "layers" in table else []
        for one in inner:
            yield from _reached(one["digest"], before)


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
