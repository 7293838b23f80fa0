"""Instances on a real systemd: they start, answer, stop, come back, and keep to themselves."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.run import ProgramError
from tests.support.host.guests import Guests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

# niftyhost has the host's users, the others a range each
NAMES = ("nifty", "nifty1", "nifty2", "nifty3", "niftyslick", "niftyhost")
RESOLVER = b"nameserver 192.0.2.53\n"


@pytest.fixture(scope="module", params=["nspawn", "service"])
def guests(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Guests]:
    """Some instances, made without deploying; stopped and removed at the end."""
    there = Guests(machine, request.param, NAMES)
    resolver = machine.get("/etc/resolv.conf")
    machine.put("/etc/resolv.conf", RESOLVER)
    suffixes = [name.removeprefix("nifty") or "_" for name in NAMES]
    try:
        there.python(["-m", "tests.support.host.handmade", "/home", request.param, *suffixes])
        yield there
    finally:
        machine.run(
            ["sh", "-c", "systemctl stop nifty.slice; systemctl reset-failed 'nifty*'"], check=False
        )
        there.call('unit_files.uninstall(Path("/home"))')
        machine.run(["sh", "-c", "rm -rf /home/nifty* /home/cbin /home/.nifty"])
        machine.put("/etc/resolv.conf", resolver)


@pytest.fixture
def running(guests: Guests) -> Guests:
    """All of them run and answer, whatever the test before did."""
    guests.start()
    return guests


def eventually(is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so within half a minute."""
    deadline = time.monotonic() + 30
    while not (held := is_so()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return held


def main_pid(guests: Guests, name: str) -> str:
    argv = ["systemctl", "show", "--property=MainPID", "--value", guests.unit(name)]
    return guests.machine.run(argv).stdout.strip()


def answers(guests: Guests, name: str) -> bool:
    return guests.status()[name]["answers"] is True


def test_verify_has_nothing_to_say(guests: Guests) -> None:
    units = [guests.unit("nifty"), guests.unit("nifty1"), "nifty.slice", "nifty.target"]
    told = guests.machine.run(["systemd-analyze", "verify", *units])
    assert (told.stdout, told.stderr) == ("", "")


def test_exposure_does_not_grow(running: Guests) -> None:
    argv = ["systemd-analyze", "security", "--no-pager", running.unit("nifty1")]
    told = running.machine.run(argv).stdout
    print(told)  # noqa: T201 (docs/security.md shows it)
    found = re.search(r"exposure level for \S+: ([\d.]+)", told)
    assert found is not None
    assert float(found[1]) <= 5.8


def test_installing_again_changes_nothing(guests: Guests) -> None:
    runner = f"runners.RUNNERS[records.Runner({guests.runner!r})]"
    served = f"[({runner}, suffix) for suffix in ('', '1')]"
    told = guests.call(f'print(unit_files.install({served}, Path("/home")))').stdout
    assert told == "()\n"


def test_started_instances_answer(running: Guests) -> None:
    assert [row["answers"] for row in running.status().values()] == [True] * len(NAMES)


def test_starting_again_leaves_them_alone(running: Guests) -> None:
    before = running.init("nifty1")
    running.start()
    assert running.init("nifty1") == before


@pytest.mark.parametrize("name", NAMES)
def test_login_is_on_the_instance_of_that_name(running: Guests, name: str) -> None:
    assert running.ssh(name, "hostname; id -un") == f"{name}\nluser\n"


def test_host_without_a_resolver_starts_them_all_the_same(guests: Guests) -> None:
    answering = {}
    # none, a link to nowhere, one to itself, a directory
    for put in ("test ! -e", "ln -s /run/nowhere/file", "ln -s resolv.conf", "mkdir"):
        guests.stop("nifty1", "nifty2")
        script = f"cd /etc; rm -f resolv.conf; {put} resolv.conf"
        guests.machine.run(["sh", "-c", script])
        guests.start("nifty1", "nifty2")
        rows = guests.status()
        answering[put] = [rows[name]["answers"] for name in ("nifty1", "nifty2")]
    guests.machine.run(["rmdir", "/etc/resolv.conf"])
    guests.machine.put("/etc/resolv.conf", RESOLVER)
    guests.stop("nifty1", "nifty2")
    assert answering == {put: [True, True] for put in answering}


RESOLVERS = (
    'rows = [resolver.resolver_row(chosen("nifty1", "nifty2"))]; '
    "print(rows[0].found, rows[0].todo, sep=chr(10))"
)


def test_resolver_that_was_replaced_is_told_until_they_are_restarted(running: Guests) -> None:
    before = running.call(RESOLVERS).stdout.splitlines()
    running.machine.run(["sh", "-c", "cp /etc/resolv.conf /etc/r; mv /etc/r /etc/resolv.conf"])
    after = running.call(RESOLVERS).stdout.splitlines()
    running.stop("nifty1")
    running.start("nifty1")
    one = running.call(RESOLVERS).stdout.splitlines()
    running.stop("nifty2")
    assert before == ["the host's", ""]
    assert after == ["older in nifty1, nifty2", "doit restart names=1,2"]
    assert one == ["older in nifty2", "doit restart names=2"]


def test_session_has_the_hosts_resolver(running: Guests) -> None:
    assert running.ssh("nifty1", "cat /etc/resolv.conf").encode() == RESOLVER


def test_session_has_the_hosts_time_zones(running: Guests) -> None:
    assert running.ssh("nifty1", "TZ=Asia/Tokyo date +%Z") == "JST\n"


def test_sockets_tell_who_would_answer(running: Guests) -> None:
    told = running.call("seen.MOST_ASKED = 0; print(status.as_json(seen.read(known)))").stdout
    rows = [(row["answers"], row["answer_source"]) for row in json.loads(told)]
    assert rows == [(True, "socket")] * len(NAMES)


def test_status_tells_memory_of_what_runs(running: Guests) -> None:
    assert running.status()["nifty1"]["memory"] > 100_000


def test_everything_is_in_the_slice(running: Guests) -> None:
    found = running.machine.run(["find", "/sys/fs/cgroup", "-name", running.unit("nifty")])
    assert found.stdout.splitlines() == [running.group("nifty")]
    assert found.stdout.startswith("/sys/fs/cgroup/nifty.slice/")


@pytest.mark.parametrize(
    ("field", "value"), [("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapBnd", "00000000004400fb")]
)
def test_init_is_confined(running: Guests, field: str, value: str) -> None:
    status = running.machine.get(f"/proc/{running.init('nifty1')}/status").decode()
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert told[field] == value


def test_instances_do_not_connect_to_the_bus(running: Guests) -> None:
    assert running.machine.run(["machinectl", "list", "--no-legend"]).stdout == ""


def test_stop_leaves_no_process(running: Guests) -> None:
    running.stop()
    # by their user numbers, and the runner's own by name
    told = running.machine.run(["ps", "-e", "--no-headers", "-o", "uid=,comm="]).stdout
    rows = [line.split(None, 1) for line in told.splitlines()]
    assert [row for row in rows if int(row[0]) >= 524288 or "nspawn" in row[1]] == []


def test_stopped_instances_are_at_rest(running: Guests) -> None:
    running.stop("nifty1")
    row = running.status()["nifty1"]
    assert (row["state"], row["answers"], row["memory"]) == ("inactive", None, None)


def test_stop_of_one_leaves_the_others(running: Guests) -> None:
    running.stop("nifty1")
    assert answers(running, "nifty2")


def test_restart_makes_a_new_init(running: Guests) -> None:
    before = running.init("nifty2")
    running.call('rolling.restart(layout.Layout(Path("/home")), chosen("nifty2"))')
    assert running.init("nifty2") != before


def test_reboot_inside_starts_again(running: Guests) -> None:
    before = main_pid(running, "nifty1")
    running.root("nifty1", "reboot")
    assert eventually(lambda: main_pid(running, "nifty1") not in (before, "0"))


def test_poweroff_inside_is_no_failure_and_stays(running: Guests) -> None:
    running.root("nifty1", "poweroff")
    assert eventually(lambda: running.status()["nifty1"]["state"] == "inactive")


@pytest.mark.parametrize("victim", [main_pid, lambda guests, name: str(guests.init(name))])
def test_killed_instance_comes_back(running: Guests, victim: Callable[[Guests, str], str]) -> None:
    before = main_pid(running, "nifty1")
    running.machine.run(["kill", "-KILL", victim(running, "nifty1")])
    assert eventually(lambda: main_pid(running, "nifty1") not in (before, "0"))


def test_killed_runner_leaves_no_orphan(running: Guests) -> None:
    payload = running.init("nifty1")
    running.machine.run(["kill", "-KILL", main_pid(running, "nifty1")])
    gone = ["test", "!", "-e", f"/proc/{payload}"]
    assert eventually(lambda: running.machine.run(gone, check=False).returncode == 0)


def test_instance_that_cannot_start_is_told_with_its_journal(guests: Guests) -> None:
    guests.stop("nifty3")
    guests.machine.run(["mv", "/home/nifty3", "/home/elsewhere"])
    try:
        told = guests.call('control.start(chosen("nifty2", "nifty3"))', check=False).stderr
    finally:
        guests.machine.run(["mv", "/home/elsewhere", "/home/nifty3"])
    assert re.search(r"1 of 2 instances.*\n  nifty3 \(port 2204\):\n    \| .*/home/nifty3", told)


def test_failed_instance_can_be_started_once_it_is_mended(running: Guests) -> None:
    unit = running.unit("nifty2")
    running.stop("nifty2")
    running.machine.run(["mv", "/home/nifty2", "/home/elsewhere"])
    running.machine.run(["systemctl", "start", unit], check=False)
    failed = ["systemctl", "is-failed", "--quiet", unit]
    assert eventually(lambda: running.machine.run(failed, check=False).returncode == 0)
    running.machine.run(["mv", "/home/elsewhere", "/home/nifty2"])
    running.start("nifty2")
    assert answers(running, "nifty2")


def test_instance_without_an_environment_is_refused_by_systemd(guests: Guests) -> None:
    argv = ["systemctl", "start", guests.unit("nifty99")]
    with pytest.raises(ProgramError, match="Assertion failed"):
        guests.machine.run(argv)


def test_environment_alone_decides_which_programs_run(running: Guests) -> None:
    environment = f"/home/.nifty/units/2.{'env' if running.runner == 'nspawn' else 'fstab'}"
    before = running.machine.get(environment)
    running.machine.run(
        ["sh", "-c", "cp -a /home/cbin/* /home/cbin/other; touch /home/cbin/other/new"]
    )
    try:
        running.machine.put(environment, re.sub(rb"/home/cbin/\w+", b"/home/cbin/other", before))
        running.call('rolling.restart(layout.Layout(Path("/home")), chosen("nifty2"))')
        told = [running.ssh(name, "ls /cbin | grep -cx new || true") for name in NAMES[1:3]]
    finally:
        running.machine.put(environment, before)
        running.stop("nifty2")
        running.machine.run(["rm", "-r", "/home/cbin/other"])
    assert told == ["0\n", "1\n"]


@pytest.mark.parametrize("guests", ["nspawn"], indirect=True)
def test_registered_instance_is_a_machine(running: Guests) -> None:
    environment = "/home/.nifty/units/2.env"
    before = running.machine.get(environment)
    try:
        running.machine.put(environment, before.replace(b"REGISTER=no", b"REGISTER=yes"))
        running.call('rolling.restart(layout.Layout(Path("/home")), chosen("nifty2"))')
        told = running.machine.run(["machinectl", "list", "--no-legend"]).stdout
    finally:
        running.machine.put(environment, before)
        running.stop("nifty2")
    assert told.split()[0] == "nifty2"


def test_enabled_instance_starts_with_the_host(guests: Guests) -> None:
    argv = ["systemctl", "is-enabled", "nifty.target", guests.unit("nifty1"), guests.unit("nifty")]
    guests.call('control.enable(chosen("nifty1", "nifty"))')
    told = guests.machine.run(argv).stdout
    guests.call('control.disable(chosen("nifty1", "nifty"))')
    assert told == "enabled\n" * 3


def test_target_starts_what_is_enabled(guests: Guests) -> None:
    guests.stop("nifty1")
    guests.call('control.enable(chosen("nifty1"))')
    guests.machine.run(["systemctl", "start", "nifty.target"])
    guests.call('control.disable(chosen("nifty1"))')
    assert eventually(lambda: answers(guests, "nifty1"))


@pytest.mark.parametrize("target", ["/cbin", "/usr/share/zoneinfo", "/etc/resolv.conf"])
@pytest.mark.parametrize(
    "attempt",
    [
        "mount -o remount,rw {0}",
        "mount -o remount,bind,rw {0}",
        # a second mount of it is granted to such a root, and as read-only as the first
        "mkdir /tmp/$$ && mount --bind {0} /tmp/$$ && mount -o remount,bind,rw /tmp/$$",
        "umount {0}",
        "chmod 777 {0}",
        "chown 0:0 {0}",
        "mv {0} {0}.old",
        "rm -r {0}",
        "echo > {0}/new || echo > {0}",
    ],
)
def test_root_cannot_change_what_it_shares_with_the_host(
    running: Guests, attempt: str, target: str
) -> None:
    assert running.root("nifty1", attempt.format(target)).returncode != 0


@pytest.mark.parametrize("name", ["nifty3", "niftyhost"])
def test_instances_own_root_can_neither_mount_nor_make_devices(running: Guests, name: str) -> None:
    # by init, so with init's capabilities and filter, unlike nsenter's
    attempts = {
        "remount": "mount -o remount,rw /cbin",
        "write": "touch /cbin/new",
        "mount": "mount -t tmpfs none /mnt",
        "bind": "mount --bind /cbin /mnt",
        "unshare": "unshare -m true",
        "user": "unshare -r true",
        "nested": "unshare -Urm mount -t tmpfs none /mnt",
        "device": "mknod /tmp/x b 7 0",
        "name": "hostname other",
    }
    tries = "; ".join(f"{words} && touch /root/{what}" for what, words in attempts.items())
    table = f"/home/{name}/etc/inittab"
    before = running.machine.get(table)
    running.stop(name)
    try:
        line = f"::once:/bin/sh -c 'mkdir /mnt; {tries}; touch /root/tried'\n"
        running.machine.put(table, before + line.encode())
        running.start(name)
        tried = ["test", "-e", f"/home/{name}/root/tried"]
        assert eventually(lambda: running.machine.run(tried, check=False).returncode == 0)
        found = running.machine.run(["ls", f"/home/{name}/root"]).stdout
    finally:
        running.machine.put(table, before)
        running.stop(name)
        running.machine.run(["sh", "-c", f"rm -rf /home/{name}/root/* /home/{name}/mnt"])
    assert found == "tried\n"


def test_root_sees_its_own_processes_only(running: Guests) -> None:
    told = running.root("nifty1", "cd /proc; for pid in [0-9]*; do cat $pid/comm; done 2>&-")
    assert set(told.stdout.split()) <= {"init", "dropbear", "syslogd", "sh", "cat"}


def test_root_cannot_signal_the_hosts_processes(running: Guests) -> None:
    journal = ["systemctl", "show", "--property=MainPID", "--value", "systemd-journald"]
    before = running.machine.run(journal).stdout, running.init("nifty2")
    running.root("nifty1", "kill -9 -1")
    assert (running.machine.run(journal).stdout, running.init("nifty2")) == before


@pytest.mark.parametrize(
    "path", ["/home/nifty2", "/../home/nifty2", "/proc/1/root/home/nifty2", "/proc/1/cwd/../nifty2"]
)
def test_root_does_not_find_another_instances_root(running: Guests, path: str) -> None:
    assert running.root("nifty1", f"ls {path}").returncode != 0


@pytest.mark.parametrize(
    "path",
    ["etc/shadow", "etc/dropbear/dropbear_ed25519_host_key", "home/luser/.ssh/authorized_keys"],
)
def test_root_may_not_read_another_instances_secrets_if_it_finds_them(
    running: Guests, path: str
) -> None:
    ours = running.machine.run(["stat", "--format=%u", "/home/nifty1"]).stdout.strip()
    argv = ["setpriv", f"--reuid={ours}", f"--regid={ours}", "--clear-groups"]
    with pytest.raises(ProgramError, match="Permission denied"):
        running.machine.run([*argv, "--", "cat", f"/home/nifty2/{path}"])


def test_instance_with_the_hosts_users_sees_its_own_processes_only(running: Guests) -> None:
    assert int(running.ssh("niftyhost", "ls -d /proc/[0-9]* | wc -l")) < 10


def test_users_of_two_instances_do_not_overlap(running: Guests) -> None:
    maps = [
        running.machine.get(f"/proc/{running.init(name)}/uid_map").split() for name in NAMES[1:3]
    ]
    assert int(maps[0][1]) + int(maps[0][2]) <= int(maps[1][1])
