"""What is kept of an image in PREFIX/.nifty/images: the archive as given, and its manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError
from pipeline.image import archive
from pipeline.image import manifest as manifests
from pipeline.program import to_type

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.host.state.layout import Layout
    from pipeline.image.manifest import Manifest
    from pipeline.image.rootfs import Rootfs

# Bytes of a manifest; ours have 60 thousand.
_MOST = 1 << 24


class ImageError(NiftyError):
    """An image that cannot be deployed here."""


def archive_file(layout: Layout, digest: str) -> Path:
    """Where the archive of an image lies."""
    return layout.images / f"{digest}.image"


def manifest_file(layout: Layout, digest: str) -> Path:
    """Where the manifest of an image lies."""
    return layout.images / f"{digest}.json"


def lost(digest: str, why: str) -> ImageError:
    """The error of an image that is not here any more as it was stored."""
    return ImageError(
        f"the image {digest[:12]} on this host is lost: {why}",
        hint=to_type("deploy or upgrade with image= and the same archive brings it back"),
    )


def opened(layout: Layout, digest: str) -> tuple[Rootfs, bytes]:
    """The root filesystem in a kept archive, and the archive.

    Raises ImageError if it is not there, damaged, or another one.
    """
    path = archive_file(layout, digest)
    try:
        packed = files.read(path, limit=archive.DEFAULT_LIMITS.max_bytes)
        rootfs = archive.read(packed)
    except OSError as error:
        raise lost(digest, f"{path}: {error.strerror}") from error
    except archive.ArchiveError as error:
        raise lost(digest, f"{path}: {error.message}") from error
    if rootfs.digest != digest:
        raise ImageError(f"{path}: holds another image, {rootfs.digest}")
    return rootfs, packed


def manifest_of(layout: Layout, digest: str) -> Manifest:
    """The manifest beside a kept archive. Raises OSError, or ValueError for what is none."""
    text = files.read(manifest_file(layout, digest), limit=_MOST)
    return manifests.Manifest.model_validate_json(text)


def described(layout: Layout, digest: str) -> Manifest:
    """The manifest of a kept image, if need be from its archive.

    Raises ImageError if neither can be read.
    """
    try:
        return manifest_of(layout, digest)
    except (OSError, ValueError):
        rootfs, _packed = opened(layout, digest)
    try:
        return manifests.read(rootfs, name=str(archive_file(layout, digest)))
    except NiftyError as error:
        raise lost(digest, error.message) from error
