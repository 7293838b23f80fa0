"""A scratch space of a program's own, so that a test sees what the program left behind."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from pipeline.run import CLEAN_ENVIRONMENT


def environment(folder: Path) -> dict[str, str]:
    """A clean one whose scratch space is below *folder*: what is left there is ours."""
    (folder / "scratch").mkdir(exist_ok=True)
    return {**CLEAN_ENVIRONMENT, "TMPDIR": str(folder / "scratch")}


def left(folder: Path) -> list[str]:
    """Mounts, loop devices and files of a benchmark whose scratch space is below *folder*."""
    scratch = str(folder / "scratch")
    found = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if scratch in line
    ]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # detached while we look
            if scratch in backing.read_text(errors="replace"):
                found.append(str(backing))
    return [*found, *map(str, (folder / "scratch").iterdir())]


def assert_nothing_left(folder: Path) -> None:
    deadline = time.monotonic() + 20
    # a loop device goes a moment after its mount
    while (found := left(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == []
