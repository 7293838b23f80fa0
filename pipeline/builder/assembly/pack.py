"""Writes an image's artifacts: the archive twice, and the manifest with what made the archives."""

from __future__ import annotations

import ctypes
import hashlib
import json
from typing import TYPE_CHECKING

from pipeline.files import put_cached
from pipeline.image import archive

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.image.manifest import Manifest
    from pipeline.image.rootfs import Rootfs


def pack(rootfs: Rootfs, manifest: Manifest, zstd: Path, xz: Path, described: Path) -> None:
    """Write the three artifacts, each under a temporary name first.

    The image's digest is that of its entries: what the compressors make of them may change with
    their versions, which are recorded beside the manifest and not in it.
    """
    tar = archive.write_tar(rootfs, mtime=manifest.epoch)
    packed = {zstd: archive.write_zstd(tar), xz: archive.write_xz(tar)}
    table = {
        "digest": rootfs.digest,
        "manifest": json.loads(manifest.text()),
        "tar": {"sha256": hashlib.sha256(tar).hexdigest(), "size": len(tar)},
        "archives": [
            {
                "file": path.name,
                "sha256": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "compressor": _compressor(path),
            }
            for path, content in packed.items()
        ],
    }
    text = json.dumps(table, sort_keys=True, indent=1) + "\n"
    for path, content in {**packed, described: text.encode()}.items():
        put_cached(path, content)


def _compressor(path: Path) -> dict[str, str | int]:
    if path.suffix == ".zst":
        import zstandard  # noqa: PLC0415 (as in archive)

        version = ".".join(map(str, zstandard.ZSTD_VERSION))
        return {"name": "libzstd", "version": version, "level": archive.ZSTD_LEVEL}
    return {"name": "liblzma", "version": _liblzma(), "preset": "9e"}


def _liblzma() -> str:
    """The version of the liblzma Python is linked with; Python itself does not tell."""
    import _lzma  # noqa: PLC0415

    try:
        function = ctypes.CDLL(_lzma.__file__).lzma_version_string
    except (AttributeError, OSError):  # built into the interpreter
        return "unknown"
    function.restype = ctypes.c_char_p
    return bytes(function()).decode("ascii")
