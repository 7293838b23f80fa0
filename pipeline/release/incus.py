"""What Incus reads of a release: its half of each image, and a simplestreams index of all.

The names and rules are those of shared/simplestreams/products.go of Incus, which looks at nothing
else: a version's name begins with a date, an image is `incus.tar.xz` and `root.tar.xz`, and its
fingerprint the sha256 of both, one after the other. simplestreams knows no signature that Incus
would look at: https alone vouches for the server.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.image import archive
from pipeline.image.rootfs import File, Rootfs
from pipeline.release import names
from pipeline.release.oci import PLATFORMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.image.manifest import Manifest

ENDING, _ROOT = "incus.tar.xz", "tar.xz"
FOLDER = "streams/v1"
_IMAGES = f"{FOLDER}/images.json"


def metadata(about: Manifest) -> bytes:
    """A `.tar.xz` with metadata.yaml, as `incus image import` wants it with the archive."""
    properties = {
        "architecture": _word(about.needs.architecture),
        "description": f"{about.title} {about.version}",
        "os": about.name,
        "release": about.version,
        "serial": _serial(about.epoch, about.version),
        "variant": "default",
    }
    lines = [
        f"architecture: {json.dumps(about.needs.architecture)}",
        f"creation_date: {about.epoch}",
        "expiry_date: 0",
        "properties:",
        # every JSON text is one of YAML (YAML 1.2, 1.3)
        *(f"  {key}: {json.dumps(text)}" for key, text in properties.items()),
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    root = Rootfs.of([File(path="metadata.yaml", content=content)])
    return archive.write_xz(archive.write_tar(root, mtime=about.epoch))


def of_release(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The two files of the index, by their paths, of what *contents* has for Incus."""
    products: dict[str, Any] = {}
    for name, content in sorted(contents.items()):
        named = names.parse(name)
        if named is None or named.ending != ENDING:
            continue
        stem = name.removesuffix(f".{ENDING}")
        about = json.loads(contents[f"{stem}.json"])["manifest"]
        word = _word(named.architecture)
        product = products.setdefault(
            f"{named.image}:current:{word}:default",
            {
                "aliases": f"{named.image},{named.image}/current",
                "arch": word,
                "os": named.image,
                "release": "current",
                "release_title": "current",
                "variant": "default",
                "versions": {},
            },
        )
        items = _items(name, content, f"{stem}.{_ROOT}", contents[f"{stem}.{_ROOT}"])
        serial = _serial(about["epoch"], named.version)
        product["versions"][serial] = {"label": named.version, "items": items}
    if not products:
        return {}
    listed = {
        "datatype": "image-downloads",
        "format": "products:1.0",
        "path": _IMAGES,
        "products": sorted(products),
    }
    index = {"format": "index:1.0", "index": {"images": listed}}
    images = {
        "content_id": "images",
        "datatype": "image-downloads",
        "format": "products:1.0",
        "products": products,
    }
    return {f"{FOLDER}/index.json": _json(index), _IMAGES: _json(images)}


def _items(name: str, content: bytes, root_name: str, root: bytes) -> dict[str, Any]:
    both = hashlib.sha256(content + root).hexdigest()
    first = {**_item(name, content, ENDING), "combined_sha256": both}
    return {
        ENDING: {**first, "combined_rootxz_sha256": both},
        "root.tar.xz": _item(root_name, root, "root.tar.xz"),
    }


def _item(path: str, content: bytes, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"ftype": kind, "path": path, "sha256": digest, "size": len(content)}


def _word(architecture: str) -> str:
    """As Debian and Go call it, and Incus too."""
    return PLATFORMS[architecture]["architecture"]


def _serial(epoch: int, version: str) -> str:
    """The name of a version: its day first, of which Incus makes the time of creation."""
    return f"{datetime.fromtimestamp(epoch, UTC):%Y%m%d}_{version}"


def _json(table: Mapping[str, Any]) -> bytes:
    return (json.dumps(table, indent=1, sort_keys=True) + "\n").encode()
