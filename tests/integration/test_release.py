"""The release of this checkout: what goes with the image, its provenance, and what is noticed."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer._key import SSlibKey

from pipeline import settings as variables
from pipeline.builder.sources import unpack
from pipeline.commands import verify as command
from pipeline.errors import NiftyError
from pipeline.release import check, envelope, source
from pipeline.release.contents import ContentsError
from pipeline.run import run
from pipeline.trust import sums
from tests.support import signers

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.release.check import Check
    from tests.support.checkouts import Checkout
    from tests.support.whole_release import Publisher

pytestmark = pytest.mark.integration
pytest_plugins = ["tests.support.checkouts", "tests.support.whole_release"]

PROVENANCE, SOURCE = "nifty_2026.11.intoto.json", "nifty_2026.11_source.tar.zst"
VEX = "nifty_2026.11_x86-64.vex.json"


@pytest.fixture
def release(whole_release: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(whole_release, tmp_path / "release")


def wrong(folder: Path, publisher: Publisher) -> list[Check]:
    found = check.directory(folder, publisher.ring, now=signers.NOW)
    return [one for one in found if not one.is_right]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_source_and_provenance_are_in_it(whole_release: Path, publisher: Publisher) -> None:
    listed = sums.read((whole_release / sums.NAME).read_bytes())
    assert {PROVENANCE, SOURCE, "nifty-provenance.pem"} <= set(listed)
    assert wrong(whole_release, publisher) == []
    checks = check.directory(whole_release, publisher.ring, now=signers.NOW)
    told = {one.name: one.found for one in checks}
    assert told[f"provenance {PROVENANCE}"].startswith("about 7 files, signed by ")


def test_securesystemslib_verifies_it_with_the_published_key(whole_release: Path) -> None:
    key = load_pem_public_key((whole_release / "nifty-provenance.pem").read_bytes())
    theirs = Envelope.from_dict(json.loads((whole_release / PROVENANCE).read_bytes()))
    (name,) = theirs.signatures
    assert theirs.verify([SSlibKey.from_crypto(key, keyid=name)], 1)


def test_skopeo_copies_every_architecture_of_the_layout(
    whole_release: Path, tmp_path: Path
) -> None:
    signers.require("skopeo")
    source, target = f"oci:{whole_release / 'oci'}:nifty_2026.11", f"oci:{tmp_path}:copy"
    run(["skopeo", "copy", "--all", "--preserve-digests", source, target], timeout=60)
    told = run(["skopeo", "inspect", "--raw", target], timeout=60).stdout.encode()
    (listed,) = json.loads((whole_release / "oci/index.json").read_bytes())["manifests"]
    assert listed["digest"] == f"sha256:{hashlib.sha256(told).hexdigest()}"
    zstd = json.loads(told)["manifests"][1]["digest"].removeprefix("sha256:")
    (layer,) = json.loads((tmp_path / "blobs/sha256" / zstd).read_bytes())["layers"]
    name = "nifty_2026.11_x86-64.tar.zst"
    assert layer["digest"] == f"sha256:{sums.read((whole_release / sums.NAME).read_bytes())[name]}"


def test_again_nothing_is_written_nor_packed(
    release: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source.archive, "write_zstd", None)  # type: ignore[attr-defined]
    before = contents(release)
    assert not publisher.publish(release)
    # what another builder made of the same changes nothing, who it was stays as it is told
    assert not publisher.elsewhere().publish(release)
    assert contents(release) == before


def test_a_new_key_signs_provenance_as_well(release: Path, publisher: Publisher) -> None:
    other = replace(publisher, signer=signers.signer("Other <o@example.org>"))
    before = envelope.read((release / PROVENANCE).read_bytes())
    assert other.publish(release)
    after = envelope.read((release / PROVENANCE).read_bytes())
    assert after.payload == before.payload
    assert set(before.signatures) < set(after.signatures)
    assert wrong(release, other) == []


def test_older_versions_keep_what_goes_with_them(release: Path, publisher: Publisher) -> None:
    before = contents(release)
    later = publisher.later("2026.12")
    assert later.publish(release)
    assert wrong(release, publisher) == []
    there = contents(release)
    old = {name for name in before if name.startswith("nifty_2026.11")}
    assert {PROVENANCE, SOURCE} < old
    assert all(there[name] == before[name] for name in old)
    assert {name.replace("2026.11", "2026.12") for name in old} <= there.keys()
    assert publisher.later("2027.1").publish(release, keep=2)
    assert not old & contents(release).keys()
    assert wrong(release, publisher) == []


def resummed(release: Path, publisher: Publisher, name: str, content: bytes) -> None:
    """Put *content* in, and sign it: the publisher's own mistake."""
    (release / name).write_bytes(content)
    listed = sums.read((release / sums.NAME).read_bytes())
    listed[name] = hashlib.sha256(content).hexdigest()
    (release / sums.NAME).write_bytes(sums.text(listed))
    (release / sums.SIGNATURE).write_bytes(publisher.signer.sign(sums.text(listed)))


