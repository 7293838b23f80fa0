"""Wheels are taken by name, version and hash; what is not pinned is not asked for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from pipeline.onefile import wheels
from pipeline.onefile.lock import Pin
from pipeline.onefile.wheels import Target, WheelsError

if TYPE_CHECKING:
    from pathlib import Path

TARGET = Target(python="3.11", machine="x86_64")


def pin(name: str, content: bytes) -> Pin:
    return Pin(name=name, version="1.0", hashes=(hashlib.sha256(content).hexdigest(),))


def test_those_with_the_right_hash_are_found_among_others(tmp_path: Path) -> None:
    names = {"a_b-1.0-py3-none-any.whl": b"right", "a_b-1.0-cp311-cp311-linux.whl": b"other"}
    for name, content in {**names, "a_b-2.0-py3-none-any.whl": b"right"}.items():
        (tmp_path / name).write_bytes(content)
    found = wheels.fetch(TARGET, [pin("a-b", b"right")], tmp_path, tmp_path / "lock", offline=True)
    assert [path.name for path in found] == ["a_b-1.0-py3-none-any.whl"]


def test_all_that_are_missing_are_named(tmp_path: Path) -> None:
    pins = [pin("a-b", b"right"), pin("c", b"it")]
    with pytest.raises(WheelsError, match=r"of a-b 1\.0, c 1\.0") as caught:
        wheels.fetch(TARGET, pins, tmp_path, tmp_path / "lock", offline=True)
    assert caught.value.hint == "without offline=yes they are downloaded"


def test_a_machine_without_wheels_is_refused(tmp_path: Path) -> None:
    other = Target(python="3.11", machine="riscv64")
    with pytest.raises(WheelsError, match="arch=riscv64: no wheels are pinned"):
        wheels.fetch(other, [pin("c", b"it")], tmp_path / "none", tmp_path / "lock", offline=False)
    assert not (tmp_path / "none").exists()
