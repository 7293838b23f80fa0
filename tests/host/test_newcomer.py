"""README's two commands, as an ordinary user types them on a fresh machine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from pipeline.run import ProgramError
from tests.support.host.newcomer import PACKAGES, commands, type_in
from tests.support.host.testroot import archive

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.fresh, pytest.mark.timeout(2400)]

IMAGE = "nifty-x86_64.tar.zst"
BUILD, TEST = commands()
# Both build the image again, elsewhere: that is what happens here.
AGAIN = (
    "tests/integration/test_reproducible.py",
    "tests/integration/test_release.py::test_it_is_built_again_from_its_source_and_signed",
)
SHORTER = {"PYTEST_ADDOPTS": " ".join(f"--deselect={test}" for test in AGAIN)}


def here() -> str:
    """The digest of the image that this checkout has built."""
    return hashlib.sha256((PROJECT / "artifacts" / IMAGE).read_bytes()).hexdigest()


def tried(suite: str, work: Path, test: str = TEST) -> str:
    """The digest of the image built there, after the tests passed."""
    try:
        sums = type_in(suite, (BUILD, test), work, timeout=2300, env=SHORTER)
    finally:
        if (work / "log").exists():
            print((work / "log").read_text(errors="replace"))  # noqa: T201 (pytest shows it)
    return sums[IMAGE]


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_both_commands_work_and_make_the_same_image(
    bootable: None, suite: str, tmp_path: Path
) -> None:
    assert tried(suite, tmp_path) == here()


def test_what_comes_next_makes_the_same_image(bootable: None, tmp_path: Path) -> None:
    """Debian sid, where it can be had: it changes every day and may not be installable."""
    try:
        archive("sid", PACKAGES)
    except ProgramError as error:
        pytest.skip(f"no sid today: {error}")
    assert tried("sid", tmp_path, f"{TEST} tests/unit") == here()
