"""A file of a small wheel: it unpacks itself once, whole, where nobody else can write."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.onefile import bootstrap, pack
from pipeline.onefile.wheels import Target

HERE = Target(python=f"3.{sys.version_info.minor}", machine=os.uname().machine)


def made(folder: Path, *, word: str = "hello") -> bytes:
    """A file with *word* in a wheel."""
    folder.mkdir(exist_ok=True)
    wheel = folder / "wheel-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as zipped:
        for name in ("wheel.py", "wheel-1.data/scripts/x.py", "zstandard/_cffi.so"):
            zipped.writestr(zipfile.ZipInfo(name), word)
    (folder / "module").write_text("ours")
    modules = {"pipeline/tasks/host.py": folder / "module"}
    return pack.pack(HERE, [wheel], modules, "0.1")


def unpacked(content: bytes, where: Path) -> Path:
    """The folder that the file with *content* unpacks to, below *where*; nobody holds it."""
    path = where.with_suffix(".pyz")
    path.write_bytes(content)
    with zipfile.ZipFile(path) as packed:
        about = json.loads(packed.read(bootstrap.ABOUT))
        bootstrap.check(about)
        folder, held = bootstrap.unpacked(packed, about, where / "nifty" / "pyz")
    os.close(held)
    return folder


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_same_is_packed_from_anywhere(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "other")
    assert one == other
    assert one.startswith(b"#!/usr/bin/python3\nPK")
    assert pack.name(HERE) == f"nifty-host-py3{sys.version_info.minor}-{HERE.machine}.pyz"


def test_wheels_lie_in_it_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "x.pyz").write_bytes(made(tmp_path))
    with zipfile.ZipFile(tmp_path / "x.pyz") as packed:
        (name,) = (one for one in packed.namelist() if one.startswith("wheels/"))
        assert packed.read(name) == (tmp_path / "wheel-1-py3-none-any.whl").read_bytes()


def test_it_is_unpacked_once_and_for_its_user_alone(tmp_path: Path) -> None:
    content = made(tmp_path)
    folder = unpacked(content, tmp_path / "cache")
    assert listed(folder) == [
        "nifty-0.1.dist-info/METADATA",
        "pipeline/tasks/host.py",
        "wheel.py",
    ]
    assert (folder / "pipeline/tasks/host.py").read_text() == "ours"
    for one in (folder, folder.parent, folder.parent.parent):
        assert one.stat().st_mode & 0o777 == 0o700
    (folder / "wheel.py").write_text("changed")
    assert unpacked(content, tmp_path / "cache") == folder
    assert (folder / "wheel.py").read_text() == "changed"


def test_older_ones_go_unless_somebody_runs_them(tmp_path: Path) -> None:
    old = unpacked(made(tmp_path), tmp_path / "cache")
    held = os.open(old, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    (old.parent / "new-killed").mkdir()
    new = unpacked(made(tmp_path, word="later"), tmp_path / "cache")
    assert sorted(old.parent.iterdir()) == sorted([old, new, old.parent / "lock"])
    os.close(held)
    assert unpacked(made(tmp_path, word="later"), tmp_path / "cache") == new
    assert sorted(old.parent.iterdir()) == sorted([new, old.parent / "lock"])
    assert (new / "wheel.py").read_text() == "later"


@pytest.mark.parametrize("place", ["nifty", "nifty/pyz"])
def test_a_place_that_others_may_write_to_is_refused(tmp_path: Path, place: str) -> None:
    content = made(tmp_path)
    (tmp_path / "cache/nifty/pyz").mkdir(parents=True)
    (tmp_path / "cache" / place).chmod(0o777)
    with pytest.raises(PermissionError, match="others may write there"):
        unpacked(content, tmp_path / "cache")
    assert listed(tmp_path / "cache") == []


def test_a_place_without_binary_modules_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, real = made(tmp_path), os.statvfs(tmp_path)
    state = os.statvfs_result((*real[:8], os.ST_NOEXEC, *real[9:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: state)
    with pytest.raises(PermissionError, match="noexec"):
        unpacked(content, tmp_path / "cache")


@pytest.mark.parametrize("wrong", [{"python": "3.10"}, {"machine": "s390x"}])
def test_another_python_is_told_which_file_it_needs(wrong: dict[str, Any]) -> None:
    here = f"Python {HERE.python} on {HERE.machine}"
    with pytest.raises(SystemExit) as caught:
        bootstrap.check({"python": HERE.python, "machine": HERE.machine, **wrong})
    assert f"take the file for {here}" in str(caught.value.code)


@pytest.mark.parametrize(
    ("user", "variables", "expected"),
    [
        (0, {"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/var/lib/nifty/pyz"),
        (1000, {"HOME": "/h"}, "/h/.cache/nifty/pyz"),
        (1000, {"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/nifty/pyz"),
        (1000, {"HOME": "/h", "XDG_CACHE_HOME": "x"}, "/h/.cache/nifty/pyz"),
    ],
)
def test_where_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch, user: int, variables: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert bootstrap.place() == Path(expected)
