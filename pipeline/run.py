"""The only door to other programs."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import subprocess  # noqa: TID251 (what is timed is the process itself)
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Self

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# What a program sees unless its caller says otherwise: no variable of the user's leaks in.
CLEAN_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}

# What no program that is started here ever sees, whatever environment it is given.
SECRETS = ("NIFTY_SIGNING_KEY", "NIFTY_SIGNING_PASSWORD")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


# Groups of what threads have running: no signal interrupts those, as it does the main thread.
_in_threads: set[int] = set()


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
    """Run *argv* to its end, with exactly the environment *env*, less SECRETS.

    With *log*, standard output and error are appended to that file instead of being returned.
    It and all that it started end with this process, however that ends.
    Raises ProgramError if the program is missing, passes *timeout* (seconds), or, with *check*,
    returns other than 0: the message carries the last lines it wrote.
    """
    words = [os.fspath(word) for word in argv]
    try:
        if log is None:
            returncode, *output = _call(words, env, cwd, stdin, subprocess.PIPE, timeout, umask)
        else:
            with log.open("ab") as sink:
                returncode, *output = _call(words, env, cwd, stdin, sink, timeout, umask)
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{shlex.join(words[:6])}: no end after {timeout:g} s") from error
    except OSError as error:
        if cwd is not None and error.filename == cwd:
            raise ProgramError(f"{cwd}: {error.strerror} (to run {words[0]} in)") from error
        if isinstance(error, FileNotFoundError):
            raise ProgramError(f"{words[0]}: no such program ({error.strerror})") from error
        raise ProgramError(f"{words[0]}: {error.strerror}") from error
    stdout, stderr = (part.decode(errors="replace") for part in output)
    if check and returncode != 0:
        told = log.read_text(errors="replace") if log else stdout + stderr
        rest = f"\nthe whole output: {log}" if log else ""
        raise ProgramError(
            f"{shlex.join(words[:6])} {_end(returncode)}:\n{last_lines(told)}{rest}",
            returncode=returncode,
        )
    return Completed(returncode=returncode, stdout=stdout, stderr=stderr)


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environment.items() if name not in SECRETS}


def _call(
    words: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    stdin: bytes,
    stdout: int | BinaryIO,
    timeout: float | None,
    umask: int,
) -> tuple[int, bytes, bytes]:
    """Return code, standard output and error; the latter empty if *stdout* is a file."""
    with (
        _Held() as held,
        _guard() as group,
        subprocess.Popen(
            words,
            env=_without_secrets(env),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE if stdout == subprocess.PIPE else subprocess.STDOUT,
            umask=umask,
            process_group=group,
        ) as process,
    ):
        if threading.current_thread() is not threading.main_thread():
            _in_threads.add(group)
        try:
            held.release()
            out, err = process.communicate(stdin, timeout)
        except BaseException:
            _kill(group)
            raise
        finally:
            _in_threads.discard(group)
    return process.returncode, out or b"", err or b""


def _kill(group: int) -> None:
    # all of it: make's compilers must not work on when make is gone
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def end_all() -> None:
    """Kill whatever programs other threads have running; those get a ProgramError."""
    for group in tuple(_in_threads):
        _kill(group)


@contextmanager
def _guard() -> Iterator[int]:
    """A process group that ends when this process does, even by SIGKILL.

    Its first member reads a pipe whose other end is open here alone. PR_SET_PDEATHSIG would reach
    children only, not theirs (prctl(2)), and not every user may make a PID namespace.
    """
    words = ["/bin/sh", "-c", "read -r nothing; kill -9 0"]
    with subprocess.Popen(
        words,
        env=dict(CLEAN_ENVIRONMENT),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as guard:
        try:
            yield guard.pid
        finally:
            guard.kill()


def end_with_parent() -> None:
    """From now on this process ends with the one that forked it, however that ends (prctl(2)).

    Nothing happens where that is not one of this program: doit's own.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    import ctypes  # noqa: PLC0415 (for workers alone)

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if not parent.is_alive():  # it ended before
        os.kill(os.getpid(), signal.SIGKILL)


class _Held:
    """Holds back SIGINT and SIGTERM until a started child is sure to be ended by them.

    Blocking them would not do: a child inherits the mask, but not a handler (execve(2)).
    """

    def __init__(self) -> None:
        self._came: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # nobody else may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """From now on signals do what they did before; those that came are sent again."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)
        came, self._came = self._came, []
        for number in came[:1]:
            signal.raise_signal(number)

    def _note(self, number: int, _frame: object) -> None:
        self._came.append(number)


def _end(returncode: int) -> str:
    if returncode >= 0:
        return f"failed with {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def replace(argv: Sequence[str | Path]) -> NoReturn:
    """Become the program *argv*, with the user's own terminal and environment, but SECRETS.

    Raises ProgramError if it is missing; does not come back otherwise (execve(2)).
    """
    words = [os.fspath(word) for word in argv]
    try:
        os.execvpe(words[0], words, _without_secrets(os.environ))  # noqa: S606 (no shell is what is wanted)
    except OSError as error:
        raise ProgramError(f"{words[0]}: {error.strerror}") from error
