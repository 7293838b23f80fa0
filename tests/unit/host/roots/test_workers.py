"""Work spread over processes: all of it once, and what happens when something goes wrong."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pipeline.host.roots import workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.host.roots.workers import Outcome


def spread(count: int, work: Callable[[int], bytes]) -> tuple[Outcome, list[tuple[int, bytes]]]:
    told: list[tuple[int, bytes]] = []

    @contextmanager
    def watching() -> Iterator[Callable[[int, bytes], None]]:
        yield lambda number, content: told.append((number, content))

    outcome = workers.spread(count, lambda: work, watching)
    return outcome, sorted(told)


@pytest.mark.parametrize("count", [1, 2, 7, 100, 5000, 100_000])
def test_every_number_is_worked_on_once(count: int) -> None:
    _outcome, told = spread(count, lambda _number: b"")
    assert [number for number, _content in told] == list(range(count))


def test_results_come_back_whole() -> None:
    _outcome, told = spread(50, lambda number: bytes([number]) * 3000)
    assert told == [(number, bytes([number]) * 3000) for number in range(50)]


def test_an_error_is_reported_with_its_number() -> None:
    def work(number: int) -> bytes:
        if number == 3:
            raise OSError(errno.ENOSPC, "No space left on device", "etc/hosts")
        return b""

    outcome, _told = spread(5, work)
    assert outcome.failed == [(3, "'etc/hosts': No space left on device")]


def test_an_error_ends_the_work_early() -> None:
    def work(number: int) -> bytes:
        if number == 0:
            raise OSError(errno.EIO, "Input/output error")
        signal.pause() if number > 90_000 else None
        return b""

    # were all numbers begun, a worker would wait for ever
    outcome, _told = spread(100_000, work)
    assert outcome.failed[0][0] == 0


def test_a_bug_keeps_its_traceback() -> None:
    def work(number: int) -> bytes:
        raise ZeroDivisionError(str(number))

    with pytest.raises(workers.BugError, match="ZeroDivisionError"):
        spread(1, work)


def test_a_killed_worker_is_noticed() -> None:
    def work(number: int) -> bytes:
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return b""

    outcome, _told = spread(4, work)
    assert outcome.died == [signal.SIGKILL]


def test_ctrl_c_ends_the_work_with_what_was_begun() -> None:
    parent = os.getpid()

    def work(number: int) -> bytes:
        if number == 5:
            os.kill(parent, signal.SIGINT)
        return b""

    outcome, _told = spread(20, work)
    assert outcome.interrupted


def test_no_process_is_left() -> None:
    spread(20, lambda _number: b"")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
