"""Applies unified diffs, strictly: every context line must match, at one place.

That place is the line the hunk names or, if other patches moved it, the only one it fits.

No fuzz: a patch that does not fit exactly is an error, so the result is the same everywhere and
nothing is taken from the system's `patch`. Format: POSIX.1-2017 diff -u, GNU's /dev/null for files
that come or go; `-p1` is the only depth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.paths import PathError, beneath

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HUNK = re.compile(r"^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
# What git can say and lines of text cannot; leaving it out would be a patch half applied.
_UNSUPPORTED = re.compile(r"GIT binary patch|rename (from|to) |copy (from|to) |old mode |new mode ")


class PatchError(NiftyError):
    """A patch that is damaged or does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """Lines to find and lines to put there; *start* is the expected line, counted from 0.

    Each ends with its newline, unless it is a file's last and has none.
    """

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

    Raises PatchError before anything is written if any hunk does not fit, or fits at several
    places and not at its own line.
    """
    results: dict[str, str | None] = {}
    for diff in parse(text, name=name):
        target = diff.new or diff.old
        assert target is not None  # noqa: S101 (parse gives at least one name)
        where = f"{name}: {target}"
        now = results[target] if target in results else _content(root, target, where)
        if diff.old is None and now is not None:
            raise PatchError(f"{where}: is to be created, but is there")
        if diff.old is not None and now is None:
            raise PatchError(f"{where}: no such file in the source")
        patched = _patched(_lines(now or ""), diff.hunks, where)
        if diff.new is None and patched:
            raise PatchError(f"{where}: is to be removed, but has more than the patch takes out")
        results[target] = None if diff.new is None else "".join(patched)
    for target, content in results.items():
        path = beneath(root, target)
        if content is None:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    return tuple(results)


def _content(root: Path, target: str, where: str) -> str | None:
    try:
        path = beneath(root, target)
        # a link in the source may lead to another file than the one the patch names
        if not path.resolve().is_relative_to(root.resolve()):
            raise PatchError(f"{where}: lies outside the source, behind a link")
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except PathError as error:
        raise PatchError(f"{where}: {error.message}") from None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before 3.13
        raise PatchError(f"{where}: cannot be read: {error}") from error


def _lines(text: str) -> list[str]:
    """Not str.splitlines: form feeds and the like are ordinary characters of a C file."""
    *whole, last = text.split("\n")
    return [*(f"{line}\n" for line in whole), *([last] if last else [])]


def parse(text: str, *, name: str) -> tuple[FileDiff, ...]:
    """The files *text* changes.

    Raises PatchError if it has none, a hunk is cut short, or lines are left that look like one's.
    """
    lines = [f"{line}\n" for line in text.removesuffix("\n").split("\n")]
    diffs: list[FileDiff] = []
    index = 0
    while index < len(lines):
        below = lines[index + 1] if index + 1 < len(lines) else ""
        if not (lines[index].startswith("--- ") and below.startswith("+++ ")):
            _no_patch(lines[index], index, name, within=bool(diffs))
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


def _no_patch(line: str, index: int, name: str, *, within: bool) -> None:
    """Refuse a line outside all hunks that must not be left out; *within*: after the first one."""
    signature = line.rstrip() == "--"  # of a mail
    stray = line.startswith(("+", "-", " ", "@@", "\\")) and not signature
    if _UNSUPPORTED.match(line) or (within and stray):
        raise PatchError(f"{name}: line {index + 1}: outside every hunk: {line.rstrip()[:60]!r}")


def _file_name(line: str, name: str) -> str | None:
    path = line[4:].split("\t", maxsplit=1)[0].strip()
    if path == "/dev/null":
        return None
    top, slash, rest = path.partition("/")
    if not (top and slash and rest):
        raise PatchError(f"{name}: {path!r}: expected a name with one leading folder (-p1)")
    return rest


def _hunk(lines: list[str], index: int, head: re.Match[str], name: str) -> tuple[Hunk, int]:
    left, right = (int(head[n]) if head[n] is not None else 1 for n in (2, 4))
    old: list[str] = []
    new: list[str] = []
    while left > len(old) or right > len(new):
        line = lines[index] if index < len(lines) else ""
        match line[:1]:
            case " " | "\n":  # mail programs strip the blank of an empty context line
                old.append(line[1:] or "\n")
                new.append(line[1:] or "\n")
            case "-":
                old.append(line[1:])
            case "+":
                new.append(line[1:])
            case "\\" if old or new:
                _without_newline(lines[index - 1], old, new)
            case _:
                raise PatchError(f"{name}: line {index + 1}: the hunk ends too early")
        index += 1
    if index < len(lines) and lines[index].startswith("\\") and (old or new):
        _without_newline(lines[index - 1], old, new)
        index += 1
    if len(old) > left or len(new) > right:
        raise PatchError(f"{name}: line {index}: the hunk has more lines than it says")
    # where nothing is taken out, the number is that of the line before
    start = int(head[1]) - (1 if left else 0)
    return Hunk(start=start, old=tuple(old), new=tuple(new)), index


def _without_newline(before: str, old: list[str], new: list[str]) -> None:
    """A mark that a file ends without a newline speaks of the line before it."""
    if before[:1] != "+" and old:
        old[-1] = old[-1].removesuffix("\n")
    if before[:1] != "-" and new:
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
    result += lines[done:]
    if not all(line.endswith("\n") for line in result[:-1]):
        raise PatchError(f"{where}: a line without newline would stand before others")
    return result


def _places(lines: list[str], old: tuple[str, ...], start: int) -> Iterator[int]:
    wanted = list(old)
    for place in range(start, len(lines) - len(wanted) + 1):
        if lines[place : place + len(wanted)] == wanted:
            yield place
