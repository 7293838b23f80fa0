"""The file that `doit pyz` makes: the same from anywhere, and a bare Python is enough to run it."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, Completed, run
from pipeline.tasks import host
from tests.support.published import FIRST, put

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkouts import Checkout, Copier

pytestmark = pytest.mark.integration

pytest_plugins = ["tests.support.checkouts"]

PYTHON = f"3.{sys.version_info.minor}"
MACHINE = os.uname().machine
WHEELS = f"artifacts/cache/wheels/py{PYTHON.replace('.', '')}-{MACHINE}"
WORDS = ("pyz", f"python={PYTHON}", f"arch={MACHINE}")


@pytest.fixture(scope="module")
def told(checkout: Checkout) -> str:
    """What making it here says."""
    return checkout.doit(*WORDS).stdout


def test_another_user_makes_the_same_elsewhere(
    told: str, copy_project: Copier, public_folder: Path, as_anybody: tuple[str, ...]
) -> None:
    made = copy_project(public_folder / "elsewhere" / "deeper")
    shutil.copytree(PROJECT / WHEELS, made.root / WHEELS)
    if as_anybody:
        run(["chown", "-R", as_anybody[1].removeprefix("--reuid="), made.root])
    there = made.doit(*WORDS, "offline=yes", prefix=as_anybody, umask=0o077)
    assert there.stdout == told
    digest, _, path = told.rstrip("\n").partition("  ")
    assert len(digest) == 64
    assert (made.root / path).read_bytes() == (PROJECT / path).read_bytes()


def test_a_wheel_that_is_not_pinned_is_not_packed(
    told: str, copy_project: Copier, public_folder: Path
) -> None:
    made = copy_project(public_folder / "changed")
    shutil.copytree(PROJECT / WHEELS, made.root / WHEELS)
    (wheel,) = (made.root / WHEELS).glob("doit-*.whl")
    with wheel.open("ab") as file:
        file.write(b"\0")
    refused = made.doit(*WORDS, "offline=yes", code=1).stderr
    assert f"no pinned wheel for Python {PYTHON} on {MACHINE} of doit" in refused
    assert list(made.artifacts.glob("*.pyz")) == []


def test_a_bare_python_runs_it_for_any_user(
    told: str, public_folder: Path, as_anybody: tuple[str, ...]
) -> None:
    path = public_folder / "nifty.pyz"
    shutil.copyfile(PROJECT / told.split()[1], path)
    release = public_folder / "release"
    put(release, FIRST)
    cache = public_folder / "cache"
    cache.mkdir()
    cache.chmod(0o777)

    def typed(*words: str) -> Completed:
        python = sys._base_executable  # type: ignore[attr-defined]
        env = {**CLEAN_ENVIRONMENT, "XDG_CACHE_HOME": str(cache)}
        argv = [*as_anybody, python, "-I", path, *words]
        return run(argv, env=env, check=False, cwd=public_folder)

    # settings of doit that lie where it is called are nobody's but theirs
    (public_folder / "doit.cfg").write_text("[GLOBAL]\nloader = evil\n[LOADER]\nevil = evil:no\n")
    listed = typed("list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == sorted(host.names())
    seen = typed("verify", f"from={release}", f"keyring={release}/nifty-keyring.pgp")
    assert (seen.returncode, "FAIL" in seen.stdout) == (0, False), seen
    refused = typed("deply", "count=1")
    assert refused.returncode == 3
    assert "did you mean 'deploy'" in refused.stderr
    assert refused.stderr.endswith(f" {path} list\n")
