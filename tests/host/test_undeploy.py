"""`doit undeploy`: what it takes, what it leaves, and whom it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.run import Completed
    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

FOREIGN = "/home/niftyforeign/file /home/cbin/tools/file /home/other/file"


@pytest.fixture(scope="module")
def fleet(machine: Machine) -> Iterator[User]:
    """Six that run and start with the host, one that failed, and what is others'."""
    user = User(machine)
    try:
        user.doit("deploy", "count=6", "start=yes", "boot=yes")
        user.shell(
            f"install -D -m 644 /etc/hostname -t /home/other; for file in {FOREIGN}; do"
            " install -D -m 644 /etc/hostname $file; done"
        )
        yield user
    finally:
        user.clean()


@pytest.fixture(scope="module")
def emptied(fleet: User) -> Completed:
    """All of them removed, after one had failed."""
    fleet.doit("stop", "names=2")
    # without the restarts that a unit is worth before it counts as failed
    dropin = "/run/systemd/system/nifty@2.service.d/once.conf"
    fleet.machine.put(dropin, b"[Service]\nRestart=no\n")
    fleet.shell("systemctl daemon-reload; mv /home/nifty2/etc /home/nifty2/gone")
    fleet.shell("systemctl start nifty@2", check=False)
    assert fleet.status("names=2")["nifty2"]["state"] == "failed"
    fleet.shell(f"rm -r {dropin.rpartition('/')[0]}; systemctl daemon-reload")
    return fleet.doit("undeploy", "yes=yes")


def at_a_terminal(user: User, answer: str, *words: str) -> Completed:
    """Type the command where somebody can be asked, and the answer."""
    command = " ".join(user.words("undeploy", *words))
    argv = ["script", "--quiet", "--return", "--command", command, "/dev/null"]
    return user.machine.run(argv, cwd=PROJECT, stdin=f"{answer}\n".encode(), check=False)


def test_nobody_to_ask_is_an_error_with_what_to_type(fleet: User) -> None:
    told = fleet.refused("undeploy", code=2)
    assert "remove nifty1 … nifty6 (6) below /home with all data in them?" in told
    assert "hint: say so beforehand: yes=yes" in told
    assert len(fleet.answering()) == 6


def test_no_is_taken_for_an_answer(fleet: User) -> None:
    told = at_a_terminal(fleet, "n", "names=5")
    assert (told.returncode, "nothing was removed" in told.stdout) == (1, True)
    assert len(fleet.answering()) == 6


def test_yes_is_taken_for_an_answer(fleet: User) -> None:
    assert at_a_terminal(fleet, "y", "names=5").returncode == 0
    assert "nifty5" not in fleet.census().roots


def test_dry_run_tells_and_touches_nothing(fleet: User) -> None:
    before = fleet.census().stamps
    assert fleet.doit("undeploy", "names=1", "dry=yes").stdout == "remove nifty1\n"
    assert fleet.census().stamps == before


def test_others_go_on(fleet: User) -> None:
    before = fleet.shell("systemctl show -P MainPID nifty@1")
    fleet.doit("undeploy", "names=4", "yes=yes")
    assert fleet.shell("systemctl show -P MainPID nifty@1") == before


def test_roots_and_state_go_and_what_is_others_stays(emptied: Completed, fleet: User) -> None:
    census = fleet.census()
    assert (set(census.roots), census.known, census.images) == ({"niftyforeign"}, {}, ["tools"])
    assert fleet.shell(f"cat {FOREIGN} | sort -u") == fleet.shell("cat /etc/hostname")


@pytest.mark.parametrize(
    "look",
    [
        "ls -d /etc/systemd/system/*nifty* /etc/systemd/system/*/nifty*",
        "systemctl list-units --all --plain --no-legend 'nifty*'",
        "systemctl list-unit-files --no-legend 'nifty*'",
        "find /sys/fs/cgroup /run/systemd -name 'nifty*'",
        "grep -h /home/ /proc/*/mountinfo",
        "ps -eo uid=,args= | awk '$1 >= 524288 || /[n]spawn/'",
        "ls -A /home/.nifty/new /home/.nifty/units /home/.nifty/images | grep -v :",
        "cat /home/.nifty/known_hosts",
    ],
)
def test_nothing_of_them_is_left(emptied: Completed, fleet: User, look: str) -> None:
    assert fleet.shell(f"{look} 2>&-", check=False).strip() == ""


def test_removing_again_says_that_there_is_nothing(emptied: Completed, fleet: User) -> None:
    assert "no instances here" in fleet.refused("undeploy", "yes=yes")


def test_they_can_be_deployed_again(emptied: Completed, fleet: User) -> None:
    fleet.doit("deploy", "count=2", "start=yes")
    assert fleet.ssh("nifty2", "hostname").stdout == "nifty2\n"
