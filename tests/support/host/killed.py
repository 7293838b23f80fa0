"""`doit WORDS`, ended by SIGKILL before its step number STEP.

`python -m tests.support.host.killed STEP WORDS...`

A step is a word to systemd that changes something, or a name below the prefix that changes. STEP
may be such a word, as `start`: before the first of these. -1: never, and the number of steps is
written to stderr.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from doit.__main__ import main

CHANGES = {"start", "stop", "enable", "disable", "daemon-reload", "reset-failed"}


def _is_step(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an audit event is one; how often somebody looks depends on the machine."""
    if event == "subprocess.Popen":
        return not CHANGES.isdisjoint(arguments[1])
    return event in ("os.rename", "os.remove") and ".doit" not in str(arguments[0])


def begin(last: str) -> None:
    """Count from now on, and end before step *last*."""
    counted = 0

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal counted
        if _is_step(event, arguments):
            is_word = event == "subprocess.Popen" and last in arguments[1]
            if is_word or str(counted) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            counted += 1

    sys.addaudithook(hear)  # there is no way to take one back (PEP 578)
    try:
        main()
    finally:
        sys.stderr.write(f"{counted} steps\n")


if __name__ == "__main__":
    begin(sys.argv.pop(1))
