"""Commands that stop instances to start them again, killed on the way: what ran runs again."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.image.rootfs import File
from pipeline.paths import PROJECT
from tests.support.host.altered import altered
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.run import Completed
    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

KILLED = "tests.support.host.killed"
RUNNING = ["nifty1", "nifty2", "nifty4"]
BOOTING = ["1", "3"]
KILLS = 3
# What is typed in one round and in the next, so that there is something to do in each.
COMMANDS = {
    "upgrade": (("image=/root/b.tar", "batch=2"), ("rollback=yes", "batch=2")),
    "runner": (("runner=service", "batch=2"), ("runner=nspawn", "batch=2")),
    "restart": (("names=1,2,4",), ("names=1,2,4",)),
    "backup": (("to=/root/a", "stop=yes", "overwrite=yes"),) * 2,
}


@pytest.fixture(scope="module")
def user(machine: Machine) -> Iterator[User]:
    """Three of four instances run, and two start with the host."""
    somebody = User(machine)
    try:
        somebody.doit("deploy", "count=4")
        somebody.doit("deploy", f"names={','.join(BOOTING)}", "boot=yes")
        somebody.doit("start", "names=1,2,4")
        machine.put("/root/b.tar", altered(File(path="etc/motd", content=b"welcome to B\n")))
        yield somebody
    finally:
        somebody.clean()


def killed(user: User, step: int | str, *words: str) -> Completed:
    """`doit` ended before that step."""
    # systemd starts nothing more often than ten times in a minute (StartLimitBurst=)
    user.shell("systemctl reset-failed 'nifty*'")
    argv = [sys.executable, "-m", KILLED, str(step), *words]
    return user.machine.run(argv, cwd=PROJECT, check=False, timeout=120)


def enabled(user: User) -> set[str]:
    """Units that start with the host."""
    return set(user.shell("ls /etc/systemd/system/nifty.target.wants").split())


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_many_steps_the_rerun_starts_who_ran(user: User, command: str) -> None:
    task = "upgrade" if command == "runner" else command
    turns = itertools.cycle((task, *words) for words in COMMANDS[command])
    total = int(killed(user, -1, *next(turns)).stderr.split()[-2])
    seen_down = 0
    for step in range(total // (KILLS + 1), total, total // (KILLS + 1)):
        words = next(turns)
        # it may have fewer steps in this direction
        assert killed(user, step, *words).returncode in (-9, 0)
        user.shell("until ! systemctl list-jobs --no-legend | grep -q nifty; do sleep 0.1; done")
        told = user.doit("status")
        down = set(RUNNING) - {
            line.split()[0] for line in told.stdout.splitlines() if " active " in line
        }
        seen_down += len(down)
        for name in down:
            assert name in told.stderr, (step, told)
        assert ("warning: " in told.stderr) == bool(down)
        user.doit(*words)
        assert user.answering() == RUNNING, step
        assert "warning" not in user.doit("status").stderr
        kind = {one["runner"] for one in user.census().known.values()}
        assert len(kind) == 1
        assert enabled(user) == {
            f"nifty@{suffix}.service" if kind == {"nspawn"} else f"nifty-service-0@{suffix}.service"
            for suffix in BOOTING
        }, step
    assert seen_down > 0


def test_doctor_names_those_down_and_start_ends_it(user: User) -> None:
    assert "stopped for a change" not in user.doit("doctor", check=False).stdout
    assert killed(user, "start", "restart", "names=1,2").returncode == -9
    told = user.doit("doctor", check=False).stdout
    assert "stopped for a change: nifty1, nifty2; type that command again, or doit start" in told
    user.doit("start", "names=1,2")
    assert "stopped for a change" not in user.doit("doctor", check=False).stdout
    assert user.answering() == RUNNING


def test_stop_on_purpose_is_heeded_by_the_next_upgrade(user: User) -> None:
    assert killed(user, "start", "restart", "names=1,2").returncode == -9
    user.doit("stop", "names=1")
    user.doit("upgrade", "image=/root/b.tar")
    assert user.answering() == RUNNING[1:]
    user.doit("start", "names=1")
