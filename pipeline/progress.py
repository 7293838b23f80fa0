"""Progress on stderr: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from pipeline import terminal
from pipeline.errors import shown

if TYPE_CHECKING:
    from collections.abc import Iterator


class Step(Protocol):
    """Called with how much more was done, in the unit the bar was made with."""

    def __call__(self, amount: int = 1, /) -> None: ...


def say(message: str) -> None:
    """One line for the person at the terminal; results go to stdout, this does not."""
    terminal.tell(f"{message}\n")


@contextmanager
def bar(title: str, total: int | None, *, unit: str = "items") -> Iterator[Step]:
    """A progress bar for *total* units (None: unknown); silent when stderr is no terminal.

    *unit* is `bytes` (shown as MB with the rate) or `items`.
    """
    if not terminal.is_watched():
        yield lambda amount=1, /: None  # noqa: ARG005 (the protocol's name)
        return
    # rich costs 50 ms to import, which an up-to-date build does not need to pay
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if total is None:
        columns = [SpinnerColumn(), *columns, TimeElapsedColumn()]
    elif unit == "bytes":
        columns += [BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    else:
        columns += [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(shown(title), total=total)

        def step(amount: int = 1, /) -> None:
            progress.advance(task, amount)

        yield step
