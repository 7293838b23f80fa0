"""Images whose files differ a little from those of the one that was built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipeline.image import archive, manifest
from pipeline.image.rootfs import Rootfs
from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from pipeline.image.rootfs import Entry

IMAGE = PROJECT / "artifacts" / f"nifty-{os.uname().machine}.tar.zst"


def built() -> Rootfs:
    """The image that `doit build` made."""
    return archive.read(IMAGE)


def altered(*changed: Entry) -> bytes:
    """The built image with *changed* in it, as a tar with its manifest inside."""
    rootfs = built()
    about = manifest.read(rootfs, name=IMAGE.name)
    entries = {entry.path: entry for entry in (*rootfs, *changed) if entry.path != manifest.PATH}
    content = Rootfs.of(entries.values())
    described = about.model_copy(
        update={"entries": tuple(manifest.record(entry) for entry in content)}
    )
    return archive.write_tar(manifest.add(described, content), mtime=0)
