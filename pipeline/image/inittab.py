"""BusyBox init's table: lines `id:runlevels:action:process` (busybox examples/inittab).

The SSH port is found by structure: in the process of a given program, the word at a given place.
Everything else in the file stays as it is, whoever wrote it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "etc/inittab"
# init.c; a line with any other is left out by init, with one word on a console nobody sees
ACTIONS = ("sysinit", "wait", "once", "respawn", "askfirst", "ctrlaltdel", "shutdown", "restart")


class InittabError(NiftyError):
    """A table in which the SSH port cannot be found, or not for certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortPlace:
    """Where the port stands: word *word* (the program is 0) of the one line that runs *program*."""

    program: str
    word: int


def problem(line: str) -> str | None:
    """Why init would leave *line* out, in one line; None if it is an entry, a comment or blank."""
    entry = line.partition("#")[0]
    if not entry.strip():
        return None
    fields = entry.split(":", 3)
    if len(fields) < 4:
        return "expected id:runlevels:action:process, such as ::respawn:/sbin/crond -f"
    if fields[2] not in ACTIONS:
        close = difflib.get_close_matches(fields[2], ACTIONS, n=1)
        tip = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(ACTIONS)}"
        return f"no action {fields[2]!r}; {tip}"
    return None


def respawn(words: tuple[str, ...]) -> str:
    """The line that keeps *words* running."""
    return f"::respawn:{' '.join(words)}"


def port_of(text: str, place: PortPlace) -> int:
    """The port at *place*. Raises InittabError if no line, or more than one, has it."""
    return int(_found(text, place)[1])


def with_port(text: str, place: PortPlace, port: int) -> str:
    """*text* with *port* at *place*, every other byte as it was."""
    number, old = _found(text, place)
    lines = text.split("\n")
    # put in place of the word alone, so that a user's own spacing survives
    start = _words(lines[number])[place.word].start()
    lines[number] = lines[number][:start] + str(port) + lines[number][start + len(old) :]
    return "\n".join(lines)


def _found(text: str, place: PortPlace) -> tuple[int, str]:
    """Line number and word of the port."""
    hits = list(_hits(text, place))
    if len(hits) != 1:
        many = "no line" if not hits else f"{len(hits)} lines"
        raise InittabError(
            f"/{PATH}: {many} with {place.program} and a port as word {place.word}",
            hint=f"it should hold one line such as '::respawn:{place.program} ... -p 2200'",
        )
    return hits[0]


def processes(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Action and words of every entry, read as BusyBox init reads them (init.c, parse_config.c)."""
    for line in text.split("\n"):
        words = _words(line)
        if words:
            yield line.split(":", 3)[2], tuple(word[0] for word in words)


def _hits(text: str, place: PortPlace) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n")):
        words = [word[0] for word in _words(line)]
        if words[:1] == [place.program] and len(words) > place.word:
            port = words[place.word]
            if port.isascii() and port.isdecimal() and len(port) <= 5:
                yield number, port


def _words(line: str) -> list[re.Match[str]]:
    """The words of a line's process and where they stand; none if it is no entry.

    Only blanks and tabs part words, and a `#` ends the line wherever it stands.
    """
    entry = line.partition("#")[0]
    if entry.count(":") < 3:
        return []
    at = len(":".join(entry.split(":", 3)[:3])) + 1
    return list(re.compile(r"[^ \t]+").finditer(entry, at))
