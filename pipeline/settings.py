"""Command-line variables (`doit build image=nifty`) as one frozen value, checked whole.

Names and values are checked before any task runs; a misspelt one is an error that names the right
one. Reading them from doit is `tasks.variables`' business.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pipeline.errors import ProblemsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ARCHITECTURES = ("x86_64", "aarch64")


class VariablesError(ProblemsError, UsageError):
    """Variables that do not exist or cannot have the value given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every variable of the command line, with its default."""

    image: str = "nifty"
    arch: str = "x86_64"
    offline: bool = False
    jobs: int = 0
    format: str = "table"
    file: str = ""
    count: int = 1


def _word(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", value):
        raise ValueError("the name of a recipe in recipes/images, such as nifty")
    return value


def _truth(value: str) -> bool:
    if value not in ("yes", "no"):
        raise ValueError("yes or no")
    return value == "yes"


def _choice(*allowed: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in allowed:
            close = difflib.get_close_matches(value, allowed, n=1)
            tip = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{' or '.join(allowed)}{tip}")
        return value

    return check


def _whole(low: int, high: int) -> Callable[[str], int]:
    def check(value: str) -> int:
        # isdecimal alone would take other scripts' digits
        if not (value.isascii() and value.isdecimal() and low <= int(value) <= high):
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return check


def _path(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("the path of a file")
    return value


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "image": _word,
    "arch": _choice(*ARCHITECTURES),
    "offline": _truth,
    "jobs": _whole(1, 1024),
    "format": _choice("table", "json"),
    "file": _path,
    "count": _whole(1, 63335),
}


def parse(variables: Mapping[str, str], *, images: Iterable[str]) -> Settings:
    """Settings of *variables*, a name and its text each; *images* are the recipes there are.

    Raises VariablesError with every problem.
    """
    known = sorted(field.name for field in fields(Settings))
    problems = []
    values: dict[str, Any] = {}
    machine = os.uname().machine
    if machine in ARCHITECTURES:
        values["arch"] = machine
    for name, text in variables.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            tip = f"did you mean {close[0]}=?" if close else f"known: {', '.join(known)}"
            problems.append(f"{name}={text}: no such variable; {tip}")
            continue
        try:
            values[name] = _PARSERS[name](text)
        except ValueError as error:
            problems.append(f"{name}={text}: expected {error}")
    image, there = values.get("image", "nifty"), sorted(images)
    if image not in there and "image" in values:
        close = difflib.get_close_matches(image, there, n=1)
        tip = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(there)}"
        problems.append(f"image={image}: no recipes/images/{image}.toml; {tip}")
    if problems:
        raise VariablesError("these variables cannot be meant so:", problems)
    return Settings(**values)
