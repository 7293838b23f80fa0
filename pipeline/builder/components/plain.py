"""Paths that compiling can bear, whatever the folder of this checkout is called.

`configure` and make split words at blanks, and read `$`, `#`, `:`, quotes and line ends as their
own: they work in the system's folder for temporary files if the path of this one is not plain. zig
does not understand a backslash, a double quote or a control character in a dependency file that it
wrote itself (https://github.com/ziglang/zig/issues/2046): it gets a link to what lies there.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from pipeline.errors import NiftyError

_PLAIN = re.compile(r"[\w./+@%,-]+", re.ASCII)
# what zig writes into a dependency file and then cannot read
_MISREAD = re.compile(r'[\\"\x00-\x1f\x7f]')


class PlaceError(NiftyError):
    """No folder with a plain name to compile in."""


def place(folder: Path) -> Path:
    """*folder*, links followed, or a folder for temporary files if compiling there must fail.

    Raises PlaceError if there is neither.
    """
    wanted = folder.resolve()
    if _PLAIN.fullmatch(str(wanted)):
        return wanted
    others = [Path(name).resolve() for name in (tempfile.gettempdir(), "/tmp", "/var/tmp")]  # noqa: S108
    for other in others:
        if _PLAIN.fullmatch(str(other)) and _takes_programs(other):
            return other
    odd = [repr(char) for char in dict.fromkeys(str(wanted)) if not _PLAIN.fullmatch(char)]
    raise PlaceError(
        f"{str(wanted)!r}: the compiler cannot have {', '.join(odd)} in a path, and no program can"
        f" be made and run in {', '.join(dict.fromkeys(map(str, others)))} instead",
        hint="move this folder, or set TMPDIR to one whose path has letters, digits and ._+-/ only",
    )


def _takes_programs(folder: Path) -> bool:
    try:
        options = os.statvfs(folder).f_flag
    except OSError:
        return False
    return not options & os.ST_NOEXEC and os.access(folder, os.W_OK | os.X_OK)


def named(path: Path, link: Path) -> Path:
    """*path* if zig can have that in a dependency file; otherwise *link*, which now leads there."""
    if not _MISREAD.search(str(path)):
        return path
    link.symlink_to(path)
    return link
