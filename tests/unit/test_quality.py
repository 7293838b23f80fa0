"""The project's own rules, checked by their tools, so that the test command covers them."""

from __future__ import annotations

import ast
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# import-linter has no `python -m` of its own
IMPORT_LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.mark.timeout(300)  # mypy has no cache at first
@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        pytest.param(["-m", "mypy", "--strict"], "Success: no issues found", id="mypy"),
        pytest.param(["-m", "ruff", "check", "."], "All checks passed!", id="ruff check"),
        pytest.param(["-m", "ruff", "format", "--check", "."], "already formatted", id="format"),
        pytest.param(["-c", IMPORT_LINTER], "0 broken", id="import-linter"),
    ],
)
def test_the_project_keeps_its_rules(words: list[str], verdict: str, tmp_path: Path) -> None:
    environment = {**CLEAN_ENVIRONMENT, "HOME": str(tmp_path), "COLUMNS": "200"}
    done = run([sys.executable, *words], env=environment, cwd=PROJECT, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert verdict in told  # a tool that did not look at anything is content too


def _imported_in_texts() -> Iterator[tuple[str, str]]:
    """What programs that stand as text in tests and benchmarks import of ours: module and name."""
    for folder in ("tests", "benchmarks"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found = re.findall(r"\bfrom (pipeline[\w.]*) import ([\w, ]+)", node.value)
                    for module, names in found:
                        yield from ((module, name.split()[0]) for name in names.split(","))


def test_programs_within_texts_import_what_there_is() -> None:
    wanted = set(_imported_in_texts())
    assert ("pipeline.host.state", "records") in wanted
    assert [pair for pair in sorted(wanted) if not _is_there(*pair)] == []


def _is_there(module: str, name: str) -> bool:
    try:
        return hasattr(import_module(module), name) or bool(import_module(f"{module}.{name}"))
    except ModuleNotFoundError:
        return False


def test_folders_of_unit_tests_are_rooms_of_the_pipeline() -> None:
    top = PROJECT / "tests" / "unit"
    folders = {path.parent.relative_to(top) for path in top.rglob("*.py")}
    assert [one for one in folders if not (PROJECT / "pipeline" / one).is_dir()] == []


def _asserting(path: Path, known: frozenset[str] = frozenset()) -> set[str]:
    """Functions, methods too, that assert themselves, or call one that does or is *known* to."""
    found = {"raises", "warns", "fail", *known}
    functions = list(_functions(path))
    while more := {
        function.name
        for function in functions
        if function.name not in found
        for node in ast.walk(function)
        if isinstance(node, ast.Assert)
        or (isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in found)
    }:
        found |= more
    return found


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    tree = ast.parse(path.read_text("utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_test_asserts_something() -> None:
    top = PROJECT / "tests"
    helpers = frozenset(
        name for path in (top / "support").rglob("*.py") for name in _asserting(path)
    )
    silent = [
        f"{path.relative_to(top)}: {name}"
        for path in sorted(top.rglob("test_*.py"))
        for name in {one.name for one in _functions(path)} - _asserting(path, helpers)
        if name.startswith("test_")
    ]
    assert silent == []


def test_a_unit_test_that_hangs_is_ended_within_a_minute(request: pytest.FixtureRequest) -> None:
    mark = request.node.get_closest_marker("timeout")
    assert mark is not None
    assert mark.args == (60,)
