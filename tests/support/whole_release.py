"""The release of this very checkout, with all that `doit publish` puts into it.

A plugin, with `checkout` of tests.support.checkouts: name both in `pytest_plugins`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.builder.recipes import catalogue
from pipeline.builder.sources.store import Store
from pipeline.commands import publish as command
from pipeline.commands.places import STORE
from pipeline.image import archive
from pipeline.image.manifest import PATH
from pipeline.image.rootfs import File, Rootfs
from pipeline.paths import PROJECT
from pipeline.release import builders, contents, keys
from pipeline.release.contents import Built, Workshop
from pipeline.release.publish import Terms, publish
from pipeline.trust import keyring
from tests.support import signers

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.trust.keyring import Keyring
    from tests.support.checkouts import Checkout

SIGNER = signers.signer()


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Who publishes what was built: *built* with what *shop* has, signed by *signer*'s key."""

    built: tuple[Built, ...]
    shop: Workshop
    signer: signers.Signer = SIGNER

    @property
    def ring(self) -> Keyring:
        return keyring.read(self.signer.certificate, name="ours")

    def elsewhere(self) -> Publisher:
        """The same as a run of a forge's CI."""
        other = replace(self.shop.builder, name="https://example.org/runs/7")
        return replace(self, shop=replace(self.shop, builder=other))

    def publish(self, folder: Path, *, url: str = "", keep: int = 3) -> bool:
        """Have *folder* be the release, to be served at *url*; no if it is already."""
        signing = keys.load("test", self.signer.made.signing, {}, signers.NOW)
        key = signing.ed25519()
        assert isinstance(key, Ed25519PrivateKey)
        shop = replace(self.shop, key=key)
        more = [contents.of_all(self.built, shop)]
        terms = Terms(keep=keep, now=signers.NOW, more=more, url=url)
        items = contents.items(self.built, shop.recipes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archive, "ZSTD_LEVEL", 1)  # of the source: a second, not six
            return publish(folder, items, signing, signing.certificate.binary, terms)

    def later(self, version: str) -> Publisher:
        """The same image, called *version*."""
        return replace(self, built=tuple(_called(one, version) for one in self.built))


def _called(one: Built, version: str) -> Built:
    about = one.manifest.model_copy(update={"version": version})
    entries = [entry for entry in archive.read(one.contents["tar.zst"]) if entry.path != PATH]
    rootfs = Rootfs.of([*entries, File(path=PATH, content=about.text().encode())])
    tar = archive.write_tar(rootfs, mtime=about.epoch)
    table = {"digest": rootfs.digest, "manifest": json.loads(about.text())}
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(archive, "ZSTD_LEVEL", 1)
        quick.setattr(archive, "XZ_PRESET", 0)
        packed = {"tar.zst": archive.write_zstd(tar), "tar.xz": archive.write_xz(tar)}
    return Built(
        manifest=about,
        digest=rootfs.digest,
        tar_sha256=hashlib.sha256(tar).hexdigest(),
        contents={**packed, "json": json.dumps(table).encode()},
    )


@pytest.fixture(scope="session")
def publisher(checkout: Checkout) -> Publisher:
    """Who publishes the default image for one architecture."""
    found = command.built("nifty", "x86_64")
    assert found is not None
    shop = Workshop(
        recipes=catalogue.load(PROJECT / "recipes"),
        store=Store(root=STORE),
        project=PROJECT,
        builder=builders.builder({}, PROJECT),
        key=None,
    )
    return Publisher(built=(found,), shop=shop)


@pytest.fixture(scope="session")
def whole_release(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That release, which all tests share: change a copy."""
    folder = tmp_path_factory.mktemp("whole") / "release"
    assert publisher.publish(folder)
    return folder
