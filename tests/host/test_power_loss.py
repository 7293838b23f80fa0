"""The power fails at many moments of each command: instances are whole or absent, none is lost."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.image.rootfs import File
from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, run
from tests.support.host.altered import IMAGE, altered, built
from tests.support.host.scratch import assert_nothing_left

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("bootable")]

PROGRAM = "tests.support.host.power_loss"
# deploy, deploy of more, upgrade, rollback, undeploy, restore
COMMANDS = 6


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another image: a program more, a file that users have changed, too, and another inittab."""
    profile, table = built().find("etc/profile"), built().find("etc/inittab")
    assert isinstance(profile, File)
    assert isinstance(table, File)
    path = tmp_path_factory.mktemp("image") / "other.tar"
    path.write_bytes(
        altered(
            replace(profile, content=profile.content + b"# of another image\n"),
            replace(table, content=table.content.replace(b"-s 200", b"-s 100")),
            File(path="etc/motd", content=b"another\n"),
            File(path="cbin/which-image", content=b"#!/bin/sh\necho another\n", mode=0o755),
        )
    )
    return path


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_nothing_is_lost_and_the_rerun_finishes(kind: str, tmp_path: Path, other: Path) -> None:
    work = tmp_path / "scratch"
    work.mkdir()
    words: list[str | Path] = [sys.executable, "-m", PROGRAM, kind, work, IMAGE, other]
    found = json.loads(run(words, cwd=PROJECT, env=CLEAN_ENVIRONMENT, timeout=840).stdout)
    assert found["problems"] == []
    # two when each had returned, and some on the way of each
    assert found["moments"] == found["during"] + 2 * COMMANDS
    assert found["during"] >= COMMANDS
    (work / "saved").unlink()
    assert_nothing_left(tmp_path)
