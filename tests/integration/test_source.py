"""The corresponding source; that it builds the very same image, test_release.py sees."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.builder.recipes import catalogue
from pipeline.builder.sources import signature, unpack
from pipeline.builder.sources.store import Store
from pipeline.commands.places import STORE
from pipeline.image import archive
from pipeline.image.manifest import NOTICE, Manifest
from pipeline.image.rootfs import File
from pipeline.paths import PROJECT
from pipeline.release import source
from pipeline.release.gathered import SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkouts import Checkout

pytestmark = pytest.mark.integration
pytest_plugins = ["tests.support.checkouts"]

TOP = "nifty-source-2026.11"


def table(artifacts: Path) -> Any:
    return json.loads((artifacts / "nifty-x86_64.json").read_text())


def made(artifacts: Path, project: Path = PROJECT, store: Path = STORE) -> bytes:
    found = table(artifacts)
    notice = archive.read(artifacts / "nifty-x86_64.tar.zst").find(NOTICE)
    assert isinstance(notice, File)
    return source.source(
        Manifest.model_validate_json(json.dumps(found["manifest"])),
        catalogue.load(project / "recipes"),
        project=project,
        store=Store(root=store),
        notice=notice.content,
        digests={"x86_64": found["digest"]},
    )


@pytest.fixture(scope="module")
def packed(checkout: Checkout) -> bytes:
    return made(checkout.artifacts)


@pytest.fixture(scope="module")
def unpacked(packed: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "source.tar.zst").write_bytes(packed)
    return unpack.unpack(folder / "source.tar.zst", folder, epoch=0)


def test_what_is_in_it(checkout: Checkout, unpacked: Path) -> None:
    assert unpacked.name == TOP
    recipes = catalogue.load(unpacked / "recipes")
    for name in recipes.images["nifty"].components:
        pin = recipes.components[name].source
        file = unpacked / "sources" / f"{pin.sha256}-{pin.file}"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == pin.sha256
        assert pin.signature
        signed = pin.signature.model_copy(update={"key": f"{name}-{pin.signature.key}"})
        signature.verify(file, signed, unpacked / "sources")
    zig = unpacked / "sources/ziglang-0.17.1"
    assert "1.2.5" in (zig / "lib/libc/musl/src/internal/version.h").read_text()
    for name in ("LICENSE", "lib/c.zig", "lib/compiler_rt.zig", "lib/libc/musl/COPYRIGHT"):
        assert (zig / name).is_file()
    readme = (unpacked / "README.md").read_text()
    assert table(checkout.artifacts)["digest"] in readme
    assert "doit build offline=yes image=nifty arch=x86_64" in readme
    assert (unpacked / "LICENSES/dropbear/libtommath/LICENSE").is_file()
    assert "Rich Felker" in (unpacked / "LICENSES/musl/lib/libc/musl/COPYRIGHT").read_text()
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(_manifest(unpacked)))}
    assert rows["busybox"]["licence"] == "GPL-2.0-only AND bzip2-1.0.6"
    assert set(rows) == {
        *("busybox", "dropbear", "sftp-server", "libtomcrypt", "libtommath"),
        *("musl", "compiler-rt", "zig-libc"),
    }


def _manifest(folder: Path) -> str:
    return (folder / "manifest.csv").read_text()


def test_the_same_bytes_from_what_was_unpacked(
    packed: bytes, checkout: Checkout, unpacked: Path
) -> None:
    """Without git, and by way of its own store."""
    there = unpacked.parent / "again"
    again = unpack.unpack(unpacked.parent / "source.tar.zst", _empty(there), epoch=9)
    found = made(checkout.artifacts, again, again / "artifacts/store")
    assert [_sum(entry) for entry in archive.read(found)] == [
        _sum(entry) for entry in archive.read(packed)
    ]
    assert found == packed


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _sum(entry: object) -> tuple[object, ...]:
    path = getattr(entry, "path", "")
    return (path, hashlib.sha256(entry.content).hexdigest() if isinstance(entry, File) else "")


def test_a_source_that_is_not_in_the_store(checkout: Checkout, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"busybox-1\.38\.0\.tar\.bz2: not in") as caught:
        made(checkout.artifacts, store=tmp_path)
    assert caught.value.hint == "doit build fetches it"
