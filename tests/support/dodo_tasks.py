"""What dodo.py's tasks lead to, as JSON: `python -m tests.support.dodo_tasks`.

`modules` are those that doit has to import before any command, `doors` the actions that are
functions of pipeline/commands: task, module, function, and what is wrong with the call, or "".
Importing dodo.py changes what signals do, so it is done in a process of its own.
"""

from __future__ import annotations

import inspect
import json
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import dodo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.tasks.actions import Task


def tasks() -> Iterator[tuple[str, Task]]:
    """Every task and subtask, by the name of the function that makes it."""
    for name, maker in vars(dodo).items():
        if name.startswith("task_"):
            made = maker()
            for task in [made] if isinstance(made, dict) else made:
                own = task.get("basename", name.removeprefix("task_"))
                yield own.partition(":")[0], task


def doors(name: str, task: Task) -> Iterator[tuple[str, str, str, str]]:
    """The late-bound actions of *task*; arguments are bound to the function, not called."""
    for one in task["actions"] or ():
        action, arguments = one if isinstance(one, tuple) else (one, [])
        door = inspect.getclosurevars(inspect.unwrap(action)).nonlocals
        yield name, door["name"], door["function"], problem(arguments, **door)


def problem(arguments: list[Any], *, name: str, function: str) -> str:
    """Why that function of pipeline/commands cannot be called so; empty if it can."""
    try:
        called = getattr(import_module(f"pipeline.commands.{name}"), function)
        inspect.signature(called).bind(*arguments)
    except (ImportError, AttributeError, TypeError) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    made = list(tasks())
    loaded = sorted(sys.modules)
    found = [door for name, task in made for door in doors(name, task)]
    json.dump({"modules": loaded, "doors": found}, sys.stdout)
