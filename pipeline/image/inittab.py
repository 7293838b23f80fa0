"""BusyBox init's table: lines `id:runlevels:action:process` (busybox examples/inittab).

The SSH port is found by structure: in the process of a given program, the word at a given place.
Everything else in the file stays as it is, whoever wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "etc/inittab"


class InittabError(NiftyError):
    """A table in which the SSH port cannot be found, or not for certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortPlace:
    """Where the port stands: word *word* (the program is 0) of the one line that runs *program*."""

    program: str
    word: int


def respawn(words: tuple[str, ...]) -> str:
    """The line that keeps *words* running."""
    return f"::respawn:{' '.join(words)}"


def port_of(text: str, place: PortPlace) -> int:
    """The port at *place*. Raises InittabError if no line, or more than one, has it."""
    return int(_found(text, place)[1])


def with_port(text: str, place: PortPlace, port: int) -> str:
    """*text* with *port* at *place*, every other byte as it was."""
    number, old = _found(text, place)
    lines = text.splitlines(keepends=True)
    head, process = _split(lines[number])
    # rebuilt around the word, so that a user's own spacing survives
    start = _offset(process, place.word)
    lines[number] = head + process[:start] + str(port) + process[start + len(old) :]
    return "".join(lines)


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


def _hits(text: str, place: PortPlace) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(keepends=True)):
        if line.lstrip().startswith("#") or line.count(":") < 3:
            continue
        words = _split(line)[1].split()
        if words[:1] == [place.program] and len(words) > place.word and words[place.word].isdigit():
            yield number, words[place.word]


def _split(line: str) -> tuple[str, str]:
    """A line up to and with its third colon, and its process with the line's end."""
    identity, runlevels, action, process = line.split(":", 3)
    return f"{identity}:{runlevels}:{action}:", process


def _offset(process: str, word: int) -> int:
    at = 0
    for index in range(word + 1):
        while process[at].isspace():
            at += 1
        if index == word:
            break
        while not process[at].isspace():
            at += 1
    return at
