"""An image on its way to a registry, so that a broken push is never seen.

Everything goes in by its digest, what is named before what names it, and the tags last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.net.registry import Registry, descriptors
from pipeline.net.session import RegistryError
from pipeline.release import referrers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.progress import Step
    from pipeline.release.oci import Blob, Index
    from pipeline.release.referrers import Referrer


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """How many blobs and manifests were sent, how many were there, and the tags that changed."""

    sent: int
    there: int
    moved: tuple[str, ...]


def size(made: Index, about: Iterable[Referrer]) -> int:
    """Bytes of all blobs that `push` has to have there."""
    return sum(len(blob.content) for blob in _blobs(made, about))


def push(
    registry: Registry,
    made: Index,
    about: Sequence[Referrer],
    tags: Sequence[str],
    *,
    overwrite: bool = False,
    step: Step | None = None,
) -> Pushed:
    """Have *made* and what is *about* it in *registry*, and *tags* name it.

    What is there is not sent again, so a push that was broken off goes on where it was. *step* is
    told bytes. The tag of the image's own version is not moved from other bytes without
    *overwrite*. Raises RegistryError, also if the registry does not give back what it was sent.
    """
    before = {tag: registry.get_manifest(tag) for tag in tags}
    if not overwrite:
        _refuse(registry, before.get(made.version), made)
    sent = there = 0
    for blob in _blobs(made, about):
        is_new = registry.put_blob(blob.digest, blob.content)
        sent, there = sent + is_new, there + (not is_new)
        if step is not None:
            step(len(blob.content))
    manifests = [*(entry.manifest for entry in made.entries), made.blob]
    for manifest in (*manifests, *(one.manifest for one in about)):
        is_new = registry.put_manifest(manifest.content, manifest.media_type, manifest.digest)
        sent, there = sent + is_new, there + (not is_new)
    if about:
        _list(registry, made, about)
    moved = [
        tag for tag in tags if registry.put_manifest(made.blob.content, made.blob.media_type, tag)
    ]
    for tag in tags:
        if registry.get_manifest(tag) != made.blob.content:
            raise RegistryError(f"{registry.title}:{tag}: does not give back what was sent")
    return Pushed(sent=sent, there=there, moved=tuple(moved))


def _blobs(made: Index, about: Iterable[Referrer]) -> list[Blob]:
    every = [*made.blobs, *(blob for one in about for blob in one.blobs)]
    return list({blob.digest: blob for blob in every}.values())


def _refuse(registry: Registry, before: bytes | None, made: Index) -> None:
    if before is not None and before != made.blob.content:
        raise RegistryError(
            f"{registry.title}:{made.version} is there with other bytes",
            hint="a version is published once: tag=..., or a new version in the recipe; "
            "overwrite=yes moves the tag",
        )


def _list(registry: Registry, made: Index, about: Sequence[Referrer]) -> None:
    """Have the index's referrers listed: by the registry, else below the fallback tag.

    The latter is read, changed and written: of two pushes at the same time one may be forgotten.
    """
    digest = made.blob.digest
    if registry.referrers(digest) is not None:
        return
    tag = referrers.fallback_tag(digest)
    listed = descriptors(registry.get_manifest(tag) or b"")
    blob = referrers.fallback_index(listed, about)
    registry.put_manifest(blob.content, blob.media_type, tag)
