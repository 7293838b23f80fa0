"""A closure as text for people, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.libraries.loaded import Closure, Loaded


def lines(closure: Closure) -> Iterator[str]:
    """Who needs whom, each with its size in bytes; a file's own needs are told where it is first.

    Ends with the sum over all files, and with the problems.
    """
    for script in closure.scripts:
        yield f"{'':>12}  {script}"
    yield from _tree(closure)
    for launcher in closure.launchers:
        yield from _tree(launcher)
    files = closure.files()
    yield f"{closure.size:>12,}  bytes in {len(files)} file{'s' * (len(files) != 1)}"
    for problem in closure.problems:
        yield f"problem: {problem}"


def _tree(closure: Closure) -> Iterator[str]:
    if closure.program is None:
        return
    yield f"{closure.program.size:>12,}  {closure.program.path}"
    known = {each.path: each for each in closure.libraries}
    known[closure.program.path] = closure.program
    told = {closure.program.path}
    interpreter = closure.interpreter
    if interpreter is not None and interpreter.path not in known:
        yield f"{interpreter.size:>12,}  {'├── ' if closure.program.needs else '└── '}" + _label(
            interpreter
        )
    yield from _branches(closure.program, known, told, "")


def _branches(
    parent: Loaded, known: dict[str, Loaded], told: set[str], indent: str
) -> Iterator[str]:
    for number, path in enumerate(parent.needs, start=1):
        is_last = number == len(parent.needs)
        corner, below = ("└── ", "    ") if is_last else ("├── ", "│   ")
        each = known[path]
        if path in told:
            yield f"{'':>12}  {indent}{corner}{each.name}"
            continue
        told.add(path)
        yield f"{each.size:>12,}  {indent}{corner}{_label(each)}"
        yield from _branches(each, known, told, indent + below)


def _label(each: Loaded) -> str:
    """As ldd(1) prints it: `name => path`, and where that leads if it is a link."""
    label = each.path if each.name == each.path else f"{each.name} => {each.path}"
    return label if str(each.file) == each.path else f"{label} ({each.file})"


def as_json(closure: Closure) -> dict[str, Any]:
    """*closure* in JSON's types, the same for the same files every time."""
    return {
        "binary": closure.binary,
        "libc": None if closure.libc is None else closure.libc.value,
        "scripts": list(closure.scripts),
        "program": closure.program and _file(closure.program),
        "interpreter": closure.interpreter and _file(closure.interpreter),
        "libraries": [_file(each) for each in closure.libraries],
        "launchers": [as_json(each) for each in closure.launchers],
        "size": closure.size,
        "problems": [
            {
                "kind": problem.kind.value,
                "binary": problem.binary,
                "needed_by": problem.needed_by,
                "library": problem.library,
                "version": problem.version,
                "found": problem.found,
                "searched": list(problem.searched),
                "detail": problem.detail,
                "message": str(problem),
            }
            for problem in closure.problems
        ],
    }


def _file(each: Loaded) -> dict[str, Any]:
    return {
        "name": each.name,
        "path": each.path,
        "file": str(each.file),
        "size": each.size,
        "needs": list(each.needs),
    }
