"""Fixtures of the tests that need root: one booted machine for all of them."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn, Protocol

import pytest

from tests.support.host.machine import Machine, leftovers, missing_needs
from tests.support.host.testroot import SuiteError, wanted_suite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class LoopFilesystem(Protocol):
    """Makes a file system in the machine that lives as long as the test; returns where it is."""

    def __call__(self, kind: str, size: int, /) -> Path: ...


def pytest_configure() -> None:
    """Check the release that is asked for; end in order on SIGTERM, as on Ctrl-C."""
    try:
        wanted_suite()
    except SuiteError as error:
        raise pytest.UsageError(f"{error}; known are {error.hint}") from error
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, lambda *_: None)  # shutting down is not interrupted, too
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def bootable() -> None:
    """Skip, or under CI fail, where no machine can be booted."""
    missing = missing_needs()
    if not missing:
        return
    reason = f"no test machine here: {'; '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def machine(bootable: None) -> Iterator[Machine]:
    """The machine all tests share: leave it as you found it."""
    with Machine() as booted:
        yield booted
    assert leftovers(booted.name) == ()


@pytest.fixture
def loop_filesystem(machine: Machine) -> Iterator[LoopFilesystem]:
    """Call with ext4, xfs or btrfs and a size in bytes."""
    with ExitStack() as stack:
        yield lambda kind, size: stack.enter_context(machine.filesystem(kind, size))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured, where whoever reads CI's log finds it."""
    for report in terminalreporter.getreports("passed"):
        for what, figure in report.user_properties:
            terminalreporter.write_line(f"{what}: {figure}")
