"""What doit itself says of a command line that cannot be meant so, with a suggestion.

doit 0.37 has no place to hang this in; what is replaced here is the text of one exception, and the
tracebacks of `doit info buil` and of a standard output that takes nothing.
"""

from __future__ import annotations

import difflib
import re
from functools import wraps
from typing import TYPE_CHECKING, Any

from doit.cmd_info import Info
from doit.doit_cmd import DoitMain
from doit.exceptions import InvalidCommand

from pipeline.errors import reason
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def install(tasks: Iterable[str], classes: Iterable[Any] = DoitMain.DOIT_CMDS) -> None:
    """From now on a misspelt name is answered with the nearest one of *tasks* and commands.

    *classes*: those commands, doit's own.
    """
    commands = tuple(command.get_name() for command in classes)
    known = tuple(tasks)
    plain = Exception.__str__

    def told(error: InvalidCommand) -> str:
        said = plain(error)
        found = re.fullmatch(r"'(.*)' is not a task\.", said, re.DOTALL)
        name = found[1] if found else error.not_found
        if name is None:
            return said
        return answer(name, known if error.cmd_used or found else (*known, *commands))

    InvalidCommand.__str__ = told
    Info._execute = _refusing(Info._execute)  # noqa: SLF001 (as the module says)
    for command in classes:
        if hasattr(command, "_execute"):
            command._execute = _heard(command._execute)  # noqa: SLF001


def answer(name: str, known: Iterable[str]) -> str:
    """That *name* is none of *known*, and which of them it may have been meant to be."""
    known = tuple(known)
    base, _, part = name.partition(":")
    if part and base in known:
        return f"{base} has no part {part!r}\nhint: {to_type(f'list --all {base}')}"
    close = difflib.get_close_matches(name, known, n=1)
    tip = f"; did you mean {close[0]!r}?" if close else ""
    return f"{name!r} is no task{tip}\nhint: {to_type('list')}"


def _refusing(execute: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(execute)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return execute(*args, **kwargs)
        except KeyError as error:
            raise InvalidCommand(not_found=str(error.args[0])) from None

    return told


def _heard(execute: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(execute)
    def told(command: Any, *args: Any, **kwargs: Any) -> Any:
        if command.get_name() == "run":
            return execute(command, *args, **kwargs)  # writes through pipeline.terminal
        if command.outstream is None:  # `>&-`
            raise InvalidCommand("standard output is closed: nowhere to write the result to")
        try:
            return execute(command, *args, **kwargs)
        except OSError as error:
            raise InvalidCommand(reason(error, "standard output")) from None

    return told
