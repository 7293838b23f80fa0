"""What this program is called where it is typed: `doit` in a checkout, else by its own name.

The one place for it: hints and help are made of `to_type`. Texts that stay on a host's disk do not
say it, since they would differ with whoever writes them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from pipeline.paths import PROJECT

# Recipes and what was built of them lie there; installed, or as one file, there is neither.
HAS_CHECKOUT = (PROJECT / "dodo.py").is_file()
_LONGEST = 4096  # bytes of a first line; Linux takes 256


def name() -> str:
    """The words before a command, for a shell: `doit`, `nifty`, `./nifty.pyz`, `python3 nifty.pyz`.

    A file that can be executed is typed by its path, or by its name alone where PATH finds it.
    """
    if HAS_CHECKOUT:
        return "doit"
    called = sys.argv[0]
    found = shutil.which(Path(called).name)
    if found and _is_same(found, called) and _names_its_python(called):
        return shlex.quote(Path(called).name)
    return _by_path(called)


def to_type(words: str) -> str:
    """*words*, a command and its variables, as a user is to type them here."""
    return f"{name()} {words}"


def to_type_as_root(words: str) -> str:
    """*words* for who is not root: sudo(8) may have another PATH."""
    if HAS_CHECKOUT:
        return f"sudo .venv/bin/doit {words}"
    called = sys.argv[0]
    return f"sudo {_by_path(shutil.which(called) or called)} {words}"


def _by_path(called: str) -> str:
    if "/" in called and os.access(called, os.X_OK) and _names_its_python(called):
        return shlex.quote(called)
    return shlex.join([sys.orig_argv[0], called])


def _names_its_python(called: str) -> bool:
    """Whether the file names the Python that runs it in its first line (execve(2))."""
    try:
        with Path(called).open("rb") as file:
            return file.readline(_LONGEST).rstrip() == b"#!" + os.fsencode(sys.orig_argv[0])
    except OSError:
        return False


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
