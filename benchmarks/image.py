"""Counts the bytes of the image beside the same tar in other packings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zstandard

from benchmarks import filesystems, results
from pipeline.errors import NiftyError
from pipeline.run import run

if TYPE_CHECKING:
    from benchmarks.options import Options

# The gzip layer of Docker's official image `busybox:1.37.0-musl` for amd64, sha256
# 5bfa213ad2917fd7ef0d56c49b841de3a4788e60b3554ad86d616100e095c1f8, as its manifest gives the size:
# github.com/docker-library/busybox, latest/musl/amd64/image-manifest.json, commit 32accb804432.
# No Dropbear in it. Not asked for anew: a benchmark needs no network.
OFFICIAL_LAYER = 871_010
OFFICIAL = "official busybox:musl layer (no Dropbear)"
PACKERS = {"gzip -9": ("gzip", "-9", "-n"), "xz -9e": ("xz", "-9e", "--threads=1")}


def measure(options: Options) -> dict[str, Any]:
    """Bytes of each packing; they are the same whenever it is run."""
    packed = options.image.read_bytes()
    sizes = {}
    if options.image.name.endswith(".tar.zst"):
        try:
            tar = zstandard.ZstdDecompressor().stream_reader(packed).read()
        except zstandard.ZstdError as error:
            raise NiftyError(f"{options.image}: {error}") from error
    else:
        raise NiftyError(f"{options.image}: expected a .tar.zst", hint="doit build makes one")
    sizes["tar"] = len(tar)
    sizes[".tar.zst"] = len(packed)
    xz = options.image.with_name(options.image.name.removesuffix(".zst") + ".xz")
    if xz.is_file():
        sizes[".tar.xz"] = xz.stat().st_size
    with filesystems.workplace() as work:
        for title, words in PACKERS.items():
            plain = work / "image.tar"
            plain.write_bytes(tar)
            run([*words, plain])
            (result,) = work.glob("image.tar.*")
            sizes[f"tar, {title}"] = result.stat().st_size
            result.unlink()
    sizes[OFFICIAL] = OFFICIAL_LAYER
    rows = [{"what": what, "bytes": size} for what, size in sizes.items()]
    return {**results.described("image", {"image": options.image.name}), "rows": rows}


def lines(result: dict[str, Any]) -> list[str]:
    """The table of *result*."""
    name = result["settings"]["image"]
    sizes = {row["what"]: row["bytes"] for row in result["rows"]}
    ours = sizes[".tar.zst"]
    body = [(what, f"{size:,}", f"{size / ours:.2f}") for what, size in sizes.items()]
    return results.table((name, "bytes", "of .tar.zst"), body)
