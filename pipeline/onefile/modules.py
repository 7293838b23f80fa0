"""Which modules of ours a program needs: those that it imports, and those import, and so on."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# What a checkout is needed for anyway; a command that asks for it says so.
_OTHER_HALF = "pipeline.builder"
# Of tasks.actions: the functions by which a task names its command.
_DOORS = ("always",)


class ModulesError(NiftyError):
    """A module that is to be packed and is not there."""


def closure(project: Path, names: Iterable[str]) -> dict[str, Path]:
    """Files of the modules *names* and of all that they import of ours, by their paths inside.

    Imports within functions count, and the lazy door to commands, `always("deploy")`; those for
    type checkers do not. What builds is left out. Raises ModulesError.
    """
    found: dict[str, Path] = {}
    todo = list(names)
    for name in todo:
        if _file(project, name) is None:
            raise ModulesError(f"{project}: no module {name}")
    while todo:
        name = todo.pop()
        if name.startswith(_OTHER_HALF) or not name.startswith("pipeline"):
            continue
        path = _file(project, name)
        inside = path.relative_to(project).as_posix() if path else ""
        if path is None or inside in found:
            continue
        found[inside] = path
        todo += [name.rpartition(".")[0], *_imported(ast.parse(path.read_bytes(), str(path)))]
    return found


def _file(project: Path, name: str) -> Path | None:
    """Where module *name* is; None for what is a name within one."""
    path = project.joinpath(*name.split("."))
    both = (path / "__init__.py", path.with_suffix(".py"))
    return next((one for one in both if one.is_file()), None)


def _imported(tree: ast.AST) -> Iterator[str]:
    """Modules, and what may be one, that are imported anywhere in *tree*."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            if isinstance(node, ast.Call) and ast.unparse(node.func) in _DOORS:
                yield f"pipeline.commands.{ast.literal_eval(node.args[0])}"
            yield from _imported(node)
