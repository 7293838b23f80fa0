"""A thousand instances on one host: `doit deploy count=1000 start=yes`, and all of them asked.

The figures are printed at the end of the run.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.scale

COUNT = 1000
NAMES = tuple(f"nifty{number}" for number in range(1, COUNT + 1))
PORTS = tuple(range(2201, 2201 + COUNT))
# refused by OpenSSH if the server's host key is not the one in known_hosts (ssh_config(5))
STRICT = (
    "-o StrictHostKeyChecking=yes -o UserKnownHostsFile=/home/.nifty/known_hosts"
    " -o GlobalKnownHostsFile=none -o BatchMode=yes -o ConnectTimeout=60"
)
LOGIN = (
    f"xargs -P 8 -I NAME ssh -F /home/.nifty/ssh_config {STRICT}"
    """ NAME 'echo "$(hostname) $(id)"'"""
)
OURS = "ps -eo uid=,args= | awk '$1 >= 524288 || /[n]spawn/' | wc -l"


@dataclass(slots=True)
class Thousand:
    """The user of a host with a thousand instances, and what was measured there."""

    user: User
    figures: dict[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def available(self) -> int:
        """Memory that is free for programs, in bytes (proc_meminfo(5))."""
        told = self.user.shell("grep MemAvailable /proc/meminfo")
        return int(told.split()[1]) * 1024

    def deploy(self) -> None:
        """Make and start all of them, and look at them once."""
        before = self.available()
        told = self.user.doit("deploy", f"count={COUNT}", "start=yes", timeout=600).stderr
        done = float(self.user.shell("cut -d' ' -f1 /proc/uptime"))
        clock = "ExecMainStartTimestampMonotonic"
        began = self.user.shell(f"systemctl show -P {clock} 'nifty@*' | grep . | sort -n | head -1")
        made = re.search(rf"{COUNT} made in ([\d.]+) s", told)
        assert made is not None
        assert f"{COUNT} answer SSH" in told
        used = before - self.available()
        start = time.monotonic()
        self.rows = self.user.status()
        asked = time.monotonic() - start
        counted = sum(row["memory"] for row in self.rows.values())
        source = self.rows["nifty1"]["memory_source"]
        self.figures |= {
            "deploy, ms each": f"{float(made[1]) * 1000 / COUNT:.2f}",
            "from the first start to the last banner, s": f"{done - int(began) / 1e6:.1f}",
            "memory each by MemAvailable, MB": f"{used / COUNT / 1e6:.2f}",
            f"memory each by {source}, MB": f"{counted / COUNT / 1e6:.2f}",
            "doit status, s": f"{asked:.1f}",
        }

    def timed(self, what: str, *words: str) -> None:
        """Type `doit` and *words*, and note how long it takes."""
        start = time.monotonic()
        self.user.doit(*words, timeout=600)
        self.figures[what] = f"{time.monotonic() - start:.1f}"


@pytest.fixture(scope="module")
def thousand(machine: Machine) -> Iterator[Thousand]:
    """All of them, running."""
    there = Thousand(User(machine))
    try:
        there.deploy()
        yield there
    finally:
        there.user.clean()


@pytest.fixture(scope="module")
def stopped(thousand: Thousand) -> Thousand:
    """All of them, stopped."""
    thousand.timed("doit stop, s", "stop")
    return thousand


@pytest.fixture(scope="module")
def removed(stopped: Thousand) -> Thousand:
    """None of them any more."""
    stopped.timed("doit undeploy, s", "undeploy", "yes=yes")
    return stopped


def test_every_one_answers_on_its_port(thousand: Thousand) -> None:
    told = [(name, row["port"], row["answers"]) for name, row in thousand.rows.items()]
    assert told == [(name, port, True) for name, port in zip(NAMES, PORTS, strict=True)]


def test_no_two_have_the_same_host_key(thousand: Thousand) -> None:
    known = thousand.user.known_keys()
    assert (tuple(sorted(known)), len(set(known.values()))) == (PORTS, COUNT)


def test_every_one_has_the_known_host_key_and_lets_its_user_in(thousand: Thousand) -> None:
    lines = "".join(f"{name}\n" for name in NAMES).encode()
    start = time.monotonic()
    told = thousand.user.machine.run(["sh", "-c", LOGIN], stdin=lines, timeout=600).stdout
    thousand.figures["logging in to all, s"] = f"{time.monotonic() - start:.1f}"
    who = "uid=1000(luser) gid=1000(luser) groups=1000(luser)"
    assert sorted(told.splitlines()) == sorted(f"{name} {who}" for name in NAMES)


def test_deploying_again_makes_none(thousand: Thousand) -> None:
    told = thousand.user.doit("deploy", f"count={COUNT}").stderr
    assert told.startswith("0 made in ")


def test_stop_leaves_no_process(stopped: Thousand) -> None:
    assert stopped.user.shell(OURS) == "0\n"


def test_removal_leaves_nothing(removed: Thousand) -> None:
    left = removed.user.shell("ls /home /etc/systemd/system | grep nifty", check=False)
    assert (left, removed.user.shell("ls /sys/fs/cgroup | grep -c nifty", check=False)) == (
        "",
        "0\n",
    )


def test_figures(removed: Thousand, record_property: Any) -> None:
    for what, figure in removed.figures.items():
        record_property(what, figure)
    assert len(removed.figures) == 8
