"""An OCI image layout, and the images of a release as one (image-spec 1.1, image-layout.md).

In a release each version of an image is one index under its own name, with every architecture that
is there: `skopeo copy oci:release/oci:nifty_2026.11 …`. One that was published stays as it is while
its archives do.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.image import archive, manifest
from pipeline.paths import beneath
from pipeline.release import names, oci

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.release.oci import Index
    from pipeline.release.referrers import Referrer

    Described = dict[str, Any]

FOLDER = "oci"
REF_NAME = f"{oci.ANNOTATIONS}ref.name"
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
    return {f"{FOLDER}/{path}": content for path, content in sorted(_files(listed, blobs).items())}


def of_index(made: Index, about: Iterable[Referrer] = (), *, tag: str) -> dict[str, bytes]:
    """Every file of the layout of *made*, by its path below the layout's directory, the index last.

    `skopeo copy --all oci:DIRECTORY:TAG` reads it, and docker's `oci-import`. What is *about* the
    index is listed beside it.
    """
    described, kept = _tagged(made, tag)
    listed = [described]
    for one in about:
        kept |= {blob.digest: blob.content for blob in (*one.blobs, one.manifest)}
        listed.append(dict(one.descriptor))
    return _files(listed, kept)


def write(folder: Path, content: Mapping[str, bytes]) -> None:
    """Have *folder* hold the files of `of_index`; its index.json is written last.

    Each is whole or not there. Blobs of an earlier index stay. Raises OSError.
    """
    for name, data in content.items():
        path = beneath(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not files.holds(path, data):
            files.put_cached(path, data)


def _files(listed: Sequence[Described], blobs: Mapping[str, bytes]) -> dict[str, bytes]:
    top = oci.Blob.of_table(
        oci.INDEX, {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listed}
    )
    return {
        **{_path(digest): blobs[digest] for digest in sorted(blobs)},
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": top.content,
    }


def _tagged(made: Index, tag: str) -> tuple[Described, dict[str, bytes]]:
    """How a layout lists *made*, and all of its blobs."""
    every = (*made.blobs, made.blob, *(entry.manifest for entry in made.entries))
    described = made.blob.descriptor(annotations={REF_NAME: tag})
    return described, {blob.digest: blob.content for blob in every}


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
    return _tagged(made, tag)


def _kept(
    tag: str, archives: Mapping[str, bytes], before: Mapping[str, bytes]
) -> tuple[Described, dict[str, bytes]] | None:
    """What was published as *tag*, if it has just these *archives*."""
    try:
        listed = json.loads(before[f"{FOLDER}/index.json"])["manifests"]
        described = next(one for one in listed if one["annotations"][REF_NAME] == tag)
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
