"""Pins: read as they are written, and those of this project are what pyproject.toml asks for."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from pipeline.commands.pyz import LOCK
from pipeline.onefile import lock
from pipeline.onefile.lock import LockError, Pin
from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    pins = (
        Pin(name="a-b", version="1.0.post1", hashes=("0" * 64,)),
        Pin(name="c", version="2", hashes=("1" * 64, "2" * 64)),
    )
    (tmp_path / "pins").write_text(lock.text(reversed(pins)))
    assert lock.read(tmp_path / "pins") == pins


@pytest.mark.parametrize("line", ["a==1", "a>=1 --hash=sha256:" + "0" * 64, "--index-url x"])
def test_what_is_no_pin_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "pins").write_text(f"{line}\n")
    with pytest.raises(LockError, match="not a pin with hashes"):
        lock.read(tmp_path / "pins")


def test_the_pins_are_what_the_program_needs() -> None:
    table = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*table["dependencies"], *table["optional-dependencies"]["verify"]]
    pinned = {pin.name: pin.version for pin in lock.read(LOCK)}
    assert len(wanted) > 5
    for one in map(Requirement, wanted):
        assert one.specifier.contains(pinned[lock.normalized(one.name)]), one
