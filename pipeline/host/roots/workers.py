"""A process for each processor, fed by number: for work that is system calls from end to end."""

from __future__ import annotations

import gc
import os
import select
import signal
import struct
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

_TASK = struct.Struct("=II")  # first number, how many
_RESULT = struct.Struct("=BIH")  # kind, number, length of what follows
_DONE, _FAILED, _BUG = range(3)
_CHUNK = 16
_MOST = 8  # processes; beyond that they wait for the file system's locks
_QUEUE = 4096  # tasks; they fit into a pipe's 64 KB


class BugError(RuntimeError):
    """A worker met an exception that nobody expected; its traceback is the message."""


@dataclass(slots=True)
class Outcome:
    """What became of the work: *failed* has (number, message) of what did not succeed.

    *interrupted*: by Ctrl-C; *died*: by signals that killed workers. What was not begun by then
    is in none of them.
    """

    failed: list[tuple[int, str]] = field(default_factory=list)
    interrupted: bool = False
    died: list[int] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether all of the work was done."""
        return not (self.failed or self.interrupted or self.died)


def spread(
    count: int,
    start: Callable[[], Callable[[int], bytes]],
    watching: Callable[[], AbstractContextManager[Callable[[int, bytes], None]]],
) -> Outcome:
    """Do the work of numbers 0 to *count* - 1 in processes; report each here, in any order.

    In each worker *start* is called once, and what it gives once for each number; the bytes it
    returns (at most 3 KB) go to what *watching* yields, entered after the forks: it may have
    threads. An OSError ends the whole: nobody begins a new
    number, what was begun is finished. Ctrl-C does the same. Workers outlive a killed parent by one
    number at most. Raises BugError for any other exception.
    """
    tasks = _queue(count)
    reading, writing = os.pipe()
    parent, pids = os.getpid(), []
    outcome = Outcome()
    restore = _on_interrupt(tasks, outcome)
    gc.freeze()  # a collection in a worker would copy every page of ours
    try:
        try:
            for _each in range(_processes(count)):
                pid = os.fork()
                if pid == 0:
                    os.close(reading)
                    _Worker(tasks, writing, parent).run(start)
                pids.append(pid)
        except OSError:
            if not pids:  # no process left for us; fewer workers do as well
                raise
        finally:
            os.close(writing)
        with watching() as done:
            _collect(tasks, reading, done, outcome)
    finally:
        # should something of ours have failed, workers find no more tasks and their pipe broken
        _drain(tasks)
        os.close(reading)
        gc.unfreeze()
        for pid in pids:
            _pid, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                outcome.died.append(os.WTERMSIG(status))
        restore()
        os.close(tasks)
    return outcome


def _on_interrupt(tasks: int, outcome: Outcome) -> Callable[[], object]:
    """Make Ctrl-C end the work instead of unwinding us anywhere; undone by what is returned."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None  # Python runs handlers in the main thread only

    def interrupt(_number: int, _frame: object) -> None:
        outcome.interrupted = True
        _drain(tasks)

    before = signal.signal(signal.SIGINT, interrupt)
    return lambda: signal.signal(signal.SIGINT, before)


def _processes(count: int) -> int:
    return max(1, min(len(os.sched_getaffinity(0)), _MOST, count // 4))


def _queue(count: int) -> int:
    """A pipe's reading end with all the work in it; at its end a worker is done."""
    chunk = max(1, min(_CHUNK, count // (8 * _processes(count))), -(-count // _QUEUE))
    reading, writing = os.pipe()
    firsts = range(0, count, chunk)
    os.write(writing, b"".join(_TASK.pack(at, min(chunk, count - at)) for at in firsts))
    os.close(writing)
    return reading


def _drain(tasks: int) -> None:
    while os.read(tasks, 65536):
        pass


def _collect(
    tasks: int, reading: int, done: Callable[[int, bytes], None], outcome: Outcome
) -> None:
    """Read results until all workers have closed their end."""
    buffer = b""
    while piece := os.read(reading, 65536):
        buffer = _parse(buffer + piece, done, outcome)
        if outcome.failed:
            _drain(tasks)


def _parse(buffer: bytes, done: Callable[[int, bytes], None], outcome: Outcome) -> bytes:
    """Take whole results off *buffer*; what is left."""
    at = 0
    while len(buffer) - at >= _RESULT.size:
        kind, number, size = _RESULT.unpack_from(buffer, at)
        end = at + _RESULT.size + size
        if end > len(buffer):
            break
        content = buffer[at + _RESULT.size : end]
        at = end
        if kind == _DONE:
            done(number, content)
        elif kind == _FAILED:
            outcome.failed.append((number, content.decode(errors="replace")))
        else:
            raise BugError(content.decode(errors="replace"))
    return buffer[at:]


class _Worker:
    """The child's side; never returns to the parent's code."""

    def __init__(self, tasks: int, results: int, parent: int) -> None:
        self._tasks, self._results, self._parent = tasks, results, parent
        self._told = b""

    def run(self, start: Callable[[], Callable[[int], bytes]]) -> NoReturn:
        number = 0
        try:
            gc.disable()
            # Ctrl-C reaches the whole process group; the parent decides what it means
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            work = start()
            while task := os.read(self._tasks, _TASK.size):
                first, many = _TASK.unpack(task)
                for number in range(first, first + many):
                    if os.getppid() != self._parent:
                        os._exit(1)
                    self._tell(_DONE, number, work(number))
                self._flush()
        except OSError as error:
            where = f"{error.filename!r}: " if error.filename else ""
            self._end(_FAILED, number, f"{where}{error.strerror or error}")
        except BaseException:  # noqa: BLE001 (a fork must not unwind into the parent's code)
            self._end(_BUG, number, traceback.format_exc()[-3000:])
        os._exit(0)

    def _tell(self, kind: int, number: int, content: bytes) -> None:
        result = _RESULT.pack(kind, number, len(content)) + content
        # up to PIPE_BUF a write is one piece, however many write (pipe(7))
        if len(self._told) + len(result) > select.PIPE_BUF:
            self._flush()
        self._told += result

    def _flush(self) -> None:
        if self._told:
            os.write(self._results, self._told)
            self._told = b""

    def _end(self, kind: int, number: int, message: str) -> NoReturn:
        with suppress(OSError):
            self._tell(kind, number, message.encode()[:3000])
            self._flush()
        os._exit(1)
