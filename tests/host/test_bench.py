"""`doit bench` with tiny counts: every part runs, tells, and leaves nothing. No time is judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess  # noqa: TID251 (what is timed is the process itself)
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import filesystems, peers
from pipeline.host.units.runners import RUNNERS
from pipeline.paths import PROJECT
from pipeline.run import Completed, run
from tests.support.host.scratch import assert_nothing_left, environment

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("bootable")]


def words(folder: Path, *more: str) -> list[str]:
    asked = ["--out", str(folder / "out"), "--rounds", "1", *more]
    return [sys.executable, "-m", "benchmarks", *asked]


def measured(folder: Path, *more: str) -> Completed:
    return run(words(folder, *more), cwd=PROJECT, env=environment(folder), timeout=600)


def read(folder: Path, part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / f"{part}.json").read_text("utf-8"))
    return found


def test_deploying_is_measured_on_every_file_system(tmp_path: Path) -> None:
    told = measured(tmp_path, "--parts", "deploy", "--counts", "1,2,5")
    found = read(tmp_path, "deploy")
    seen = {(row["filesystem"], row["peer"], row["count"]) for row in found["rows"]}
    assert seen == {
        (kind, peer, count)
        for kind in filesystems.KINDS
        for count in (1, 2, 5)
        for peer in peers.peers_on(kind, count)
    }
    assert "doit deploy takes" in told.stdout
    assert len(found["fits"]) == 4 * 6 + 1
    assert_nothing_left(tmp_path)


def test_starting_is_measured_beside_the_c_loop(tmp_path: Path) -> None:
    told = measured(tmp_path, "--parts", "start", "--counts", "2,3")
    rows = read(tmp_path, "start")["rows"]
    ways = [*(f"runner={runner}" for runner in RUNNERS), "C loop"]
    assert [(row["count"], row["way"]) for row in rows] == [
        (count, way) for count in (2, 3) for way in ways
    ]
    assert all(row["pss"][0] > 0 for row in rows)
    assert "C loop" in told.stdout
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        words(tmp_path, "--parts", "deploy", "--counts", "1000", "--on", "ext4"),
        cwd=PROJECT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as bench:
        deadline = time.monotonic() + 60
        # in a mount namespace of its own, so this looks through the process
        mounts = Path(f"/proc/{bench.pid}/mountinfo")
        while f"{tmp_path}/scratch" not in mounts.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(bench.pid, number)
        _out, error = bench.communicate(timeout=60)
    assert bench.returncode == -signal.SIGINT, error
    assert "Traceback" not in error
    assert_nothing_left(tmp_path)


_HELD = """
import os, sys
from pathlib import Path
from benchmarks import filesystems
filesystems.keep_mounts_private()
try:
    with filesystems.fresh("ext4", Path(sys.argv[1])) as mount:
        os.open(mount / "held", os.O_CREAT)  # as an interrupt leaves one
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_descriptor_left_open_by_an_interrupt_holds_nothing_up(tmp_path: Path) -> None:
    environment(tmp_path)
    told = run([sys.executable, "-c", _HELD, tmp_path / "scratch"], cwd=PROJECT)
    assert told.stdout == "interrupted\n"
    assert_nothing_left(tmp_path)
