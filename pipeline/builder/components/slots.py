"""So many programs at a time, however many builds go on side by side."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline.builder.components import plain
from pipeline.errors import NiftyError
from pipeline.run import Completed, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class StoppedError(NiftyError):
    """Nothing is started any more: another thread was interrupted."""


class Slots:
    """Places for programs; each that runs takes one, and so does each job of a make.

    They are the tokens of a jobserver (GNU make: POSIX Jobserver Interaction): a make that finds it
    in its environment runs as many jobs as there are free places. Threads may share it.
    """

    def __init__(self, count: int = 0) -> None:
        """As many places as *count*, or as there are processors for this process.

        Raises PlaceError.
        """
        self.count = count or len(os.sched_getaffinity(0))
        # make reads the path out of a variable that it splits at blanks
        where = plain.place(Path(tempfile.gettempdir()))
        self._folder = tempfile.mkdtemp(prefix="nifty-jobs-", dir=where)
        self._path = Path(self._folder) / "server"
        os.mkfifo(self._path)
        self._pipe = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        os.write(self._pipe, b"+" * self.count)
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)
        shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> None:
        """Let nobody start anything from now on; who waits for a place gets StoppedError.

        Again, as long as anybody waits: a make that is killed takes the places that it had with it.
        """
        self._is_over = True
        os.write(self._pipe, b"+")  # each thread that gets it gives it back to the next

    def run(self, argv: Sequence[str | Path], **how: Any) -> Completed:
        """As `run.run`, once there is a place. Raises StoppedError, too."""
        with self._taken():
            return run(argv, **how)

    def make_flags(self) -> Mapping[str, str]:
        """What lets a make take more places than its own, as variables of its environment."""
        return {"MAKEFLAGS": f"-j{self.count} --jobserver-auth=fifo:{self._path}"}

    @contextmanager
    def _taken(self) -> Iterator[None]:
        token = os.read(self._pipe, 1)
        try:
            if self._is_over:
                raise StoppedError("stopped")
            yield
        finally:
            os.write(self._pipe, token)
