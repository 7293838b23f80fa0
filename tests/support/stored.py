"""A signed release in a small registry: an index, its layers, and what refers to it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.image import archive, manifest
from pipeline.net.registry import Registry
from pipeline.release import documents, names, oci, referrers, registry
from pipeline.trust import sums
from tests.support import signers
from tests.support.oci_image import oci_image
from tests.support.published import stem
from tests.support.registry import FAST

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.net.reference import Reference
    from tests.support.registry import Fake

MACHINE = os.uname().machine
OTHER = next(one for one in oci.PLATFORMS if one != MACHINE)
SIGNER = signers.signer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What was pushed: the index, and this machine's archive."""

    index: oci.Index
    image: oci.Image
    about: tuple[referrers.Referrer, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.image.archive).hexdigest()

    @property
    def entry(self) -> oci.Entry:
        """The manifest in the index that has the archive."""
        return next(
            one for one in self.index.entries if one.layer.digest == f"sha256:{self.sha256}"
        )


def release(
    version: str = "2026.11", signer: signers.Signer | None = SIGNER, *, swapped: bool = False
) -> Release:
    """Such a release of two architectures; *swapped*: its sums call each by the other's name."""
    filling = 1000 + sum(version.encode())  # another version has other bytes
    images = [oci_image(word, version=version, filling=filling) for word in (MACHINE, OTHER)]
    index = oci.index(images)
    words = [OTHER, MACHINE] if swapped else [MACHINE, OTHER]
    content = sums.text(
        {
            names.name("small", version, word, "tar.zst"): hashlib.sha256(one.archive).hexdigest()
            for word, one in zip(words, images, strict=True)
        }
    )
    about = {sums.NAME: content}
    if signer is not None:
        about |= {sums.SIGNATURE: signer.sign(content), names.KEYRING: signer.certificate}
    return Release(index=index, image=images[0], about=referrers.of_documents(index, about))


def published(folder: Path, version: str = "1") -> Release:
    """The release in *folder*, of one version for this machine, as `doit push` has it."""
    packed = (folder / f"{stem(version)}.tar.zst").read_bytes()
    inside = manifest.read(archive.read(packed), name="published")
    image = oci.Image(archive=packed, manifest=inside)
    index = oci.index([image])
    about = referrers.of_documents(index, documents.of_release(folder, [image]))
    return Release(index=index, image=image, about=about)


def push(made: Release, to: Reference, *tags: str) -> None:
    """Have *made* in a registry, below *tags*."""
    with Registry(to, transport=FAST, writes=True) as opened:
        registry.push(opened, made.index, made.about, tags, overwrite=True)


def image_url(fake: Fake, behind: str = ":2026.11") -> str:
    """What image= says of the small registry."""
    return f"oci://127.0.0.1:{fake.port}/a/b{behind}"
