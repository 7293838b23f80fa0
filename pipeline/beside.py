"""Our terminal beside theirs: what others' programs run on is never the caller's own.

Whoever holds a descriptor of a terminal can read what is typed there and, as long as it is the
terminal of its session, type there itself (ioctl_tty(2), TIOCSTI): a program of an instance or an
image would then speak to the administrator's shell. So such a program gets a session of its own
with a terminal made for it (pty(7)), or pipes where ours is none, and no other descriptor.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
import tty
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import FrameType

_PIECE = 1 << 16
# What may still lie in a pipe or terminal when its program has ended; a process that it left behind
# may go on without end.
_LAST_PIECES = 64
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class BesideError(NiftyError):
    """A program beside us that could not be started."""


def run(program: Callable[[], NoReturn], *, keep: Iterable[int] = ()) -> int:
    """Run *program* in a process of its own until that ends; its status as a shell tells it.

    *program* is called there and does not return (execve(2)). It has a new session with a terminal
    where standard input and output are terminals, else pipes, and of our other descriptors only
    those in *keep*. Our terminal is raw meanwhile, and as it was afterwards, however this ends; the
    process is killed if it has not ended by itself. Raises BesideError, saying what *program*
    raised.
    """
    with ExitStack() as stack:
        line = _terminal(stack) if os.isatty(0) and os.isatty(1) else _pipes(stack)
        told, tell = os.pipe()
        stack.callback(os.close, told)
        pid = os.fork()
        if pid == 0:
            _become(line, program, tell, keep=keep)
        os.close(tell)
        for end in set(line.theirs):
            os.close(end)
        status = _relayed(pid, line, stack)
        if problem := os.read(told, _PIECE).decode(errors="replace"):
            raise BesideError(problem)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


@dataclass(slots=True)
class _Way:
    """Bytes from *source* to *target*; *held* is what a *target* of theirs has not taken yet."""

    source: int
    target: int
    is_inwards: bool
    held: bytearray = field(default_factory=bytearray)
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    """What a program has as descriptors 0, 1 and 2, and how that is connected with ours."""

    theirs: tuple[int, int, int]
    ways: Sequence[_Way]
    has_terminal: bool


def _terminal(stack: ExitStack) -> _Line:
    """A terminal like ours, which is raw from now on; errors go another way if ours do."""
    attributes = termios.tcgetattr(0)
    screen, theirs = os.openpty()
    stack.callback(os.close, screen)
    os.set_blocking(screen, False)
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    _copy_size(screen)
    # to give it back we may be in the background by then
    stack.enter_context(_handled((signal.SIGTTOU,), signal.SIG_IGN))
    stack.callback(_restore, attributes)
    stack.enter_context(_handled((signal.SIGWINCH,), lambda *_: _copy_size(screen)))
    tty.setraw(0, termios.TCSANOW)
    ways = [_Way(0, screen, is_inwards=True), _Way(screen, 1, is_inwards=False)]
    errors = theirs
    if not os.isatty(2):
        source, errors = os.pipe()
        stack.callback(os.close, source)
        ways.append(_Way(source, 2, is_inwards=False))
    return _Line((theirs, theirs, errors), ways, has_terminal=True)


def _pipes(stack: ExitStack) -> _Line:
    theirs, mine = os.pipe()
    os.set_blocking(mine, False)
    ways = [_Way(0, mine, is_inwards=True)]
    stack.callback(_close_way, ways[0])
    ends = [theirs]
    for number in (1, 2):
        source, end = os.pipe()
        stack.callback(os.close, source)
        ways.append(_Way(source, number, is_inwards=False))
        ends.append(end)
    return _Line((ends[0], ends[1], ends[2]), ways, has_terminal=False)


def _become(
    line: _Line, program: Callable[[], NoReturn], tell: int, *, keep: Iterable[int]
) -> NoReturn:
    """In the new process: nothing of ours but *keep*, then *program*; what it raises is told."""
    try:
        os.setsid()
        for number, end in enumerate(line.theirs):
            os.dup2(end, number)
        if line.has_terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        _close_others((*keep, tell))
        for number in (*_ENDING, *_IGNORED_BY_PYTHON, signal.SIGTTOU, signal.SIGWINCH):
            signal.signal(number, signal.SIG_DFL)
        program()
    except NiftyError as error:
        os.write(tell, error.message.encode())
    except BaseException as error:  # noqa: BLE001 (there is nobody above, only the other process)
        os.write(tell, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def _close_others(kept: Iterable[int]) -> None:
    begin = 3
    for number in sorted({number for number in kept if number > 2}):
        os.closerange(begin, number)
        begin = number + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))


def _relayed(pid: int, line: _Line, stack: ExitStack) -> int:
    """Pass on what is said until *pid* has ended; its wait status (wait(2))."""
    ended = os.pidfd_open(pid)
    stack.callback(os.close, ended)
    is_waited_for = False
    try:
        with _handled(_ENDING, _end):
            while not select.select([ended], [], [], 0)[0]:
                _pass_on(line, also=ended)
            status = os.waitpid(pid, 0)[1]
            is_waited_for = True
            for _ in range(_LAST_PIECES):
                for way in line.ways:
                    if not way.is_inwards:
                        _move(way)
    finally:
        if not is_waited_for:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return status


def _pass_on(line: _Line, *, also: int) -> None:
    """Wait until somebody says something, and pass it on."""
    # what they do not take stays with us, and the more behind it where it is
    reading = [way for way in line.ways if not (way.is_over or way.held)]
    writing = [way for way in line.ways if way.held]
    sources = [way.source for way in reading]
    targets = [way.target for way in writing]
    readable, writable, _ = select.select([*sources, also], targets, [])
    for way in writing:
        if way.target in writable:
            _write(way)
    for way in reading:
        if way.source in readable:
            _move(way)


def _move(way: _Way) -> bool:
    """Pass on one piece, if there is one; whether there was."""
    if way.is_over or not (way.is_inwards or select.select([way.source], [], [], 0)[0]):
        return False
    try:
        piece = os.read(way.source, _PIECE)
    except BlockingIOError:
        return False
    except OSError:
        piece = b""  # EIO: nobody has the terminal any more
    if not piece:
        _close_way(way)
        return False
    way.held += piece
    _write(way)
    return True


def _write(way: _Way) -> None:
    try:
        while way.held:
            del way.held[: os.write(way.target, way.held)]
    except BlockingIOError:
        return
    except OSError:
        # nobody reads there any more
        way.held.clear()
        _close_way(way)


def _close_way(way: _Way) -> None:
    """No more comes this way: a pipe tells them so, the end of our terminal is the end of all."""
    if way.is_over:
        return
    way.is_over = True
    if way.is_inwards:
        if os.isatty(way.target):
            raise SystemExit(128 + signal.SIGHUP)
        os.close(way.target)


def _copy_size(screen: int) -> None:
    with suppress(OSError):
        size = fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(screen, termios.TIOCSWINSZ, size)


def _restore(attributes: list[Any]) -> None:
    with suppress(termios.error):  # the terminal is gone
        termios.tcsetattr(0, termios.TCSADRAIN, attributes)


@contextmanager
def _handled(numbers: Iterable[signal.Signals], handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
