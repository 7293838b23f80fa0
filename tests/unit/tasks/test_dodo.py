"""dodo.py: each task leads to the command of its name, and nothing heavy is imported for that."""

from __future__ import annotations

import ast
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, run

if TYPE_CHECKING:
    from pathlib import Path

# Each takes longer to import than `doit list` may take; by the names in sys.modules.
HEAVY = {"cryptography", "elftools", "pydantic", "pysequoia", "requests", "rich", "zstandard"}


@pytest.fixture(scope="module")
def dodo() -> dict[str, Any]:
    """What tests.support.dodo_tasks tells, of a fresh interpreter."""
    argv = [sys.executable, "-m", "tests.support.dodo_tasks"]
    told: dict[str, Any] = json.loads(run(argv, cwd=PROJECT, env=CLEAN_ENVIRONMENT).stdout)
    return told


def has_run(path: Path) -> bool:
    tree = ast.parse(path.read_text("utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body)


def test_each_task_calls_a_function_that_takes_its_arguments(dodo: dict[str, Any]) -> None:
    assert ["deploy", "deploy", "run", ""] in dodo["doors"]
    assert [door for door in dodo["doors"] if door[3]] == []


def test_a_task_and_its_command_have_one_name(dodo: dict[str, Any]) -> None:
    public = {(task, command) for task, command, _, _ in dodo["doors"] if task[0] != "_"}
    assert {pair for pair in public if pair[0] != pair[1]} == set()


def test_each_command_has_its_task(dodo: dict[str, Any]) -> None:
    commands = {path.stem for path in (PROJECT / "pipeline/commands").glob("*.py") if has_run(path)}
    public = {task for task, _, name, _ in dodo["doors"] if name == "run" and task[0] != "_"}
    assert commands == public


def test_nothing_heavy_is_imported_before_a_command(dodo: dict[str, Any]) -> None:
    loaded = {name.partition(".")[0] for name in dodo["modules"]}
    assert {"doit", "pipeline"} < loaded
    assert loaded & HEAVY == set()
