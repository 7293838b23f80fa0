"""The same bytes from another place, user, umask, locale, time zone, parallelism and moment."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from pipeline.settings import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkouts import Checkout, Copier

# two builds of everything, where neither has been made
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
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


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name == "x86_64" else [pytest.mark.foreign])
        for name in ARCHITECTURES
    ],
)
def architecture(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def first(checkout: Checkout, architecture: str) -> Checkout:
    """This checkout, with the image for *architecture*."""
    checkout.doit("build", "image=nifty", f"arch={architecture}")
    return checkout


@pytest.fixture(scope="module")
def second(
    first: Checkout, copy_project: Copier, as_anybody: tuple[str, ...], architecture: str
) -> Checkout:
    """A checkout built under other circumstances in every respect, with nothing taken along."""
    made = copy_project(ELSEWHERE)
    store = made.artifacts / "store"
    if not store.exists():  # the downloads, and only these, may be the same
        shutil.copytree(first.artifacts / "store", store)
    for path in (made.artifacts / "SHA256SUMS", *made.artifacts.glob("nifty-*")):
        path.unlink(missing_ok=True)
    give_away(made.root, as_anybody)
    made.doit(
        "build",
        "jobs=1",
        f"arch={architecture}",
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
def test_components_are_equal(
    first: Checkout, second: Checkout, architecture: str, program: str
) -> None:
    one, other = (
        (each.artifacts / "components" / architecture / program).read_bytes()
        for each in (first, second)
    )
    assert one == other


def test_images_are_equal(first: Checkout, second: Checkout, architecture: str) -> None:
    one, other = first.sums(), second.sums()
    assert set(other) == {f"nifty-{architecture}.{end}" for end in ("tar.zst", "tar.xz", "json")}
    assert {name: one[name] for name in other} == other


def test_no_path_of_the_machine_is_in_a_binary(
    first: Checkout, second: Checkout, architecture: str
) -> None:
    for each in (first, second):
        paths = list((each.artifacts / "components" / architecture).glob("*/*"))
        assert len(paths) >= 6
        for path in paths:
            content = path.read_bytes()
            assert str(each.root).encode() not in content
            assert b"ziglang" not in content
