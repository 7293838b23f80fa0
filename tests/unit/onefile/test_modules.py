"""What is packed: all that a host's commands import, and nothing that builds."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from pipeline.onefile import modules
from pipeline.onefile.modules import ModulesError
from pipeline.paths import PROJECT
from pipeline.tasks import host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKED = modules.closure(PROJECT, ["pipeline.tasks.host"])
# By that line a file on the disk is known again, whoever wrote it.
MARKS = ["pipeline/host/doctor/remedy.py: doit doctor"]
OURS = "pipeline"
TYPES = "if TYPE_CHECKING:\n import pipeline.c"


def test_imports_are_followed_but_those_of_type_checkers(tmp_path: Path) -> None:
    files = {
        "pipeline/commands/__init__.py": "",
        "pipeline/commands/deploy.py": "",
        "pipeline/__init__.py": "",
        "pipeline/a.py": f"from {OURS}.room import b\nalways('deploy')\n{TYPES}",
        "pipeline/room/__init__.py": "",
        "pipeline/room/b.py": f"def late():\n import pipeline.d\n from {OURS}.builder import e",
        "pipeline/c.py": "",
        "pipeline/d.py": "",
        "pipeline/builder/__init__.py": "",
        "pipeline/builder/e.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = modules.closure(tmp_path, ["pipeline.a"])
    names = ["__init__.py", "a.py", "d.py", "room/__init__.py", "room/b.py"]
    names += ["commands/__init__.py", "commands/deploy.py"]
    assert found == {f"pipeline/{name}": tmp_path / "pipeline" / name for name in names}
    with pytest.raises(ModulesError, match=r"no module pipeline\.f"):
        modules.closure(tmp_path, ["pipeline.f"])


def test_a_host_s_commands_are_there_and_nothing_that_builds() -> None:
    rooms = {path.split("/")[1] for path in PACKED}
    assert {"commands", "host", "image", "libraries", "net", "release", "tasks", "trust"} < rooms
    assert rooms & {"builder", "onefile"} == set()
    assert "pipeline/release/sbom.py" not in PACKED  # which needs cyclonedx
    commands = {path.split("/")[2] for path in PACKED if path.startswith("pipeline/commands/")}
    assert {f"{name}.py" for name in host.names()} < commands
    assert commands & {"publish.py", "image.py", "bench.py", "pyz.py"} == set()


def test_their_hints_say_what_is_typed_there() -> None:
    """That is `to_type("status")`; only what needs a checkout is always `doit build`."""
    said = [f"{inside}: {words}" for inside, path in PACKED.items() for words in _saying(path)]
    assert said == MARKS


def _saying(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield from re.findall(rf"\bdoit (?:{'|'.join(host.names())})\b", node.value)
