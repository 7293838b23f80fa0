"""A small image as an OCI index has it, for any architecture."""

from __future__ import annotations

import hashlib

from pipeline.image import archive
from pipeline.release.oci import Image
from tests.support.host_image import make_image


def tar_of(architecture: str, *, filling: int = 0) -> bytes:
    """What that image's archive unpacks to: the same on every machine."""
    return b"".join([architecture.encode().ljust(512, b"."), noise(filling), bytes(1024)])


def oci_image(architecture: str = "x86_64", *, version: str = "2026.11", filling: int = 0) -> Image:
    """A small image for *architecture*, whose archive holds *filling* bytes of noise."""
    made = make_image(version=version).manifest
    needs = made.needs.model_copy(update={"architecture": architecture})
    described = made.model_copy(update={"needs": needs, "epoch": 1795219200})
    packed = archive.write_zstd(tar_of(architecture, filling=filling))
    return Image(archive=packed, manifest=described)


def noise(size: int) -> bytes:
    """*size* bytes that no compressor makes smaller, the same each time."""
    blocks = (hashlib.sha256(b"%d" % number).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]
