"""The documents that go with an image: those of its own release, as the checksums say."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import NiftyError
from pipeline.release import documents
from pipeline.release.documents import DocumentsError
from pipeline.trust import sums
from tests.support.oci_image import oci_image

if TYPE_CHECKING:
    from pathlib import Path

X86, ARM = oci_image("x86_64"), oci_image("aarch64")
FILES = {
    "small_2026.11_x86-64.tar.zst": X86.archive,
    "small_2026.11_x86-64.cdx.json": b"sbom",
    "small_2026.11_x86-64.vex.json": b"vex",
    "small_2026.11_x86-64.intoto.json": b"provenance",
    "small_2026.11.intoto.json": b"of all architectures",
    "small_2026.11_source.tar.zst": b"source",
    "small_2026.10_x86-64.cdx.json": b"an older one",
    "small_2026.11.1_x86-64.cdx.json": b"a newer one",
    "nifty-keyring.pgp": b"keyring",
    "small-gawk_2026.11_x86-64.cdx.json": b"another image",
    "index.html": b"page",
}
OURS = {"small_2026.11_x86-64.cdx.json", "small_2026.11_x86-64.vex.json"}
OURS |= {"small_2026.11_x86-64.intoto.json", "small_2026.11.intoto.json", "SHA256SUMS"}
OURS |= {"small_2026.11_source.tar.zst", "nifty-keyring.pgp"}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    (tmp_path / sums.NAME).write_bytes(sums.text(listed))
    return tmp_path


def test_nothing_was_published(tmp_path: Path) -> None:
    assert documents.of_release(tmp_path / "none", [X86]) == {}


def test_documents_of_this_image_and_version_alone(release: Path) -> None:
    found = documents.of_release(release, [X86])
    assert set(found) == OURS
    assert found["small_2026.11_x86-64.vex.json"] == b"vex"
    (release / sums.SIGNATURE).write_bytes(b"signature")
    assert documents.of_release(release, [X86])[sums.SIGNATURE] == b"signature"


def test_a_release_of_another_build_is_refused(release: Path) -> None:
    with pytest.raises(DocumentsError, match=r"small 2026.11 for aarch64\nhint: doit"):
        documents.of_release(release, [X86, ARM])


def test_every_document_that_was_changed_is_named(release: Path) -> None:
    for name in OURS - {"SHA256SUMS"}:
        (release / name).write_bytes(b"changed")
    with pytest.raises(DocumentsError) as caught:
        documents.of_release(release, [X86])
    assert [line.partition(":")[0] for line in sorted(caught.value.problems)] == sorted(
        OURS - {"SHA256SUMS"}
    )


def test_a_document_that_is_gone_is_told(release: Path) -> None:
    (release / "small_2026.11_x86-64.intoto.json").unlink()
    with pytest.raises(NiftyError, match=r"small_2026.11_x86-64.intoto.json: No such file"):
        documents.of_release(release, [X86])
