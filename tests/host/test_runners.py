"""runner=service as a user types it, moving between runners, and hogs inside one instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

THIRD = "nifty-service-0@3.service"


@pytest.fixture(scope="module")
def fleet(machine: Machine) -> Iterator[User]:
    """nifty1 to nifty3, by runner=service."""
    user = User(machine)
    try:
        user.doit("deploy", "count=3", "runner=service", "start=yes")
        yield user
    finally:
        user.clean()


def active(user: User) -> list[str]:
    """The units that run."""
    script = "systemctl list-units --plain --no-legend --state=active 'nifty*.service'"
    return [line.split()[0] for line in user.shell(script).splitlines()]


def test_state_remembers_the_runner(fleet: User) -> None:
    assert [one["runner"] for one in fleet.census().known.values()] == ["service"] * 3


def test_login_has_a_terminal(fleet: User) -> None:
    # an input that ends at once would hang up
    told = fleet.shell("sleep 2 | ssh -F /home/.nifty/ssh_config -tt nifty1 tty 2>&-", check=False)
    assert told.strip() == "/dev/pts/0"


def test_syslog_takes_what_is_told(fleet: User) -> None:
    told = fleet.ssh("nifty1", "logger works; sleep 0.2; tail -n 1 /var/log/messages").stdout
    assert told.endswith("works\n")


def test_run_and_tmp_are_its_own(fleet: User) -> None:
    fleet.ssh("nifty1", "touch /tmp/mine")
    assert fleet.ssh("nifty2", "ls /tmp; grep -c -E ' /(tmp|run) tmpfs' /proc/mounts").stdout == (
        "2\n"
    )


def test_power_off_runs_inits_own_actions(fleet: User) -> None:
    table = "/home/nifty2/etc/inittab"
    before = fleet.machine.get(table)
    fleet.machine.put(table, before + b"::shutdown:/bin/touch /root/ended\n")
    fleet.doit("restart", "name=2")
    fleet.doit("stop", "name=2")
    there = fleet.shell("ls /home/nifty2/root; rm /home/nifty2/root/ended")
    fleet.machine.put(table, before)
    fleet.doit("start", "name=2")
    assert there == "ended\n"


@pytest.mark.parametrize("words", [("users=host",), ("register=yes",)])
def test_what_it_cannot_do_is_refused_before_anything(fleet: User, words: tuple[str, ...]) -> None:
    before = fleet.census().stamps
    told = fleet.refused("deploy", "names=9", "runner=service", *words, code=2)
    assert words[0] in told or "users=private" in told
    assert fleet.census().stamps == before


def test_moving_to_the_other_runner_and_back(fleet: User) -> None:
    fleet.doit("deploy", "count=1", "boot=yes")
    fleet.doit("upgrade", "runner=nspawn", "count=2")
    there = active(fleet), fleet.ssh("nifty1", "hostname").stdout
    enabled = fleet.shell("ls /etc/systemd/system/nifty.target.wants")
    fleet.doit("upgrade", "runner=service")
    back = active(fleet), fleet.ssh("nifty1", "hostname").stdout
    assert there == (
        ["nifty-service-0@3.service", "nifty@1.service", "nifty@2.service"],
        "nifty1\n",
    )
    assert enabled == "nifty@1.service\n"
    assert back == ([f"nifty-service-0@{number}.service" for number in (1, 2, 3)], "nifty1\n")


@pytest.fixture(params=["service", "nspawn"])
def victim(fleet: User, request: pytest.FixtureRequest) -> Iterator[str]:
    """An instance, by each runner, for what nobody should do to one."""
    fleet.doit("deploy", "name=victim", "port=2299", f"runner={request.param}", "start=yes")
    try:
        yield "niftyvictim"
    finally:
        fleet.doit("undeploy", "name=victim", "yes=yes")


def test_fork_bomb_stays_in_its_instance(fleet: User, victim: str) -> None:
    base = fleet.census().known[victim]["base"]
    # luser is user 1000 of the instance's range; a shell that cannot fork ends, its children do not
    told = fleet.shell(
        f"ssh -F /home/.nifty/ssh_config {victim} 'b() {{ b & b & sleep 15; }}; b' >&2 & "
        "for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1; "
        f"many=$(ps -e --no-headers -o uid= | grep -cx ' *{base + 1000}'); "
        '[ "$many" -gt 64 ] && break; done; echo "$many"; wait'
    )
    answering = fleet.answering("count=3")
    assert 64 < int(told) <= 128
    assert answering == ["nifty1", "nifty2", "nifty3"]


def test_memory_hog_is_stopped(fleet: User, victim: str) -> None:
    # without a line end in it, tail has to keep all of it
    told = fleet.ssh(victim, "head -c 900m /dev/zero | tail -n 1 | wc -c", check=False)
    assert "out of memory" in told.stderr, told
    assert fleet.answering() == ["nifty1", "nifty2", "nifty3", victim]


def test_planted_links_lead_nowhere(fleet: User) -> None:
    fleet.doit("stop", "name=3")
    state = "cat /proc/self/mountinfo | cut -d ' ' -f 5; ls -R /etc /dev /root"
    before = fleet.shell(state)
    fleet.shell(
        "cp -a /home/nifty3 /home/kept; cd /home/nifty3; rm -r dev run tmp cbin etc/resolv.conf;"
        "ln -s / cbin; ln -s /etc dev; ln -s /root run; ln -s /usr tmp; ln -s /etc/shadow"
        " etc/resolv.conf; chown -hR 720896:720896 cbin dev run tmp etc/resolv.conf"
    )
    fleet.shell("systemctl start nifty-service-0@3", check=False)
    after = fleet.shell(state)
    fleet.shell(
        "systemctl stop nifty-service-0@3; systemctl reset-failed 'nifty-service-0@3'; "
        "rm -r /home/nifty3; mv /home/kept /home/nifty3",
        check=False,
    )
    fleet.doit("start", "name=3")
    assert after == before


def test_what_fails_is_told_in_the_journal(fleet: User) -> None:
    fleet.doit("stop", "name=3")
    table = "/home/.nifty/units/3.fstab"
    before = fleet.machine.get(table)
    fleet.machine.put(table, before + b"/nowhere /home/nifty3/nowhere none bind\n")
    fleet.shell(f"systemctl start {THIRD}; systemctl reset-failed {THIRD}", check=False)
    told = fleet.shell("journalctl --quiet --output=cat -t nifty")
    fleet.machine.put(table, before)
    fleet.doit("start", "name=3")
    assert "nifty3: mount: /home/nifty3/nowhere: mount point does not exist" in told


def test_older_bash_as_sh_starts_one(fleet: User) -> None:
    # as bash 4.4 is: a here-document is a file
    fleet.doit("stop", "name=3")
    fleet.shell(
        f"mkdir /run/systemd/system/{THIRD}.d; cd /run/systemd/system/{THIRD}.d;"
        "printf '[Service]\\nEnvironment=BASH_COMPAT=50\\nExecStart=\\n' >older.conf;"
        "sed -n 's@/bin/sh@/bin/bash --posix@; /^ExecStart=/p'"
        " /etc/systemd/system/nifty-service-0@.service >>older.conf; systemctl daemon-reload"
    )
    fleet.doit("start", "name=3")
    argv = fleet.shell(f"systemctl show -P ExecStart {THIRD}")
    left = fleet.shell("ls /run | grep nifty || true")
    fleet.shell(f"rm -r /run/systemd/system/{THIRD}.d; systemctl daemon-reload")
    assert "/bin/bash --posix" in argv
    assert left == ""
