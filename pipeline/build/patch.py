"""Applies unified diffs, strictly: every context line must match, at one place only.

No fuzz: a patch that does not fit exactly is an error, so the result is the same everywhere and
nothing is taken from the system's `patch`. Format: POSIX.1-2017 diff -u, GNU's /dev/null for files
that come or go; `-p1` is the only depth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


class PatchError(NiftyError):
    """A patch that is damaged or does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """Lines to find and lines to put there; *start* is the expected line, counted from 0."""

    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDiff:
    """Hunks of one file; None as *old* creates it, None as *new* removes it."""

    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...]


def apply(text: str, root: Path, *, name: str) -> tuple[str, ...]:
    """Apply the patch *text* below *root*; returns the changed files. *name* is for errors.

    Raises PatchError before anything is written if any hunk does not fit exactly once.
    """
    results: dict[str, str | None] = {}
    for diff in parse(text, name=name):
        target = diff.new or diff.old
        assert target is not None  # noqa: S101 (parse gives at least one name)
        path = beneath(root, target)
        if diff.old is None:
            lines: list[str] = []
        elif target in results:
            lines = (results[target] or "").splitlines(keepends=True)
        elif path.is_file():
            lines = path.read_text("utf-8", "surrogateescape").splitlines(keepends=True)
        else:
            raise PatchError(f"{name}: {target}: no such file in the source")
        patched = _patched(lines, diff.hunks, f"{name}: {target}")
        results[target] = None if diff.new is None else "".join(patched)
    for target, content in results.items():
        path = beneath(root, target)
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8", "surrogateescape", newline="")
    return tuple(results)


def parse(text: str, *, name: str) -> tuple[FileDiff, ...]:
    """The files *text* changes. Raises PatchError if it has none or a hunk is cut short."""
    # not splitlines: form feeds and the like are ordinary characters of a C file
    lines = [f"{line}\n" for line in text.split("\n")]
    diffs: list[FileDiff] = []
    index = 0
    while index < len(lines) - 1:
        if not (lines[index].startswith("--- ") and lines[index + 1].startswith("+++ ")):
            index += 1  # headers of mails and of git
            continue
        old, new = _file_name(lines[index], name), _file_name(lines[index + 1], name)
        if old is None and new is None:
            raise PatchError(f"{name}: line {index + 1}: both names are /dev/null")
        index += 2
        hunks = []
        while index < len(lines) and (head := _HUNK.match(lines[index])):
            hunk, index = _hunk(lines, index + 1, head, name)
            hunks.append(hunk)
        diffs.append(FileDiff(old=old, new=new, hunks=tuple(hunks)))
    if not diffs or not all(diff.hunks for diff in diffs):
        raise PatchError(f"{name}: not a unified diff, or one without hunks")
    return tuple(diffs)


def _file_name(line: str, name: str) -> str | None:
    path = line[4:].split("\t", maxsplit=1)[0].strip()
    if path == "/dev/null":
        return None
    top, slash, rest = path.partition("/")
    if not (top and slash):
        raise PatchError(f"{name}: {path!r}: expected a name with one leading folder (-p1)")
    return rest


def _hunk(lines: list[str], index: int, head: re.Match[str], name: str) -> tuple[Hunk, int]:
    left, right = (int(head[n]) if head[n] is not None else 1 for n in (2, 4))
    old: list[str] = []
    new: list[str] = []
    while left > len(old) or right > len(new):
        line = lines[index] if index < len(lines) - 1 else ""
        match line[:1]:
            case " " | "\n":  # mail programs strip the blank of an empty context line
                old.append(line[1:] or "\n")
                new.append(line[1:] or "\n")
            case "-":
                old.append(line[1:])
            case "+":
                new.append(line[1:])
            case "\\":
                _without_newline(lines[index - 1], old, new)
            case _:
                raise PatchError(f"{name}: line {index + 1}: the hunk ends too early")
        index += 1
    if index < len(lines) and lines[index].startswith("\\"):
        _without_newline(lines[index - 1], old, new)
        index += 1
    start = max(int(head[1]) - 1, 0)
    return Hunk(start=start, old=tuple(old), new=tuple(new)), index


def _without_newline(before: str, old: list[str], new: list[str]) -> None:
    """A mark that a file ends without a newline speaks of the line before it."""
    if before[:1] != "+":
        old[-1] = old[-1].removesuffix("\n")
    if before[:1] != "-":
        new[-1] = new[-1].removesuffix("\n")


def _patched(lines: list[str], hunks: tuple[Hunk, ...], where: str) -> list[str]:
    result: list[str] = []
    done = 0
    for number, hunk in enumerate(hunks, start=1):
        places = list(_places(lines, hunk.old, done))
        if hunk.start in places:
            place = hunk.start
        elif len(places) == 1:
            place = places[0]  # earlier patches moved it
        else:
            found = "nowhere" if not places else f"at {len(places)} places"
            raise PatchError(f"{where}: hunk {number} (line {hunk.start + 1}) fits {found}")
        result += lines[done:place]
        result += hunk.new
        done = place + len(hunk.old)
    return result + lines[done:]


def _places(lines: list[str], old: tuple[str, ...], start: int) -> Iterator[int]:
    wanted = list(old)
    for place in range(start, len(lines) - len(wanted) + 1):
        if lines[place : place + len(wanted)] == wanted:
            yield place
