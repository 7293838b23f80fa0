"""Bounds that need a kernel of its own kind: a virtual machine with control groups of version 2.

TasksMax=, MemoryMax= and the project quotas of ext4 and xfs, each met by who means it: root inside
as `Guests.root` has it, in the instance's own control group, but without its other limits.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.host import machine
from tests.support.host.guests import Guests
from tests.support.host.user import User
from tests.support.host.virtual import EXT4, XFS, VirtualMachine, missing_needs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.host

MIB = 1 << 20
BOUND = 24 * MIB
RUNNERS = {"nifty1": "nspawn", "nifty2": "nspawn", "nifty3": "service"}
NEIGHBOUR = "nifty2"
DEVICES = {"ext4": (EXT4, "Quota exceeded"), "xfs": (XFS, "No space left on device")}
# the same index for the same one, or pytest would make it twice
on_ext4 = pytest.mark.parametrize("fleet", ["ext4"], indirect=True)
on_both = pytest.mark.parametrize("fleet", ["ext4", "xfs"], indirect=True)
# $1 a directory: FS_IOC_FSGETXATTR, then FSSETXATTR of no project, and of another's;
# quotactl_fd(2): Q_XSETQLIM of a limit that is none
LIFT = """
import ctypes, fcntl, os, struct, sys
root = os.open(sys.argv[1], os.O_RDONLY)
kept = bytearray(28)
fcntl.ioctl(root, 0x801C581F, kept)
flags, size, count, project, copies = struct.unpack("=5I8x", kept)
print(project, open("/proc/self/uid_map").read().split()[1])
for wanted in (0, project + 65536):
    try:
        fcntl.ioctl(root, 0x401C5820, struct.pack("=5I8x", flags, size, count, wanted, copies))
        print("lifted")
    except OSError as error:
        print(error.strerror)
libc = ctypes.CDLL(None, use_errno=True)
none = struct.pack("=bbHI4QQQ56x", 1, 2, 0b1010, project, 0, 0, 0, 0, 0, 0)
told = libc.syscall(443, root, 0x5804 << 8 | 2, project, none)
print(os.strerror(ctypes.get_errno()) if told else "lifted")
"""


@pytest.fixture(scope="module")
def virtual() -> Iterator[VirtualMachine]:
    """A virtual machine; without one tests are skipped, or fail under CI."""
    if missing := (*machine.missing_needs(), *missing_needs()):
        reason = f"no virtual machine here: {'; '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with VirtualMachine() as booted:
        yield booted
    assert machine.leftovers(booted.name) == ()


@pytest.fixture(scope="module")
def fleet(virtual: VirtualMachine, request: pytest.FixtureRequest) -> Iterator[User]:
    """Bounded instances on a file system with project quotas; nspawn has its part of ext4's."""
    device, _ = DEVICES[request.param]
    user = User(virtual, f"/mnt/{request.param}")
    virtual.run(["mkdir", user.prefix])
    virtual.run(["mount", "-o", "prjquota", device, user.prefix])
    if request.param == "ext4":
        user.doit("deploy", "names=1,2", "disk=24M", "start=yes")
        user.doit("deploy", "names=3", "runner=service", "disk=24M", "start=yes")
        yield user
        # one prefix for each host; the last one's goes with the machine
        user.doit("undeploy", "yes=yes")
        virtual.run(["umount", user.prefix])
    else:
        user.doit("deploy", "names=2,3", "runner=service", "disk=24M", "start=yes")
        yield user


def probed(user: User) -> tuple[str, ...]:
    """An instance of each runner that is there; nifty2 is a neighbour."""
    return ("nifty1", "nifty3") if user.prefix == "/mnt/ext4" else ("nifty3",)


def guests(user: User, name: str) -> Guests:
    return Guests(user.machine, RUNNERS[name], (name,))


def against(user: User, name: str, script: str, met: str) -> tuple[str, str]:
    """What lies in the instance's group and what a neighbour says, once *script* has met a bound.

    *script* is run as root inside, with what runs there; *met* is a line of a file in its group,
    and what is left of *script* is killed after that.
    """
    inside = guests(user, name)
    init, group = inside.init(name), inside.group(name)
    file, line = met.split(":")
    login = f"ssh -F {user.prefix}/.nifty/ssh_config -o BatchMode=yes {NEIGHBOUR}"
    told = user.shell(
        f"(echo $BASHPID >/sys/fs/cgroup$(sed -n s/^0:://p /proc/{init}/cgroup)/cgroup.procs &&"
        f" exec nsenter --target={init} --all -- /bin/sh -c '{script}') >/dev/null 2>&1 & "
        f"until grep -qx '{line}' {group}/{file}; do sleep 0.2; done; "
        # a neighbour starts programs and takes memory
        f"{login} 'for i in 1 2 3 4; do sleep 1 & done; wait; "
        "dd if=/dev/zero of=/dev/null bs=20M count=1 2>&-; hostname'; "
        f"cd {group}; grep -H '' pids.current pids.max memory.max memory.peak; "
        f"for i in 1 2 3; do pkill -KILL -u $(stat -c %u /proc/{init}) -x 'sh|sleep|dd'; done; wait"
    )
    assert inside.init(name) == init
    assert user.ssh(name, "hostname").stdout == f"{name}\n"
    assert user.ssh(NEIGHBOUR, "hostname").stdout == f"{NEIGHBOUR}\n"
    hostname, _, rest = told.partition("\n")
    return hostname, rest


