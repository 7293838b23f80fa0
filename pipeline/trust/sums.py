"""SHA256SUMS: which bytes each file of a release has.

As strict as the strictest of its readers (systemd-pull, systemd-sysupdate): a line is the sha256,
two blanks, a name, and nothing else is in the file. A name with a folder in it sysupdate refuses,
and with it the whole file: what lies in folders has a file of sums of its own, which has one here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.errors import ProblemsError, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.gpg"
LIMIT = 1 << 20  # bytes: as systemd's src/import/pull-job.c

_PART = "[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}"
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({_PART})", re.ASCII)
_BELOW = re.compile(rf"([0-9a-f]{{64}})  ({_PART}(?:/{_PART}){{1,8}})", re.ASCII)


class SumsError(ProblemsError):
    """A file of sums that is not exactly one."""


def read(content: bytes, *, name: str = NAME, below: bool = False) -> dict[str, str]:
    """The sha256 of each file named in *content*; *name* is where that came from.

    *below*: each lies in a folder, as `a/b`, and none leads out of there. Raises SumsError with
    every line that is wrong.
    """
    if len(content) > LIMIT:
        raise SumsError(f"{name}: cannot be used:", [f"more than {LIMIT} bytes"])
    text = content.decode(errors="surrogateescape")
    if not text.endswith("\n"):
        raise SumsError(f"{name}: cannot be used:", ["empty" if not text else "its end is missing"])
    found: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text[:-1].split("\n"), 1):
        match = (_BELOW if below else _LINE).fullmatch(line)
        if match is None:
            problems.append(f"line {number}: not '<sha256>  <name>': {shown(line, most=100)}")
        elif match[2] in found:
            problems.append(f"line {number}: {match[2]} for the second time")
        else:
            found[match[2]] = match[1]
    if problems:
        raise SumsError(f"{name}: cannot be used:", problems)
    return found


def text(sums: Mapping[str, str], *, below: bool = False) -> bytes:
    """The file with *sums*, a sha256 for each name, sorted by name, as `read` takes it.

    Raises SumsError.
    """
    lines = [f"{digest}  {name}" for name, digest in sorted(sums.items())]
    wrong = [line for line in lines if not (_BELOW if below else _LINE).fullmatch(line)]
    content = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    if wrong or not lines or len(content) > LIMIT:
        raise SumsError(f"{NAME}: cannot be written:", wrong or ["no file, or too many"])
    return content
