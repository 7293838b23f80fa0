"""One exception tree: what is wrong, where, and what to type next."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Characters of one line, and lines of one message: what a hostile file says must have an end.
LONGEST_LINE = 4000
MOST_LINES = 1000
_LISTED = 100

FULL_DISK = "make room on that file system; 'rm -r artifacts/cache' costs time only"


def shown(text: str, *, most: int = LONGEST_LINE) -> str:
    r"""*text* as one line that may stand in a message: what others wrote reaches no terminal raw.

    Every character that is not printable is escaped as Python's literals are (`\x1b`, `\u202e`):
    control characters (C0, C1, DEL), line ends, characters that turn the direction of writing
    round, undecodable bytes. Of more than *most* characters only the first are shown.
    """
    rest = len(text) - most
    if rest > 0:
        text = text[:most]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else _escaped(char) for char in text)
    return f"{text}... ({rest} more characters)" if rest > 0 else text


def some(things: Iterable[object], *, most: int = 5) -> str:
    """The first *most* of *things*, and how many more there are."""
    words = [str(thing) for thing in things]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def ends(names: Sequence[str], *, most: int = 5) -> str:
    """*names* in their order or, of more than *most*, the first, the last and how many."""
    return ", ".join(names) if len(names) <= most else f"{names[0]} … {names[-1]} ({len(names)})"


def counted(number: int, one: str = "instance", many: str | None = None) -> str:
    """*number* of things, as `1 instance` and `2 instances`; *many*: the plural if not *one*s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def reason(error: OSError, at: object = None) -> str:
    """*error* as `/a/file: No such file or directory`; *at* is for one that names no file."""
    where = error.filename if error.filename is not None else at
    told = error.strerror or str(error)
    return told if where is None else f"{where}: {told}"


def readable(error: OSError) -> str | None:
    """What to do so that a file which the user named can be read; None if that is plain."""
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return "as a user who may read it: its owner, or root"
        case errno.EISDIR | errno.EINVAL:
            return "a regular file is wanted there"
        case errno.EFBIG:
            return "is it the right file?"
        case errno.EIO:
            return "the disk is damaged (dmesg says more): a copy from elsewhere"
    return None


def _escaped(char: str) -> str:
    # a byte that is no UTF-8, as PEP 383 smuggles it through
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def shown_lines(text: str, *, most: int = LONGEST_LINE) -> str:
    """*text* with each of its lines as `shown` gives it; line ends and tabs stay."""
    if len(text) <= most and text.replace("\n", "").isprintable():
        return text
    lines = (line.split("\t") for line in text.split("\n"))
    return "\n".join("\t".join(shown(part, most=most) for part in line) for line in lines)


class NiftyError(Exception):
    """A failure that its message explains; shown without a traceback, exit code 1."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Message, then the hint on a line of its own."""
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(NiftyError):
    """A variable or value that cannot be what the user meant; exit code 2."""

    exit_code = 2


class ProblemsError(NiftyError):
    """Several problems found in one go; each is one line of the message."""

    def __init__(self, summary: str, problems: Iterable[str], *, hint: str | None = None) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        told = [f"  {shown(line)}" for line in self.problems[:MOST_LINES]]
        if len(self.problems) > MOST_LINES:
            told.append(f"  and {len(self.problems) - MOST_LINES} more")
        super().__init__("\n".join([summary, *told]), hint=hint)


def in_lines(names: Sequence[str]) -> Iterator[str]:
    """*names* in lines of ten, and how many more there are than a hundred."""
    listed = names[:_LISTED]
    for begin in range(0, len(listed), 10):
        yield ", ".join(listed[begin : begin + 10])
    if len(names) > len(listed):
        yield f"and {len(names) - len(listed)} more"
