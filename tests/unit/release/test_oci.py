"""The OCI index: the same bytes everywhere, gzip first, and the published file as it is."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import settings
from pipeline.image.archive import Limits
from pipeline.image.manifest import ComponentRecord, DropinRecord, IncludeRecord
from pipeline.paths import PROJECT
from pipeline.release import layout, oci, referrers
from pipeline.run import run
from tests.support.oci_image import oci_image, tar_of

if TYPE_CHECKING:
    from pathlib import Path

X86, ARM = oci_image("x86_64"), oci_image("aarch64")
MADE = oci.index([ARM, X86])
DOCUMENTS = {
    "nifty-x86_64.cdx.json": b"[]",
    "nifty-x86_64.vex.json": b"{ }",
    "nifty-x86_64.intoto.json": b"{  }",
    "SHA256SUMS": b"sums",
    "SHA256SUMS.gpg": b"signature",
    "index.html": b"nothing to do with it",
}
DESCRIBE = """
from pipeline.release import oci
from tests.support.oci_image import oci_image
made = oci.index([oci_image("x86_64"), oci_image("aarch64")])
print(made.blob.digest, *(entry.manifest.digest for entry in made.entries))
"""

GOLDEN = "sha256:011ee120e4fe4c3d4652fe4bace72355ba1112d50d9f44430f40a69ee239baef"
GOLDEN_ZSTD = [
    "sha256:5998875b0b9e62cfafccbb79f3142878127d978106425cac4e17beb2be3553b8",
    "sha256:952a683f7b87b4c4b4fe728c70b7b8b7d40b1076c4da39c0bdb59314053d3e33",
]


def _table(blob: oci.Blob) -> Any:
    return json.loads(blob.content)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_every_architecture_that_is_built_has_a_platform() -> None:
    assert set(settings.ARCHITECTURES) <= set(oci.PLATFORMS)


def test_entries_are_sorted_and_gzip_comes_first() -> None:
    told = [
        (one["platform"], one.get("annotations"), one["digest"], one["size"])
        for one in _table(MADE.blob)["manifests"]
    ]
    zstd = {"io.github.containers.compression.zstd": "true"}
    amd, arm = (
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
    )
    manifests = [entry.manifest for entry in MADE.entries]
    assert told == [
        (platform, annotations, manifest.digest, len(manifest.content))
        for (platform, annotations), manifest in zip(
            [(amd, None), (amd, zstd), (arm, None), (arm, zstd)], manifests, strict=True
        )
    ]


def test_the_zstd_layer_is_the_published_file_itself() -> None:
    layers = [entry.layer for entry in MADE.entries]
    assert [layer.media_type for layer in layers] == [oci.GZIP, oci.ZSTD] * 2
    assert (layers[1].content, layers[3].content) == (X86.archive, ARM.archive)
    for entry in MADE.entries:
        assert _table(entry.manifest)["layers"] == [entry.layer.descriptor()]


def test_both_layers_unpack_to_what_the_configuration_names() -> None:
    tar = tar_of("x86_64")
    assert gzip.decompress(MADE.entries[0].layer.content) == tar
    for entry in MADE.entries[:2]:
        assert _table(entry.manifest)["config"] == MADE.configs[0].descriptor()
    assert _table(MADE.configs[0])["rootfs"] == {"type": "layers", "diff_ids": [_digest(tar)]}


def test_the_configuration_runs_a_shell_and_ends_as_busybox_init_does() -> None:
    table = _table(MADE.configs[1])
    assert (table["architecture"], table["os"]) == ("arm64", "linux")
    assert table["created"] == "2026-11-21T00:00:00Z"
    assert table["config"] == {
        "Cmd": ["/bin/sh"],
        "Env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"],
        "StopSignal": "SIGUSR2",
        "Labels": _table(MADE.blob)["annotations"],
    }
    assert table["config"]["Labels"] == {
        "org.opencontainers.image.created": "2026-11-21T00:00:00Z",
        "org.opencontainers.image.title": "Small",
        "org.opencontainers.image.version": "2026.11",
    }


def test_every_digest_is_the_one_that_was_published() -> None:
    """Golden: whoever changes one of them publishes other bytes under an old version."""
    zstd = [entry.manifest.digest for entry in MADE.entries[1::2]]
    assert zstd == GOLDEN_ZSTD
    # another implementation of deflate makes other bytes, which unpack to the same
    if "ng" not in zlib.ZLIB_RUNTIME_VERSION:
        assert MADE.blob.digest == GOLDEN


def test_two_processes_make_the_same_bytes() -> None:
    """Even with another order of sets and dictionaries."""
    told = {
        run(
            [sys.executable, "-c", DESCRIBE],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(PROJECT)},
        ).stdout
        for seed in ("1", "2")
    }
    digests = (MADE.blob.digest, *(entry.manifest.digest for entry in MADE.entries))
    assert told == {" ".join(digests) + "\n"}


def test_licences_are_told_only_where_they_are_spdx() -> None:
    linked = IncludeRecord(name="c", version="1", licence="Apache-2.0 WITH LLVM-exception")
    component: dict[str, Any] = {"name": "a", "licence": "MIT OR ISC", "includes": (linked,)}
    both = [component, {"name": "b", "licence": "GPL-2.0-only"}]
    assert _licences(both) == ("Apache-2.0 WITH LLVM-exception AND GPL-2.0-only AND (MIT OR ISC)")
    twice = [{"name": "b", "licence": "MIT AND ISC"}, {"name": "c", "licence": "MIT"}]
    assert _licences(twice) == "ISC AND MIT"
    assert _licences(both, dropins=make_dropin()) is None


def make_dropin() -> tuple[Any, ...]:
    """A program that came from a distribution."""
    return (DropinRecord(target="usr/bin/gawk", libraries="copy"),)


def _licences(components: list[dict[str, Any]], dropins: tuple[Any, ...] = ()) -> str | None:
    records = tuple(ComponentRecord.model_construct(None, **one) for one in components)
    changed = X86.manifest.model_copy(update={"components": records, "dropins": dropins})
    made = oci.index([oci.Image(archive=X86.archive, manifest=changed)])
    found: str | None = _table(made.blob)["annotations"].get("org.opencontainers.image.licenses")
    return found


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ([], "no image"),
        ([X86, X86], "two images for x86_64"),
        ([X86, oci_image("aarch64", version="2")], "aarch64: small 2 of 2026-11-21T00:00:00Z"),
        ([oci_image("vax")], "vax: no platform"),
        ([oci.Image(archive=X86.archive[:-4], manifest=X86.manifest)], "corrupt or truncated"),
    ],
)
def test_what_is_no_index_is_refused(images: list[oci.Image], told: str) -> None:
    with pytest.raises(oci.OciError, match=told):
        oci.index(images)


def test_documents_refer_to_the_index() -> None:
    made = referrers.of_documents(MADE, DOCUMENTS)
    tables = [_table(one.manifest) for one in made]
    sums, sbom = "application/vnd.nifty.sums.v1", "application/vnd.cyclonedx+json"
    provenance, vex = "application/vnd.in-toto+json", "application/vnd.openvex+json"
    assert [table["artifactType"] for table in tables] == [sbom, provenance, sums, vex]
    titles = [
        [layer["annotations"]["org.opencontainers.image.title"] for layer in table["layers"]]
        for table in tables
    ]
    assert titles == [
        ["nifty-x86_64.cdx.json"],
        ["nifty-x86_64.intoto.json"],
        ["SHA256SUMS", "SHA256SUMS.gpg"],
        ["nifty-x86_64.vex.json"],
    ]
    for one, table in zip(made, tables, strict=True):
        assert table["subject"] == MADE.blob.descriptor()
        assert table["config"]["digest"] == _digest(b"{}")
        assert one.descriptor["artifactType"] == table["artifactType"]
        named = {layer["digest"] for layer in table["layers"]} | {table["config"]["digest"]}
        assert named == {blob.digest for blob in one.blobs}


def test_a_document_of_another_architecture_is_an_artifact_of_its_own() -> None:
    both = {"nifty-x86_64.cdx.json": b"{}", "nifty-aarch64.cdx.json": b"{ }"}
    assert len(referrers.of_documents(MADE, both)) == 2


def test_the_fallback_keeps_what_others_have_said() -> None:
    made = referrers.of_documents(MADE, DOCUMENTS)
    other = {"mediaType": oci.MANIFEST, "digest": _digest(b"other"), "size": 5}
    blob = referrers.fallback_index([other], made)
    assert _table(blob)["manifests"] == [other, *(one.descriptor for one in made)]
    again = referrers.fallback_index(_table(blob)["manifests"], made)
    assert again == blob
    assert referrers.fallback_tag("sha256:ab") == "sha256-ab"


def test_a_layout_holds_every_blob_under_its_digest(tmp_path: Path) -> None:
    about = referrers.of_documents(MADE, DOCUMENTS)
    layout.write(tmp_path, layout.of_index(MADE, about, tag="2026.11"))
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    top = json.loads((tmp_path / "index.json").read_bytes())
    assert top["manifests"][0] == MADE.blob.descriptor(
        annotations={"org.opencontainers.image.ref.name": "2026.11"}
    )
    assert top["manifests"][1:] == [one.descriptor for one in about]
    blobs = sorted((tmp_path / "blobs/sha256").iterdir())
    assert all(hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name for blob in blobs)
    assert len(blobs) == 1 + 4 + 4 + 2 + len(about) + 1 + 5
    before = {path: path.stat().st_mtime_ns for path in blobs}
    layout.write(tmp_path, layout.of_index(MADE, about, tag="2026.11"))
    assert {path: path.stat().st_mtime_ns for path in blobs} == before


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "DEFAULT_LIMITS", Limits(max_bytes=1000))
    with pytest.raises(oci.OciError, match="more than 1000 bytes"):
        oci.index([X86])
