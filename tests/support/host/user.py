"""Who types `doit` in the test machine, and what is then found there."""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.run import Completed
    from tests.support.host.system import System

DOIT = str(Path(sys.executable).with_name("doit"))
CENSUS = "tests.support.host.census"

# $1 a path or glob; then the words. When it is there, all processes of the command are stopped,
# what is in $AMID is done, and they go on. 99: it ended before that.
MEANWHILE = """
sign=$1; shift
setsid "$@" & pid=$!
until compgen -G "$sign" >/dev/null; do kill -0 $pid 2>/dev/null || exit 99; done
kill -STOP -- -$pid
eval "$AMID"
kill -CONT -- -$pid 2>/dev/null
wait $pid
"""


@dataclass(frozen=True, slots=True)
class Census:
    """What lies below a prefix: see census.py."""

    roots: dict[str, dict[str, Any]]
    known: dict[str, dict[str, Any]]
    unfinished: list[str]
    images: list[str]
    stamps: dict[str, str]

    def problems(self, shape: str) -> list[str]:
        """What is neither absent nor whole, and keys that are not one instance's alone."""
        found = []
        for name, root in self.roots.items():
            known = self.known.get(name)
            if known is None:
                found.append(f"{name} is not in the state")
                continue
            own = {
                "base": known["base"],
                "shape": shape,
                "host_key": base64.b64encode(_blob(known["host_key"])[-32:]).decode(),
                "hostname": name,
                "machine_id": known["machine_id"],
                "ports": [known["port"]],
            }
            found += [f"{name}: {key} is {root[key]}" for key in own if own[key] != root[key]]
        for key in ("host_key", "machine_id", "base"):
            if len({root[key] for root in self.roots.values()}) < len(self.roots):
                found.append(f"two have the same {key}")
        return found


def _blob(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


@dataclass(frozen=True, slots=True)
class User:
    """Root in *machine*, whose instances are below *prefix*, with *program*, typed in *where*."""

    machine: System
    prefix: str = "/home"
    program: str = DOIT
    where: str | Path = PROJECT

    def words(self, *words: str) -> list[str]:
        """The command line of `doit` and its variables."""
        prefix = [] if self.prefix == "/home" else [f"prefix={self.prefix}"]
        return [self.program, *words, *prefix]

    def doit(
        self, *words: str, check: bool = True, stdin: bytes = b"", timeout: float = 300
    ) -> Completed:
        """Type `doit` and *words* in the checkout, or what *program* and *where* are."""
        argv = self.words(*words)
        return self.machine.run(argv, cwd=self.where, check=check, stdin=stdin, timeout=timeout)

    def refused(self, *words: str, code: int = 1) -> str:
        """The message of a `doit` that fails with *code*, and shows no traceback."""
        told = self.doit(*words, check=False)
        assert told.returncode == code, told
        assert "Traceback" not in told.stderr
        return told.stderr

    def meanwhile(self, *words: str, sign: str, amid: str) -> Completed:
        """A `doit` that is held while the script *amid* runs, once *sign* is below the prefix.

        `$pid` is the number of its process and of its group.
        """
        argv = ["bash", "-c", MEANWHILE, "bash", f"{self.prefix}/{sign}", *self.words(*words)]
        told = self.machine.run(argv, cwd=PROJECT, check=False, timeout=300, env={"AMID": amid})
        assert told.returncode != 99, told
        return told

    def census(self) -> Census:
        """What is there."""
        argv = [sys.executable, "-m", CENSUS, self.prefix]
        told = self.machine.run(argv, cwd=PROJECT, timeout=300)
        return Census(**json.loads(told.stdout))

    def status(self, *words: str) -> dict[str, dict[str, Any]]:
        """The rows of `doit status`, by name."""
        rows = json.loads(self.doit("status", "format=json", *words).stdout)
        return {row["name"]: row for row in rows}

    def answering(self, *words: str) -> list[str]:
        """Names of those that answer SSH."""
        return [name for name, row in self.status(*words).items() if row["answers"]]

    def ssh(self, name: str, command: str, *options: str, check: bool = True) -> Completed:
        """Run *command* in an instance by the ssh_config that deploy wrote."""
        config = ["-F", f"{self.prefix}/.nifty/ssh_config", "-o", "BatchMode=yes"]
        return self.machine.run(["ssh", *config, *options, name, command], check=check)

    def scanned_keys(self, ports: Iterable[int]) -> dict[int, str]:
        """The host key of each port, as the server there tells it."""
        lines = "".join(f"{port}\n" for port in ports).encode()
        scan = "xargs -P 8 -I PORT ssh-keyscan -T 20 -t ed25519 -p PORT 127.0.0.1"
        told = self.machine.run(["sh", "-c", scan], stdin=lines, timeout=300).stdout
        # newer versions tell of each server in a comment
        rows = [line.split(None, 1) for line in told.splitlines() if line[0] != "#"]
        return {int(where.rpartition(":")[2]): key for where, key in rows}

    def known_keys(self) -> dict[int, str]:
        """The host key of each port, as known_hosts has it."""
        text = self.machine.get(f"{self.prefix}/.nifty/known_hosts").decode()
        rows = [line.split(None, 1) for line in text.splitlines()]
        return {int(where.rpartition(":")[2]): key for where, key in rows}

    def shell(self, script: str, *, check: bool = True) -> str:
        """What *script* prints, run as root in the machine."""
        return self.machine.run(["bash", "-c", script], check=check, timeout=120).stdout

    def clean(self) -> None:
        """Leave nothing, whatever the test left."""
        self.doit("undeploy", "yes=yes", check=False)
        self.shell(
            "systemctl stop nifty.slice; rm -f /etc/systemd/system/nifty*.{service,slice,target};"
            "rm -rf /etc/systemd/system/nifty.target.wants; systemctl daemon-reload;"
            f"systemctl reset-failed 'nifty*'; rm -rf /root/.ssh {self.prefix}/* {self.prefix}/.n*",
            check=False,
        )
