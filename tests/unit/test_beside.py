"""Our terminal beside theirs: what crosses, and how ours is left."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, run

if TYPE_CHECKING:
    from collections.abc import Iterator

# argv: the program; a descriptor of ours is open meanwhile that execve(2) would leave open
BESIDE = """
import os, sys
from pipeline import beside, errors
from pipeline.run import replace
os.set_inheritable(os.open("/", os.O_RDONLY), True)
try:
    code = beside.run(lambda: replace(sys.argv[1:]))
except errors.NiftyError as error:
    sys.exit(f"error: {error}")
sys.exit(code)
"""
ARGV = (sys.executable, "-c", BESIDE)
ENVIRONMENT = {**CLEAN_ENVIRONMENT, "PYTHONPATH": str(PROJECT)}


def beside(script: str, *, stdin: bytes = b"") -> tuple[int, str, str]:
    done = run([*ARGV, "sh", "-c", script], env=ENVIRONMENT, stdin=stdin, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


class Screen:
    """A terminal on which something of ours runs."""

    def __init__(self, script: str) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            argv = [*ARGV, "sh", "-c", script]
            os.execvpe(ARGV[0], argv, ENVIRONMENT)  # noqa: S606 (on a terminal, unlike the door)
        self.seen = b""

    def until(self, text: bytes) -> bytes:
        """All that was seen, once *text* is in it."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.descriptor], [], [], 1)[0]:
                self.seen += os.read(self.descriptor, 4096)
        return self.seen

    def type(self, text: bytes) -> None:
        os.write(self.descriptor, text)


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    """Screens that are closed at the end, with what runs on them."""
    there: list[Screen] = []
    yield there
    for screen in there:
        os.close(screen.descriptor)
        os.kill(screen.pid, signal.SIGKILL)
        os.waitpid(screen.pid, 0)


def test_output_errors_and_status_come_back() -> None:
    assert beside("echo said; echo told >&2; exit 7") == (7, "said\n", "told\n")


def test_signal_is_told_as_a_shell_does() -> None:
    assert beside("kill -TERM $$")[0] == 143


def test_much_goes_through_both_ways() -> None:
    content = b"0123456789abcdef" * 100_000
    assert beside("cat", stdin=content) == (0, content.decode(), "")


def test_end_of_input_is_passed_on() -> None:
    assert beside("cat; echo over", stdin=b"") == (0, "over\n", "")


def test_program_that_never_reads_ends_all_the_same() -> None:
    assert beside("echo done", stdin=bytes(1 << 22)) == (0, "done\n", "")


def test_left_behind_process_keeps_nobody_waiting() -> None:
    assert beside("sleep 100 & echo done")[:2] == (0, "done\n")


def test_no_descriptor_of_ours_crosses() -> None:
    ours = "readlink /proc/$PPID/fd/0; readlink /proc/$PPID/fd/1; readlink /proc/$PPID/fd/2; "
    theirs = "readlink /proc/$$/fd/0; readlink /proc/$$/fd/1; readlink /proc/$$/fd/2; "
    told = beside(f"ls /proc/$$/fd | tr '\\n' ' '; {ours}{theirs}")[1]
    numbers, _, links = told.rpartition(" ")
    # the shell's own pipe or script may be among them, a directory is not
    assert {"0", "1", "2"} <= set(numbers.split())
    assert len(set(links.split())) == 6
    assert "/\n" not in links


def test_missing_program_is_told() -> None:
    done = run([*ARGV, "/no/such/program"], env=ENVIRONMENT, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: /no/such/program: No such file or directory\n"


def test_terminal_is_another_one_in_another_session(screens: list[Screen]) -> None:
    session_of = "cut -d ' ' -f 6 /proc/$$/stat"  # proc(5)
    screen = Screen(f"tty </proc/$PPID/fd/0; tty; {session_of}; echo $$; echo READY; cat")
    screens.append(screen)
    ours, theirs, session, shell, _ = (
        line.strip() for line in screen.until(b"READY").decode().splitlines()
    )
    assert theirs.startswith("/dev/pts/")
    assert theirs != ours
    assert session == shell


def test_size_is_ours_and_stays_so(screens: list[Screen]) -> None:
    screen = Screen("stty size; trap 'stty size' WINCH; echo READY; while :; do sleep 0.1; done")
    screens.append(screen)
    # a terminal that nobody gave a size (pty(7))
    assert screen.until(b"READY").split() == [b"0", b"0", b"READY"]
    termios.tcsetwinsize(screen.descriptor, (31, 77))
    assert screen.until(b"31 77").split()[3:] == [b"31", b"77"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, None])
def test_terminal_is_left_as_it_was(screens: list[Screen], number: signal.Signals | None) -> None:
    before = pty.openpty()
    usual = termios.tcgetattr(before[1])
    os.close(before[0])
    os.close(before[1])
    screen = Screen("echo READY; read line; exit 5")
    screens.append(screen)
    screen.until(b"READY")
    raw = termios.tcgetattr(screen.descriptor)
    if number is None:
        screen.type(b"\r")
    else:
        os.kill(screen.pid, number)
    deadline = time.monotonic() + 30
    while termios.tcgetattr(screen.descriptor) != usual and time.monotonic() < deadline:
        time.sleep(0.05)
    assert raw != usual
    assert termios.tcgetattr(screen.descriptor) == usual
