"""The same bytes from another place, user, umask, locale, time zone, parallelism and moment."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkouts import Checkout, Copier

pytestmark = pytest.mark.integration
pytest_plugins = ["tests.support.checkouts"]

# Deeper than this checkout. It stays, so that only a change of what matters compiles again.
ELSEWHERE = PROJECT / "artifacts/cache/tests/a/rather/deep/folder/somewhere-else/checkout"

# What a shell or a distribution's build farm may have set; none of it may matter.
HOSTILE = {
    "AR": "/bin/false",
    "ARCH": "mips",
    "BASH_ENV": "/nonexistent",
    "CC": "/bin/false",
    "CFLAGS": "-O0 -DHOSTILE=1 -no-such-option",
    "CONFIG_SITE": "/nonexistent",
    "CPPFLAGS": "-DHOSTILE=1",
    "CROSS_COMPILE": "no-such-prefix-",
    "ENV": "/nonexistent",
    "HOME": "/nonexistent",
    "KBUILD_OUTPUT": "/nonexistent",
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "tr_TR.UTF-8",
    "LDFLAGS": "-L/nonexistent -lnothing",
    "MAKEFLAGS": "--dry-run",
    "MAKELEVEL": "3",
    "PYTHONHASHSEED": "1",
    "SOURCE_DATE_EPOCH": "1",
    "TZ": "Asia/Kathmandu",
    "ZIG_GLOBAL_CACHE_DIR": "/nonexistent",
}


@pytest.fixture(scope="module")
def second(checkout: Checkout, copy_project: Copier, as_anybody: tuple[str, ...]) -> Checkout:
    """A checkout built under other circumstances in every respect, with nothing taken along."""
    made = copy_project(ELSEWHERE)
    store = made.artifacts / "store"
    if not store.exists():  # the downloads, and only these, may be the same
        shutil.copytree(checkout.artifacts / "store", store)
    for name in ("SHA256SUMS", "nifty-x86_64.tar.zst", "nifty-x86_64.tar.xz", "nifty-x86_64.json"):
        (made.artifacts / name).unlink(missing_ok=True)
    give_away(made.root, as_anybody)
    made.doit(
        "build",
        "jobs=1",
        "arch=x86_64",
        env={"PATH": "/bin:/usr/bin", **HOSTILE},
        prefix=as_anybody,
        umask=0o077,
    )
    return made


def give_away(root: Path, prefix: tuple[str, ...]) -> None:
    """Let the user that *prefix* changes to own everything below *root*."""
    for word in prefix:
        if word.startswith("--reuid="):
            owner = int(word.removeprefix("--reuid="))
            for path in (root, *root.rglob("*")):
                os.chown(path, owner, owner, follow_symlinks=False)


@pytest.mark.parametrize(
    "program", ["busybox/busybox", "dropbear/dropbearmulti", "sftp-server/sftp-server"]
)
def test_components_are_equal(checkout: Checkout, second: Checkout, program: str) -> None:
    one, other = (
        (each.artifacts / "components" / "x86_64" / program).read_bytes()
        for each in (checkout, second)
    )
    assert one == other


def test_images_are_equal(checkout: Checkout, second: Checkout) -> None:
    one, other = checkout.sums(), second.sums()
    assert len(other) == 3
    assert {name: one[name] for name in other} == other


def test_no_path_of_the_machine_is_in_a_binary(checkout: Checkout, second: Checkout) -> None:
    for each in (checkout, second):
        for path in (each.artifacts / "components" / "x86_64").glob("*/*"):
            content = path.read_bytes()
            assert str(each.root).encode() not in content
            assert b"ziglang" not in content
