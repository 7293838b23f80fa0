"""So many programs at a time, however many builds go on side by side."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from pipeline.errors import NiftyError
from pipeline.run import Completed, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class StoppedError(NiftyError):
    """Nothing is started any more: another thread was interrupted."""


class Slots:
    """Places for programs; each that runs takes one, and so does each job of a make.

    They are the tokens of a jobserver (GNU make: POSIX Jobserver Interaction): a make that finds it
    in its environment runs as many jobs as there are free places. Threads may share it.
    """

    def __init__(self, count: int = 0) -> None:
        """As many places as *count*, or as there are processors for this process."""
        self.count = count or len(os.sched_getaffinity(0))
        # A pipe without a name leaves nothing behind, however this process ends. A make opens it
        # by its place in /proc (proc_pid_fd(5)), which has no blank, at which make would split it.
        self._source, self._sink = os.pipe()
        self._path = f"/proc/{os.getpid()}/fd/{self._source}"
        os.write(self._sink, b"+" * self.count)
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._source)
        os.close(self._sink)

    def stop(self) -> None:
        """Let nobody start anything from now on; who waits for a place gets StoppedError.

        Again, as long as anybody waits: a make that is killed takes the places that it had with it.
        """
        self._is_over = True
        os.write(self._sink, b"+")  # each thread that gets it gives it back to the next

    def run(self, argv: Sequence[str | Path], **how: Any) -> Completed:
        """As `run.run`, once there is a place. Raises StoppedError, too."""
        with self._taken():
            return run(argv, **how)

    def make_flags(self) -> Mapping[str, str]:
        """What lets a make take more places than its own, as variables of its environment."""
        return {"MAKEFLAGS": f"-j{self.count} --jobserver-auth=fifo:{self._path}"}

    @contextmanager
    def _taken(self) -> Iterator[None]:
        token = os.read(self._source, 1)
        try:
            if self._is_over:
                raise StoppedError("stopped")
            yield
        finally:
            os.write(self._sink, token)
