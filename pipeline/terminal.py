"""The only door to the terminal: results to standard output, all else to standard error.

Whatever is written here may hold what an instance, an image, a server or a file says of itself:
all of it is escaped (`errors.shown`), so that no caller can forget to. A stream that is closed,
full, or cannot encode a character is no reason for a traceback.
"""

from __future__ import annotations

import atexit
import codecs
import io
import os
import sys
from contextlib import suppress
from typing import BinaryIO, TextIO

from pipeline.errors import NiftyError, shown, shown_lines


class OutputError(NiftyError):
    """Standard output takes nothing: it is closed, or its disk is full."""


class ReaderGoneError(Exception):
    """Who read our standard output has seen enough (`| head`): nothing went wrong."""


class _Closed(io.TextIOBase):
    """Standard output that was closed before we began (`>&-`)."""

    def write(self, _text: str, /) -> int:
        raise OutputError("standard output is closed: nowhere to write the result to")

    def flush(self) -> None:
        """Nothing is held."""


def prepare() -> None:
    """Make the three standard streams fit for whatever comes; once, before anything is written."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # or the next file that is opened would get what children print (open(2))
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    codecs.register_error("plainer", _plainer)
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, "plainer"),
        (sys.stderr, "plainer"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    # typeshed does not say that they are None if they were closed (sys.__stdout__)
    sys.stdout = sys.stdout or _Closed()
    sys.stderr = sys.stderr or io.StringIO()
    atexit.register(_end)


# What trees and texts of ours are drawn with where the terminal knows ASCII only.
_PLAIN = str.maketrans({"─": "-", "│": "|", "├": "|", "└": "`", "…": "...", "±": "+-"})


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """An error handler of a codec: ASCII that looks alike, else the character's number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    there = error.object[error.start : error.end].translate(_PLAIN)
    return there.encode("ascii", "backslashreplace").decode(), error.end


def result(text: str) -> None:
    """Write *text*, whole lines, to standard output.

    Raises OutputError or ReaderGoneError; nothing is written after that.
    """
    _write(shown_lines(text, most=sys.maxsize))


def lines(*several: str) -> None:
    """Write each of *several*, whatever is in it, as one line, as `result` does."""
    _write("".join(f"{shown(line, most=sys.maxsize)}\n" for line in several))


def json(text: str) -> None:
    """Write *text*, which is JSON in ASCII, as `result` does; it stays JSON."""
    # of all control characters only DEL may stand in a string as it is (RFC 8259, section 7)
    _write(text.replace("\x7f", "\\u007f"))


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
    except OSError as error:
        _give_up(error)


def binary() -> BinaryIO:
    """Standard output for bytes. Raises OutputError if that is a terminal, or closed."""
    if isinstance(sys.stdout, _Closed):
        raise OutputError("standard output is closed: nowhere to write the result to")
    if sys.stdout.isatty():
        raise OutputError("standard output is a terminal, and this is nothing for one")
    return sys.stdout.buffer


def flush() -> None:
    """Have all results written, before another program takes over or a task ends; as `result`."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _give_up(error)


def _give_up(error: OSError) -> None:
    _silence(sys.stdout)
    if isinstance(error, BrokenPipeError):
        raise ReaderGoneError from error
    raise OutputError(f"standard output: {error.strerror}: the result is not whole") from error


def _silence(stream: TextIO) -> None:
    """What is still held goes nowhere; Python would try again at its end, and complain."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()


def tell(text: str) -> None:
    """Write *text* to standard error at once; if that takes nothing, go on without."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(shown_lines(text))
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def is_watched() -> bool:
    """Whether somebody sees standard error as it is written: it is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def ask(question: str) -> str | None:
    """The line that is typed in answer to *question*; None if nobody is there to answer."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    tell(question)
    return sys.stdin.readline()


def _end() -> None:
    """The last of what doit itself has written (`doit list`), with an exit code that is right."""
    try:
        flush()
    except ReaderGoneError:
        return
    except NiftyError as error:
        tell(f"error: {error}\n")
        os._exit(error.exit_code)