@on_ext4
@pytest.mark.parametrize("name", ["nifty1", "nifty3"])
def test_a_fork_bomb_of_root_ends_at_tasksmax(fleet: User, name: str) -> None:
    bomb = "b() { b & b & exec sleep 100; }; b"
    hostname, told = against(fleet, name, bomb, "pids.peak:256")
    assert hostname == NEIGHBOUR
    assert "pids.max:256\n" in told
    # more than NPROC alone allows one user
    (current,) = re.findall(r"pids\.current:(.*)", told)
    assert 128 < int(current) <= 256


@on_ext4
@pytest.mark.parametrize("name", ["nifty1", "nifty3"])
def test_a_memory_hog_of_many_processes_ends_at_memorymax(fleet: User, name: str) -> None:
    # each below DATA; a pipe that nobody reads keeps it
    hog = "for i in 1 2 3; do dd if=/dev/zero bs=400M count=1 | sleep 100 & done; wait"
    hostname, told = against(fleet, name, hog, "memory.events:oom_kill [1-9].*")
    assert hostname == NEIGHBOUR
    assert f"memory.max:{1024 * MIB}\n" in told
    (peak,) = re.findall(r"memory\.peak:(.*)", told)
    assert 800 * MIB < int(peak) <= 1024 * MIB
    killed = fleet.shell("dmesg | grep 'Out of memory\\|out of memory' || true").splitlines()
    assert killed
    assert all("Memory cgroup out of memory: Killed process" in line for line in killed)
    assert all("(dd)" in line for line in killed)


@on_both
def test_a_full_disk_is_its_own(fleet: User) -> None:
    full = DEVICES[fleet.prefix.rpartition("/")[2]][1]
    fill = "dd if=/dev/zero of=big bs=1M count=40 2>&1; stat -c %s big"
    for name in probed(fleet):
        for told in (
            fleet.ssh(name, f"{fill}; rm big").stdout,
            guests(fleet, name).root(name, f"cd /root; {fill}").stdout,
        ):
            assert full in told
            assert BOUND - 4 * MIB < int(told.split()[-1]) < BOUND
    # root's are still there
    fleet.ssh(NEIGHBOUR, "dd if=/dev/zero of=big bs=1M count=16 && rm big")
    fleet.shell(f"sync -f {fleet.prefix}")
    rows = fleet.status()
    for name in probed(fleet):
        assert (rows[name]["disk_limit"], rows[name]["answers"]) == (BOUND, True)
        assert BOUND - 2 * MIB < rows[name]["disk"] <= BOUND
        guests(fleet, name).root(name, "rm /root/big")


@on_both
def test_empty_files_have_a_bound_too(fleet: User) -> None:
    full = DEVICES[fleet.prefix.rpartition("/")[2]][1]
    files = "cd /root; i=0; while true >e$i; do i=$((i+1)); done; ls | wc -l; rm e*"
    told = guests(fleet, "nifty3").root("nifty3", files)
    assert full in told.stderr
    # one for each 4 KB
    assert BOUND // 4096 - 200 < int(told.stdout) < BOUND // 4096


@on_both
def test_root_inside_cannot_lift_its_bound(fleet: User) -> None:
    for name in probed(fleet):
        init = guests(fleet, name).init(name)
        enter = ["nsenter", f"--target={init}", "--user", "--setuid", "0", "--setgid", "0"]
        # the machine's own, as nobody else's user may look into a home
        argv = [*enter, "--", "/usr/bin/python3", "-c", LIFT, f"{fleet.prefix}/{name}"]
        (project, base), *told = map(str.split, fleet.machine.run(argv).stdout.splitlines())
        assert project == base
        assert [" ".join(words) for words in told] == [
            "Invalid argument",
            "Invalid argument",
            "Operation not permitted",
        ]


@on_ext4
def test_a_bound_changes_while_it_runs(fleet: User) -> None:
    fleet.doit("deploy", "names=1", "disk=32M")
    told = fleet.ssh("nifty1", "dd if=/dev/zero of=big bs=1M count=40 2>&1; stat -c %s big; rm big")
    assert BOUND < int(told.stdout.split()[-1]) < 32 * MIB


@on_ext4
def test_doctor_sees_controllers_and_quota_and_when_a_bound_does_not_hold(fleet: User) -> None:
    rows = doctor(fleet)
    name = f"bound on each disk below {fleet.prefix}"
    group = rows["cgroup version 2"]
    assert (group["found"], group["status"]) == ("memory, pids", "ok")
    assert (rows[name]["found"], rows[name]["status"]) == ("project quota", "ok")

    fleet.doit("stop")
    fleet.shell(f"umount {fleet.prefix} && mount {EXT4} {fleet.prefix}")
    row = doctor(fleet)[name]
    fleet.shell(f"umount {fleet.prefix} && mount -o prjquota {EXT4} {fleet.prefix}")
    assert row["status"] == "warn"
    assert "nifty1, nifty2, nifty3 can outgrow disk=, ext4 without project quota" in row["todo"]


def doctor(user: User) -> dict[str, dict[str, Any]]:
    rows = json.loads(user.doit("doctor", "format=json", check=False).stdout)
    return {row["name"]: row for row in rows}
