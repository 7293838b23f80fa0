"""Instances in the test machine, as the tests see them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.host.state.records import Runner
from pipeline.host.units.runner import place
from pipeline.host.units.runners import RUNNERS
from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from pipeline.run import Completed
    from tests.support.host.system import System

# What a test calls inside, with all instances at hand.
CALL = """
import sys
from pathlib import Path
from pipeline.errors import NiftyError
from pipeline.commands import choose, rolling, status
from pipeline.host import status as seen
from pipeline.host.doctor import resolver
from pipeline.host.state import layout, records
from pipeline.host.units import control, runners, unit_files
known = records.read_all(layout.Layout(Path("/home")))
def chosen(*names):
    return choose.select(known, names=names)
try:
    {code}
except NiftyError as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""


@dataclass(frozen=True, slots=True)
class Guests:
    """The instances below /home in *machine*, started by *runner*."""

    machine: System
    runner: str
    names: tuple[str, ...]

    def python(self, words: list[str], *, check: bool = True) -> Completed:
        """Run the tests' own Python inside, in the checkout."""
        env = {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
        argv = [sys.executable, *words]
        return self.machine.run(argv, cwd=PROJECT, env=env, check=check, timeout=300)

    def call(self, code: str, *, check: bool = True) -> Completed:
        """Run one statement of Python inside; `chosen("nifty1")` are instances."""
        return self.python(["-c", CALL.format(code=code)], check=check)

    def start(self, *names: str) -> None:
        """Start those, or all; returns when they answer."""
        self.call(f"control.start(chosen{names or ()!r})")

    def stop(self, *names: str) -> None:
        """Stop those, or all; returns when nothing is left."""
        self.call(f"control.stop(chosen{names or ()!r})")

    def status(self) -> dict[str, dict[str, Any]]:
        """A row for each, by name."""
        rows = json.loads(self.call("print(status.as_json(seen.read(known)))").stdout)
        return {row["name"]: row for row in rows}

    def unit(self, name: str) -> str:
        """The unit that runs the instance."""
        return place(RUNNERS[Runner(self.runner)], name.removeprefix("nifty")).unit

    def ssh(self, name: str, command: str) -> str:
        """What *command* prints in a session of the instance's user."""
        argv = ["ssh", "-F", "/home/.nifty/ssh_config", "-o", "BatchMode=yes", name, command]
        return self.machine.run(argv, timeout=30).stdout

    def group(self, name: str) -> str:
        """The control group of the instance in the machine."""
        where = place(RUNNERS[Runner(self.runner)], name.removeprefix("nifty"))
        return "/".join(("/sys/fs/cgroup", *where.slices, where.unit))

    def init(self, name: str) -> int:
        """The number that the instance's init has in the machine."""
        script = (
            f"for pid in $(find {self.group(name)} "
            "-name cgroup.procs -exec cat {} +); do "
            "read -r _ rest < <(grep NSpid /proc/$pid/status); set -- $rest; "
            '[ "$#" = 2 ] && [ "$2" = 1 ] && echo $pid; done; true'
        )
        return int(self.machine.run(["bash", "-c", script]).stdout)

    def root(self, name: str, script: str) -> Completed:
        """Run *script* in the instance as its root, in all namespaces of its init.

        That root is mightier than the instance's own: it has every capability of its user
        namespace and no system call filter.
        """
        argv = ["nsenter", f"--target={self.init(name)}", "--all", "--", "/bin/sh", "-c", script]
        return self.machine.run(argv, check=False, timeout=30)
