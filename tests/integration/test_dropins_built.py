"""Drop-ins by `doit build`: of a pinned package, and of the build host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.image import archive
from pipeline.image.rootfs import File

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkouts import Checkout, Cloner

pytestmark = pytest.mark.integration
pytest_plugins = ["tests.support.checkouts"]

WORDS = ("build", "image=nifty-gawk", "arch=x86_64")
DROPIN = """
[[dropin]]
source = "{source}"
target = "usr/local/bin/greet"
libraries = "bind"
"""


@pytest.fixture(scope="module")
def gawk(checkout: Checkout) -> Checkout:
    """The real checkout, which keeps the download."""
    checkout.doit(*WORDS)
    return checkout


def record(checkout: Checkout) -> Any:
    table = json.loads((checkout.artifacts / "nifty-gawk-x86_64.json").read_text())
    (found,) = table["manifest"]["dropins"]
    return found


def test_manifest_names_the_package(gawk: Checkout) -> None:
    assert record(gawk)["packages"] == [
        {"name": "gawk", "version": "1:5.2.1-2", "licence": "GPL-3.0-or-later"}
    ]


def test_manifest_has_sonames_and_versions(gawk: Checkout) -> None:
    (program,) = record(gawk)["programs"]
    assert "libmpfr.so.6" in program["needs"]["libraries"]
    assert "GLIBC_2.34" in program["needs"]["versions"]["libc.so.6"]


def test_two_checkouts_make_the_same_image(gawk: Checkout, clone: Cloner) -> None:
    copy = clone()
    copy.doit(*WORDS, "offline=yes")
    name = "nifty-gawk-x86_64.tar.zst"
    assert copy.sums()[name] == gawk.sums()[name]


def test_offline_names_the_package_that_is_missing(clone: Cloner) -> None:
    copy = clone()
    for path in (copy.artifacts / "store").glob("*gawk*"):
        path.unlink()
    told = copy.doit(*WORDS, "offline=yes", code=1).stderr
    assert "gawk_5.2.1-2_amd64.deb of gawk: 672772 bytes" in told


def greeting(checkout: Checkout) -> bytes:
    rootfs = archive.read(checkout.artifacts / "nifty-x86_64.tar.zst")
    entry = rootfs.resolve("usr/local/bin/greet")
    assert isinstance(entry, File)
    return entry.content


def test_changed_source_on_the_build_host_is_noticed(clone: Cloner, tmp_path: Path) -> None:
    copy = clone()
    script = tmp_path / "greet"
    script.write_text("#!/bin/sh\necho hello\n")
    with (copy.root / "recipes/images/nifty.toml").open("a") as recipe:
        recipe.write(DROPIN.format(source=script))
    copy.doit("build", "arch=x86_64", "offline=yes")
    before = copy.doit("build", "arch=x86_64", "offline=yes").stderr
    script.write_text("#!/bin/sh\necho good morning\n")
    after = copy.doit("build", "arch=x86_64", "offline=yes").stderr
    assert ("assemble" in before, "assemble" in after) == (False, True)
    assert greeting(copy) == script.read_bytes()


def test_drop_in_that_would_not_run_stops_the_build(clone: Cloner, tmp_path: Path) -> None:
    copy = clone()
    script = tmp_path / "greet"
    script.write_text("#!/usr/bin/no-such-interpreter\n")
    with (copy.root / "recipes/images/nifty.toml").open("a") as recipe:
        recipe.write(DROPIN.format(source=script))
    told = copy.doit("build", "arch=x86_64", "offline=yes", code=1).stderr
    assert "error: drop-ins that would not run:" in told
    assert f"{script}: needs the interpreter /usr/bin/no-such-interpreter" in told
