"""doit on terminals and pipes of every kind, showing what others wrote."""

from __future__ import annotations

import os
import shlex
import signal
from typing import TYPE_CHECKING

import pytest

from pipeline.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.run import Completed
    from tests.support.checkouts import Checkout

pytestmark = pytest.mark.integration
pytest_plugins = ["tests.support.checkouts"]

COMMANDS = (
    ("list",),
    ("help", "build"),
    ("info", "--no-status", "build"),
    ("inspect", "file=/bin/sh"),
)


def in_shell(checkout: Checkout, words: tuple[str, ...], streams: str) -> Completed:
    """Doit with its streams as a shell makes them of *streams*."""
    line = f"{shlex.join(checkout.argv(*words))} {streams}"
    done = run(
        ["bash", "-o", "pipefail", "-c", line], cwd=checkout.root, env=os.environ, check=False
    )
    assert "Traceback" not in done.stderr
    return done


def test_what_a_file_says_of_itself_is_escaped(tiny: Checkout, tmp_path: Path) -> None:
    script = tmp_path / "script\x1b[2J\n\udcff"
    script.write_bytes(b"#!/bin/\x1b[31mevil\x9b\n")
    told = tiny.doit("inspect", f"file={script}")
    lines = told.stdout.splitlines()
    said = r"script\x1b[2J\n\xff: needs the interpreter /bin/\x1b[31mevil"
    assert said in lines[-1]
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "no_SUCH.locale", "TERM": "dumb"},
    ],
)
def test_a_terminal_that_is_not_utf_8(tiny: Checkout, env: dict[str, str]) -> None:
    for words in COMMANDS:
        tiny.doit(*words, env={**os.environ, **env})
    told = tiny.doit("inspect", "file=/bin/ls", env={**os.environ, **env}).stdout
    assert "`-- " in told or "└── " in told


@pytest.mark.parametrize("words", COMMANDS)
def test_a_reader_that_has_seen_enough(tiny: Checkout, words: tuple[str, ...]) -> None:
    for reader in ("| head -n 1", "| :"):
        done = in_shell(tiny, words, reader)
        # a task has done its work; doit's own lists end as any program's do
        assert done.returncode in (0, 128 + signal.SIGPIPE)
        assert done.stderr == ""


@pytest.mark.parametrize("words", COMMANDS)
def test_a_result_that_cannot_be_written_is_a_failure(
    tiny: Checkout, words: tuple[str, ...]
) -> None:
    closed = in_shell(tiny, words, ">&-")
    assert "standard output is closed: nowhere to write the result to" in closed.stderr
    full = in_shell(tiny, words, ">/dev/full")
    assert "standard output: No space left on device" in full.stderr
    assert {closed.returncode, full.returncode} <= {1, 3}


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&-"])
def test_messages_that_nobody_hears_are_no_failure(tiny: Checkout, streams: str) -> None:
    done = in_shell(tiny, ("recipes",), streams)
    assert done.returncode == 0
