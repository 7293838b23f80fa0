"""Several pieces of work at a time, in threads, that end together when one is interrupted."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.run import end_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Seconds between two looks: for an interrupt, and for programs that were started meanwhile.
_AGAIN = 0.05


def together(pieces: Iterable[Callable[[], object]], *, stop: Callable[[], None]) -> None:
    """Do all *pieces*, each in a thread of its own, and wait for all.

    One that fails does not keep the others from their end; then its exception is raised, or, of
    several NiftyErrors, one that has all messages. When the caller is interrupted, *stop* is called
    to let no piece begin anything, and whatever programs run is killed, until all have ended.
    """
    failed: list[Exception] = []
    # join(), if it is interrupted, takes the thread for one that has ended (before Python 3.13)
    ended = threading.Semaphore(0)

    def done(piece: Callable[[], object]) -> None:
        try:
            piece()
        except Exception as error:  # noqa: BLE001 (raised again, where somebody catches it)
            failed.append(error)
        finally:
            ended.release()

    threads = [threading.Thread(target=done, args=[piece]) for piece in pieces]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            # a signal that comes right before the wait is heeded after it
            while not ended.acquire(timeout=_AGAIN):
                pass
    except BaseException:
        while any(thread.is_alive() for thread in threads):
            stop()
            end_all()
            time.sleep(_AGAIN)
        raise
    if failed:
        raise _one_of(failed)


def _one_of(failed: list[Exception]) -> Exception:
    told = [error for error in failed if isinstance(error, NiftyError)]
    if len(told) < len(failed):  # a bug, which is not to be lost among the rest
        return next(error for error in failed if not isinstance(error, NiftyError))
    if len(told) == 1:
        return told[0]
    hints = dict.fromkeys(error.hint for error in told if error.hint)
    return NiftyError("\n".join(error.message for error in told), hint="; ".join(hints) or None)