def test_provenance_of_another_signer_or_about_other_files_is_noticed(
    release: Path, publisher: Publisher
) -> None:
    there = envelope.read((release / PROVENANCE).read_bytes())
    mallory = envelope.envelope(there.payload, [Ed25519PrivateKey.generate()])
    original = (release / PROVENANCE).read_bytes()
    for name, content, what in (
        (PROVENANCE, mallory, "no signature of a key in ours that is good"),
        (VEX, b"{}", f"is not about the files of its version as they are: {VEX}"),
    ):
        (release / PROVENANCE).write_bytes(original)
        resummed(release, publisher, name, content)
        told = {one.name: one.found for one in wrong(release, publisher)}
        assert told[f"provenance {PROVENANCE}"] == what
        resummed(release, publisher, PROVENANCE, original)


def test_nobody_states_how_something_was_built_that_they_have_not(
    release: Path, publisher: Publisher
) -> None:
    before = contents(release)
    about = publisher.built[0].manifest
    needs = about.needs.model_copy(update={"architecture": "aarch64"})
    arm = replace(publisher.built[0], manifest=about.model_copy(update={"needs": needs}))
    with pytest.raises(ContentsError, match="published for more") as caught:
        replace(publisher, built=(arm,)).publish(release)
    assert caught.value.hint == "doit build image=nifty arch=x86_64, and publish again"
    assert contents(release) == before


def test_it_is_built_again_from_its_source_and_signed(
    whole_release: Path, publisher: Publisher, checkout: Checkout, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As a stranger does with the release alone; their signature counts, theirs and once."""
    unpacked = unpack.unpack

    def with_musl(packed: Path, into: Path, *, epoch: int) -> Path:
        root = unpacked(packed, into, epoch=epoch)
        (root / "artifacts/cache").mkdir()
        (root / "artifacts/cache/musl").symlink_to(checkout.cache / "musl")  # half a minute less
        return root

    monkeypatch.setattr(unpack, "unpack", with_musl)
    ann = signers.signer("Ann <ann@example.org>")
    for name, content in (
        ("ours", publisher.ring.binary), ("anns", ann.certificate), ("secret", ann.made.signing),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    words = {"from": str(whole_release), "keyring": str(tmp_path / "ours"), "format": "json"}

    def doit_verify(**more: str) -> dict[str, str]:
        command.run(variables.parse({**words, **more}, images=["nifty"]))
        return {one["name"]: one["found"] for one in json.loads(capsys.readouterr().out)}

    secret, mine = str(tmp_path / "secret"), tmp_path / "mine"
    found = doit_verify(rebuild="yes", key=secret, to=str(mine))
    for ending in ("json", "tar.xz", "tar.zst"):
        assert found[f"rebuilt nifty_2026.11_x86-64.{ending}"].startswith("the same bytes")
    assert found[f"signed {mine / PROVENANCE}"].startswith("Ann <ann@example.org>")
    counted = {"rebuilders": str(tmp_path / "anns"), "rebuilt": str(mine / PROVENANCE)}
    told = doit_verify(**counted)[f"rebuilders {PROVENANCE}"]
    assert told.startswith("1 of 1 needed: Ann")
    with pytest.raises(NiftyError, match=r"1 of .* checks failed"):
        doit_verify(**counted, need="2")
    assert "built again by 1 of" in capsys.readouterr().out
