"""The project's own rules, checked by their tools, so that the test command covers them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, run

if TYPE_CHECKING:
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


def test_folders_of_unit_tests_are_rooms_of_the_pipeline() -> None:
    top = PROJECT / "tests" / "unit"
    folders = {path.parent.relative_to(top) for path in top.rglob("*.py")}
    assert (
        sorted(folder for folder in folders if not (PROJECT / "pipeline" / folder).is_dir()) == []
    )


def test_a_unit_test_that_hangs_is_ended_within_a_minute(request: pytest.FixtureRequest) -> None:
    mark = request.node.get_closest_marker("timeout")
    assert mark is not None
    assert mark.args == (60,)
