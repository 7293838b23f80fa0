"""`doit build` for real: downloads, signatures, compiler, archives."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.host.roots import access, images, needs
from pipeline.host.roots.needs import USUAL
from pipeline.host.wanted import Wanted, numbered
from pipeline.image import archive, keyline
from pipeline.image.rootfs import File, Symlink
from pipeline.paths import PROJECT
from pipeline.run import run
from tests.support.tiny import replace_once

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkouts import Checkout, Cloner

pytestmark = pytest.mark.integration
pytest_plugins = ["tests.support.checkouts"]

SIZE_LIMIT = 820_000  # bytes of the default image's .tar.zst
DROPBEAR = {"dropbear", "dbclient", "dropbearkey", "dropbearconvert", "scp"}


def manifest(artifacts: Path, image: str = "nifty") -> Any:
    return json.loads((artifacts / f"{image}-x86_64.json").read_text())["manifest"]


def applets(path: Path, binary: str) -> set[str]:
    """The names in an image's /cbin that lead to *binary*."""
    rootfs = archive.read(path)
    return {
        entry.path.removeprefix("cbin/")
        for entry in rootfs
        if isinstance(entry, Symlink) and entry.path.startswith("cbin/") and entry.target == binary
    }


@pytest.fixture(scope="module")
def artifacts(checkout: Checkout) -> Path:
    return checkout.artifacts


def test_the_checksums_are_those_of_the_files(checkout: Checkout, artifacts: Path) -> None:
    found = {
        name: hashlib.sha256((artifacts / name).read_bytes()).hexdigest()
        for name in checkout.sums()
    }
    assert found == checkout.sums()
    assert {"nifty-x86_64.tar.zst", "nifty-x86_64.tar.xz", "nifty-x86_64.json"} <= set(found)


def test_doctor_reckons_with_what_the_image_takes(artifacts: Path) -> None:
    image = images.load(next(artifacts.glob("nifty-x86_64.tar.zst")))
    wanted = Wanted(targets=numbered(1))
    taken = needs.of_image(image, wanted, access.Access(lines=("ssh-ed25519 AAAA",)))
    for beside in (2, 3):
        assert USUAL.inodes_each(beside=beside) == taken.inodes_each(beside=beside)
        each = [one.bytes_each(4096, 4096, beside=beside) for one in (USUAL, taken)]
        assert each[0] == each[1]
    assert 0 <= USUAL.once - taken.once < 200_000
    assert 0 <= USUAL.once_inodes - taken.once_inodes < 30


def test_the_pinned_dropbear_has_the_limits_that_keys_are_held_to(artifacts: Path) -> None:
    (packed,) = (artifacts / "store").glob("*-dropbear-*.tar.bz2")
    found = {
        name: int(value)
        for entry in archive.read(packed)
        if isinstance(entry, File) and entry.path.endswith((".c", ".h"))
        for name, value in re.findall(
            r"#define (MAX_AUTHKEYS\w+|MIN_RSA_KEYLEN) (\d+)", entry.content.decode("latin-1")
        )
    }
    assert found == {
        "MAX_AUTHKEYS_LINE": keyline.LINE_LIMIT,
        "MAX_AUTHKEYS_LINE_COUNT": keyline.LINES_LIMIT,
        "MIN_RSA_KEYLEN": keyline.LEAST_RSA_BITS,
    }


def test_the_checksums_have_the_form_systemd_reads(artifacts: Path) -> None:
    assert re.fullmatch(
        r"([0-9a-f]{64}  [\w.-]+\n)+", (artifacts / "SHA256SUMS").read_text(), re.ASCII
    )
    assert list(artifacts.glob("*.sha256")) == []


def test_the_manifest_names_what_is_linked_in(artifacts: Path) -> None:
    said = {
        item["name"]: [one["name"] for one in item["includes"]]
        for item in manifest(artifacts)["components"]
    }
    compiler = ["musl", "compiler-rt", "zig-libc"]
    assert said == {
        "busybox": compiler,
        "dropbear": ["libtomcrypt", "libtommath", *compiler],
        "sftp-server": compiler,
    }


def test_the_libraries_in_dropbears_source_have_the_versions_that_are_told(artifacts: Path) -> None:
    (packed,) = (artifacts / "store").glob("*-dropbear-*.tar.bz2")
    source = archive.read(packed)
    top = packed.name.partition("-")[2].removesuffix(".tar.bz2")
    patterns = {
        "libtomcrypt": ("src/headers/tomcrypt.h", rb'#define SCRYPT\s+"(\S+)"'),
        "libtommath": ("makefile_include.mk", rb"(?m)^VERSION=(\S+)"),
    }
    found = {}
    for name, (path, pattern) in patterns.items():
        entry = source.find(f"{top}/{name}/{path}")
        assert isinstance(entry, File)
        match = re.search(pattern, entry.content)
        assert match
        found[name] = match[1].decode()
    (dropbear,) = (one for one in manifest(artifacts)["components"] if one["name"] == "dropbear")
    told = {one["name"]: one["version"] for one in dropbear["includes"]}
    assert found.items() <= told.items()


def test_the_notice_has_every_licence_that_the_manifest_names(artifacts: Path) -> None:
    entry = archive.read(artifacts / "nifty-x86_64.tar.zst").find("usr/lib/nifty/NOTICE")
    assert isinstance(entry, File)
    told = entry.content.decode()
    for part in manifest(artifacts)["components"]:
        for one in (part, *part["includes"]):
            assert f"{one['name']} {one['version']}" in told
            for file in one["licence_files"]:
                assert f"{one['name']}: {file['file']}" in told
    for words in ("GNU GENERAL PUBLIC LICENSE", "Rich Felker", "Matt Johnston", "Theo de Raadt"):
        assert words in told


