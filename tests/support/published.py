"""Small releases, published and signed by a key made for the tests."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

from pipeline.image import archive
from pipeline.image.rootfs import File
from pipeline.release import contents, keys, names, publish
from pipeline.release.contents import Built
from pipeline.trust import keyring
from tests.support import signers
from tests.support.host_image import make_image

if TYPE_CHECKING:
    from pathlib import Path

NOW = signers.NOW
SIGNER = signers.signer()
SIGNING = keys.load("test", SIGNER.made.signing, {}, NOW)
RING = keyring.read(SIGNER.certificate, name="ours")


def built(version: str = "1", *, motd: bytes = b"", title: str = "Small") -> Built:
    """An image as the build leaves it."""
    changed = [File(path="etc/motd", content=motd)] if motd else []
    image = make_image(changed, version=version, title=title)
    tar = archive.write_tar(image.rootfs, mtime=0)
    table = {"digest": image.digest, "manifest": json.loads(image.manifest.text())}
    return Built(
        manifest=image.manifest,
        digest=image.digest,
        tar_sha256=hashlib.sha256(tar).hexdigest(),
        contents={
            "tar.zst": archive.write_zstd(tar),
            "tar.xz": archive.write_xz(tar),
            "json": json.dumps(table).encode(),
        },
    )


FIRST, SECOND, THIRD = built("1"), built("2"), built("3")


def put(
    folder: Path,
    *several: Built,
    signing: keys.Signing | None = SIGNING,
    keep: int = 3,
    url: str = "",
) -> bool:
    """Publish *several* in *folder*; whether anything was written."""
    ring = b"" if signing is None else signing.certificate.binary
    terms = publish.Terms(keep=keep, now=NOW, url=url)
    return publish.publish(folder, list(contents.images(several)), signing, ring, terms)


def stem(version: str = "1") -> str:
    """The names of such a version's files, up to their ending."""
    return f"small_{version}_{names.WORDS[os.uname().machine]}"
