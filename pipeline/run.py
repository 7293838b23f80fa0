"""The only door to other programs."""

from __future__ import annotations

import os
import shlex
import subprocess  # noqa: TID251 (this module is the door)
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# What a program sees unless its caller says otherwise: no variable of the user's leaks in.
CLEAN_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}


class ProgramError(NiftyError):
    """A program that is missing, failed, or took too long."""

    def __init__(self, message: str, *, hint: str | None = None, returncode: int = -1) -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a finished program left: output as text, undecodable bytes replaced."""

    returncode: int
    stdout: str
    stderr: str


def last_lines(text: str, count: int = 15) -> str:
    """The last *count* lines of *text* that are not empty, indented for an error message."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"  | {line}" for line in lines[-count:])


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] = CLEAN_ENVIRONMENT,
    cwd: Path | None = None,
    stdin: bytes = b"",
    log: Path | None = None,
    timeout: float | None = None,
    umask: int = 0o022,
    check: bool = True,
) -> Completed:
    """Run *argv* to its end, with exactly the environment *env*.

    With *log*, standard output and error are appended to that file instead of being returned.
    Raises ProgramError if the program is missing, passes *timeout* (seconds), or, with *check*,
    returns other than 0: the message carries the last lines it wrote.
    """
    words = [os.fspath(word) for word in argv]
    try:
        if log is None:
            done = subprocess.run(
                words,
                env=dict(env),
                cwd=cwd,
                input=stdin,
                capture_output=True,
                timeout=timeout,
                umask=umask,
                check=False,
            )
            stdout, stderr = (part.decode(errors="replace") for part in (done.stdout, done.stderr))
        else:
            with log.open("ab") as sink:
                done = subprocess.run(
                    words,
                    env=dict(env),
                    cwd=cwd,
                    input=stdin,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                    umask=umask,
                    check=False,
                )
            stdout = stderr = ""
    except FileNotFoundError as error:
        raise ProgramError(f"{words[0]}: no such program ({error.strerror})") from error
    except PermissionError as error:
        raise ProgramError(f"{words[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{shlex.join(words[:6])}: no end after {timeout:g} s") from error
    if check and done.returncode != 0:
        told = log.read_text(errors="replace") if log else stdout + stderr
        rest = f"\nthe whole output: {log}" if log else ""
        raise ProgramError(
            f"{shlex.join(words[:6])} failed with {done.returncode}:\n{last_lines(told)}{rest}",
            returncode=done.returncode,
        )
    return Completed(returncode=done.returncode, stdout=stdout, stderr=stderr)