def test_both_archives_hold_the_same_image(artifacts: Path) -> None:
    assert archive.read(artifacts / "nifty-x86_64.tar.zst") == archive.read(
        artifacts / "nifty-x86_64.tar.xz"
    )


def test_the_default_image_is_small(artifacts: Path) -> None:
    assert (artifacts / "nifty-x86_64.tar.zst").stat().st_size <= SIZE_LIMIT


def test_readme_shows_the_image_that_is_built(artifacts: Path) -> None:
    readme = (PROJECT / "README.md").read_text("utf-8")
    image = images.load(artifacts / "nifty-x86_64.tar.zst")
    shown = set(re.findall(r"(?m)^ +nifty\d+ +\d+  ([0-9a-f]{12}) ", readme))
    assert shown == {image.digest[:12]}
    size = (artifacts / "nifty-x86_64.tar.zst").stat().st_size
    assert f"`.tar.zst` | {size:,} bytes |" in readme
    count = len(applets(artifacts / "nifty-x86_64.tar.zst", "busybox"))
    assert set(re.findall(r"\b(\d+)(?: BusyBox)? applets", readme)) == {str(count)}


def test_the_default_image_has_400_applets(artifacts: Path) -> None:
    assert len(applets(artifacts / "nifty-x86_64.tar.zst", "busybox")) >= 400


def test_the_default_image_has_dropbears_five_programs(artifacts: Path) -> None:
    assert applets(artifacts / "nifty-x86_64.tar.zst", "dropbearmulti") >= DROPBEAR


def test_the_manifest_beside_the_image_is_the_one_inside(artifacts: Path) -> None:
    entry = archive.read(artifacts / "nifty-x86_64.tar.zst").resolve("usr/lib/nifty/image.json")
    assert isinstance(entry, File)
    assert json.loads(entry.content) == manifest(artifacts)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb reads the package")
def test_the_prebuilt_busybox_tells_what_debian_linked_in(prebuilt: Checkout) -> None:
    (package,) = (prebuilt.artifacts / "store").glob("*-busybox-static_*.deb")
    told = run(["dpkg-deb", "--field", package, "Built-Using"]).stdout
    using = re.fullmatch(r"glibc \(= (\S+)\)\n", told)
    assert using
    (busybox,) = (
        one
        for one in manifest(prebuilt.artifacts, "nifty-prebuilt")["components"]
        if one["name"] == "busybox-static"
    )
    assert [(one["name"], one["version"]) for one in busybox["includes"]] == [("glibc", using[1])]


def test_the_prebuilt_image_has_debians_busybox(prebuilt: Checkout) -> None:
    made = manifest(prebuilt.artifacts, "nifty-prebuilt")["components"]
    assert [item["name"] for item in made] == ["busybox-static", "dropbear", "sftp-server"]
    names = applets(prebuilt.artifacts / "nifty-prebuilt-x86_64.tar.zst", "busybox")
    assert {"sh", "init", "awk", "syslogd"} <= names
    assert len(names) > 200


def test_a_prebuilt_binary_of_another_machine_is_refused(prebuilt: Checkout) -> None:
    told = prebuilt.doit(
        "component:busybox-static", "image=nifty-prebuilt", "arch=aarch64", code=1
    ).stderr
    assert "busybox-static: is for x86_64, the image for aarch64" in told


def test_a_fresh_clone_with_the_caches_compiles_nothing(checkout: Checkout, clone: Cloner) -> None:
    copy = clone()
    copy.doit("build", "arch=x86_64", "offline=yes")
    assert not (copy.cache / "log").exists()
    assert copy.sums().items() <= checkout.sums().items()


def test_an_option_busybox_does_not_know_is_named(clone: Cloner) -> None:
    copy = clone()
    with (copy.root / "recipes/components/busybox/config").open("a") as file:
        file.write("CONFIG_NO_SUCH_APPLET=y\n")
    told = copy.doit("component:busybox", "arch=x86_64", code=1).stderr
    assert "busybox/config: not taken:" in told
    assert "wanted 'CONFIG_NO_SUCH_APPLET=y', got '# CONFIG_NO_SUCH_APPLET is not set'" in told


def test_a_damaged_download_is_told_and_fetched_again(clone: Cloner) -> None:
    copy = clone(apt=True)
    if shutil.which("apt-get"):  # Debian's copy is the same file, and sure to be near
        recipe = copy.root / "recipes/components/dropbear/recipe.toml"
        keep = re.sub(r'\[\[location\]\]\nkind = "https"\nurl = .*\n\n', "", recipe.read_text())
        recipe.write_text(keep)
    (stored,) = (copy.artifacts / "store").glob("*-dropbear-*.tar.bz2")
    before = stored.read_bytes()
    stored.write_bytes(before[:1000] + b"?" + before[1001:])
    told = copy.doit("fetch:dropbear").stderr
    assert f"{stored}: has gone bad (has the sha256 " in told
    assert stored.read_bytes() == before


def test_a_pin_that_does_not_hold_is_told_with_both_numbers(clone: Cloner) -> None:
    copy = clone()
    folder = copy.root / "recipes/components/dropbear"
    replace_once(folder / "recipe.toml", "size = 2386978", "size = 2386979")
    told = copy.doit("fetch:dropbear", "offline=yes", code=1).stderr
    assert "2386978 bytes" in told
    assert "the recipe pins 2386979" in told
