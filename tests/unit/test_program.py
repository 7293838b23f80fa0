"""What hints tell to type: `doit` in a checkout, else what the user has typed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pipeline import program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program without a checkout, in the folder where its user is."""
    monkeypatch.setattr(program, "HAS_CHECKOUT", False)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.chdir(tmp_path)
    for name, mode in (("nifty.pyz", 0o644), ("x.pyz", 0o755), ("bin/nifty", 0o755)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("#!/usr/bin/python3\n")
        (tmp_path / name).chmod(mode)
    return tmp_path


def test_in_a_checkout_it_is_doit() -> None:
    assert program.to_type("status") == "doit status"
    assert program.to_type_as_root("deploy …") == "sudo .venv/bin/doit deploy …"


@pytest.mark.parametrize(
    ("words", "typed", "as_root"),
    [
        (["python3", "nifty.pyz"], "python3 nifty.pyz", "sudo python3 nifty.pyz"),
        (["/usr/bin/python3", "./x.pyz"], "./x.pyz", "sudo ./x.pyz"),
        (["/usr/bin/python3", "@/bin/nifty"], "nifty", "sudo @/bin/nifty"),
        (["python3.11", "./x.pyz"], "python3.11 ./x.pyz", "sudo python3.11 ./x.pyz"),
        (["python3", "x y/nifty"], "python3 'x y/nifty'", "sudo python3 'x y/nifty'"),
    ],
)
def test_alone_it_is_what_was_typed(
    monkeypatch: pytest.MonkeyPatch, alone: Path, words: list[str], typed: str, as_root: str
) -> None:
    given = [word.replace("@", str(alone)) for word in words]
    if given[1] == "x y/nifty":
        (alone / "x y").mkdir()
        (alone / "x y" / "nifty").write_text("")
    monkeypatch.setattr(sys, "orig_argv", given)
    monkeypatch.setattr(sys, "argv", given[1:])
    assert program.to_type("status") == f"{typed} status"
    told = program.to_type_as_root("stop …").replace("@", str(alone))
    assert told == f"{as_root} stop …".replace("@", str(alone))
