"""The artifacts of an image: the same bytes every time, and a record of what made them."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import files
from pipeline.builder.assembly import pack as packing
from pipeline.image import archive, manifest
from pipeline.image.manifest import Manifest
from pipeline.image.rootfs import Directory, File, Rootfs

if TYPE_CHECKING:
    from pathlib import Path

ROOTFS = Rootfs.of([Directory(path="etc"), File(path="etc/motd", content=b"hello\n" * 99)])
MANIFEST = Manifest.model_validate(
    {
        "format": manifest.FORMAT, "name": "tiny", "title": "Tiny", "version": "1", "epoch": 86400,
        "components": (), "shared": (), "instance": (),
        "ssh": {"port": 1, "file": "f", "program": "p", "word": 1, "host_key": "k", "accounts": ()},
        "needs": {"architecture": "x86_64", "mount_points": (), "binds": ()},
        "entries": tuple(manifest.record(entry) for entry in ROOTFS),
    }
)  # fmt: skip
NAMES = ("tiny.tar.zst", "tiny.tar.xz", "tiny.json")


def pack(folder: Path) -> tuple[Path, Path, Path]:
    folder.mkdir()
    zstd, xz, described = (folder / name for name in NAMES)
    packing.pack(ROOTFS, MANIFEST, zstd, xz, described)
    return zstd, xz, described


def description(folder: Path) -> dict[str, Any]:
    found = json.loads(pack(folder)[2].read_text())
    assert isinstance(found, dict)
    return found


def test_both_archives_hold_the_image(tmp_path: Path) -> None:
    zstd, xz, _described = pack(tmp_path / "a")
    assert archive.read(zstd) == archive.read(xz) == ROOTFS


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    pack(tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(NAMES)


def test_twice_the_same_bytes(tmp_path: Path) -> None:
    one, other = pack(tmp_path / "a"), pack(tmp_path / "b")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@pytest.mark.parametrize("name", NAMES[:2])
def test_the_archives_are_described(tmp_path: Path, name: str) -> None:
    (said,) = (item for item in description(tmp_path / "a")["archives"] if item["file"] == name)
    content = (tmp_path / "a" / name).read_bytes()
    assert (said["sha256"], said["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert set(said["compressor"]) >= {"name", "version"}


def test_the_digest_is_of_the_image_and_not_of_an_archive(tmp_path: Path) -> None:
    assert description(tmp_path / "a")["digest"] == ROOTFS.digest


def test_the_manifest_is_in_the_description(tmp_path: Path) -> None:
    assert description(tmp_path / "a")["manifest"] == json.loads(MANIFEST.text())


def test_an_artifact_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    pack(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    target = folder / NAMES[0]
    target.unlink()
    target.mkdir()  # nothing can be renamed over a folder
    with pytest.raises(OSError, match="directory"):
        packing.pack(ROOTFS, MANIFEST, *(folder / name for name in NAMES))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert (folder / NAMES[1]).read_bytes() == before[NAMES[1]]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_artifacts_have_the_same_content_for_every_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        found = [path.read_bytes() for path in pack(tmp_path / "a")]
    finally:
        os.umask(before)
    assert found == [path.read_bytes() for path in pack(tmp_path / "b")]


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            files.put_cached(tmp_path / "a", b"longer")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
