"""doctor: facts of a host -> rows -> files; made-up hosts are small trees of files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.host.doctor.kernel import LIMITS, PID_MAX
from pipeline.host.doctor.limits import as_json, blocking, check, refuse
from pipeline.host.doctor.probe import (
    BUS_FILE,
    OWN_FILES,
    SLICE_FILE,
    SYSCTL_FILE,
    UNLIMITED,
    BusLimits,
    Host,
    read,
)
from pipeline.host.doctor.remedy import MARK, RemedyError, fix, parse, remedy, undo
from pipeline.host.doctor.rows import Asked, Claim, PlanError, Row, Stage, Status
from pipeline.host.doctor.site import Mount, Place, PrefixFacts, UserRange
from pipeline.host.roots.needs import USUAL
from pipeline.host.state.records import Runner, Users
from pipeline.run import run

GIB = 1024**3


ALPINE = 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.22.1\n'


def of(count: int, *, first: int = 1, port: int = 2200, **others: Any) -> Asked:
    """*count* new instances from number *first* on."""
    users = others.get("users", Users.PRIVATE)
    numbers = range(first, first + count)
    claims = tuple(Claim(str(number), port + number, number, users) for number in numbers)
    return Asked(count=count, claims=claims, typed=(f"count={count}",), **others)


THOUSAND = of(1000)
THERE = replace(THOUSAND, claims=tuple(replace(one, is_new=False) for one in THOUSAND.claims))
HOSTS = replace(THERE, claims=tuple(replace(one, users=Users.HOST) for one in THERE.claims))
REGISTERED = of(1000, registered=1000)

# A host on which a thousand can run: what Debian 12 has after fix=yes.
DEBIAN_SYSCTLS = {
    "kernel.pid_max": 4194304,
    "kernel.threads-max": 126000,
    "kernel.pty.max": 4096,
    "kernel.pty.reserve": 1024,
    "kernel.pty.nr": 3,
    "kernel.keys.maxkeys": 200,
    "kernel.keys.maxbytes": 20000,
    "kernel.keys.root_maxkeys": 1000000,
    "fs.inotify.max_user_instances": 8192,
    "fs.inotify.max_user_watches": 120000,
    "fs.inotify.max_queued_events": 16384,
    "fs.mount-max": 100000,
    "fs.file-max": 9223372036854775807,
    "fs.nr_open": 1048576,
    **{
        f"user.max_{kind}_namespaces": 63000
        for kind in ("user", "mnt", "pid", "uts", "ipc", "cgroup")
    },
    "net.ipv4.neigh.default.gc_thresh3": 1024,
}
AT = Place("8:1", "/")
EXT4 = Mount(point=Path("/"), kind="ext4", options=frozenset(("rw", "relatime")), place=AT)
HOME = PrefixFacts(
    path=Path("/home"),
    exists=True,
    mount=EXT4,
    free_bytes=20 * GIB,
    free_inodes=1_000_000,
)
DEBIAN = Host(
    prefix=HOME,
    sysctls=DEBIAN_SYSCTLS,
    threads=150,
    files_open=1500,
    mounts=30,
    memory=8 * GIB,
    listening={22: frozenset([0])},
    ephemeral=(32768, 60999),
    controllers=frozenset(("cpu", "memory", "pids")),
    has_user_namespaces=True,
    is_systemd=True,
    systemd=252,
    default_tasks=18900,
    slice_tasks=94500,
    programs=frozenset(("systemd-nspawn", "unshare", "mount", "setpriv", "chroot")),
    bus=BusLimits(is_broker=False),
)


def named(name: str, asked: Asked, host: Host) -> Row:
    """The one row called *name*."""
    (found,) = [row for row in check(asked, host) if row.name == name]
    return found


def with_listener(port: int, *owners: int) -> Host:
    return replace(DEBIAN, listening={port: frozenset(owners)})


def with_sysctl(key: str, value: int) -> Host:
    return replace(DEBIAN, sysctls={**DEBIAN_SYSCTLS, key: value})


def with_prefix(*, kind: str = "ext4", options: str = "rw", exists: bool = True) -> Host:
    mount = Mount(point=Path("/home"), kind=kind, options=frozenset(options.split(",")), place=AT)
    fault = None if exists else ("/home: no such directory", "mkdir -m 755 /home")
    return replace(DEBIAN, prefix=replace(HOME, mount=mount, exists=exists, fault=fault))


def test_good_host_lacks_nothing() -> None:
    assert [row for row in check(THOUSAND, DEBIAN) if row.status is not Status.OK] == [
        named("TCP ports others use", THOUSAND, DEBIAN)
    ]


def test_nothing_readable_is_one_row_each_and_no_crash(tmp_path: Path) -> None:
    host = read(tmp_path)
    unreadable = [row for row in check(REGISTERED, host) if row.found == "unreadable"]
    assert {limit.key for limit in LIMITS} < {row.name for row in unreadable}


def test_unreadable_limit_does_not_block() -> None:
    host = replace(DEBIAN, sysctls={})
    assert blocking(check(THOUSAND, host)) == ()


@pytest.mark.parametrize(
    ("name", "host", "asked", "status"),
    [
        ("kernel.pid_max", with_sysctl("kernel.pid_max", 32768), THOUSAND, Status.OK),
        ("kernel.pid_max", with_sysctl("kernel.pid_max", 8000), THOUSAND, Status.WARN),
        ("kernel.pid_max", with_sysctl("kernel.pid_max", 5000), THOUSAND, Status.FAIL),
        (
            # seen: 32768 process numbers were used up at 8447 plain units
            "kernel.pid_max",
            with_sysctl("kernel.pid_max", 32768),
            of(11000, runner=Runner.SERVICE),
            Status.FAIL,
        ),
        ("kernel.pid_max", replace(DEBIAN, threads=PID_MAX), THOUSAND, Status.FAIL),
        ("kernel.threads-max", with_sysctl("kernel.threads-max", 4000), THOUSAND, Status.FAIL),
        ("kernel.pty.max", with_sysctl("kernel.pty.max", 2000), THOUSAND, Status.WARN),
        (
            "fs.inotify.max_user_instances",
            with_sysctl("fs.inotify.max_user_instances", 128),
            THOUSAND,
            Status.WARN,
        ),
        (
            "fs.inotify.max_user_watches",
            with_sysctl("fs.inotify.max_user_watches", 2000),
            THOUSAND,
            Status.FAIL,
        ),
        ("kernel.keys.maxkeys", DEBIAN, of(1000, users=Users.HOST), Status.WARN),
        (
            "user.max_user_namespaces",
            with_sysctl("user.max_user_namespaces", 0),
            THOUSAND,
            Status.FAIL,
        ),
        (
            "user.max_user_namespaces",
            with_sysctl("user.max_user_namespaces", 0),
            replace(THOUSAND, users=Users.HOST),
            Status.OK,
        ),
        ("fs.mount-max", with_sysctl("fs.mount-max", 80), THOUSAND, Status.FAIL),
        ("mounts of the host", replace(DEBIAN, mounts=5000), THOUSAND, Status.WARN),
        ("net.ipv4.neigh.default.gc_thresh3", DEBIAN, THOUSAND, Status.OK),
        ("TasksMax of nifty.slice", replace(DEBIAN, slice_tasks=UNLIMITED), THOUSAND, Status.WARN),
        ("TasksMax of nifty.slice", replace(DEBIAN, slice_tasks=4000), THOUSAND, Status.FAIL),
        ("systemd DefaultTasksMax", replace(DEBIAN, default_tasks=4), THOUSAND, Status.FAIL),
        ("D-Bus max_connections_per_user", DEBIAN, REGISTERED, Status.FAIL),
        (
            "D-Bus max_connections_per_user",
            replace(DEBIAN, bus=BusLimits(is_broker=True)),
            REGISTERED,
            Status.WARN,
        ),
        ("D-Bus max_completed_connections", DEBIAN, of(2000, registered=2000), Status.FAIL),
        # one registered instance beside many that are not needs one connection
        ("D-Bus max_connections_per_user", DEBIAN, of(1000, registered=1), Status.WARN),
        ("systemd as PID 1", replace(DEBIAN, is_systemd=False), THOUSAND, Status.FAIL),
        ("systemd version", replace(DEBIAN, systemd=251), THOUSAND, Status.FAIL),
        ("systemd-nspawn", replace(DEBIAN, programs=frozenset()), THOUSAND, Status.FAIL),
        ("user namespaces", replace(DEBIAN, has_user_namespaces=False), THOUSAND, Status.FAIL),
        ("cgroup version 2", replace(DEBIAN, controllers=None), THOUSAND, Status.FAIL),
        (
            "cgroup version 2",
            replace(DEBIAN, controllers=frozenset(("pids",))),
            THOUSAND,
            Status.WARN,
        ),
        ("kernel audit", replace(DEBIAN, audit=True), THOUSAND, Status.OK),
        # the article's Oracle Linux 7 has 208; 209 turned the sleep into a seccomp filter
        ("kernel audit", replace(DEBIAN, audit=True, systemd=208), THOUSAND, Status.WARN),
        ("kernel audit", replace(DEBIAN, audit=True, systemd=209), THOUSAND, Status.OK),
        ("kernel audit", replace(DEBIAN, audit=False, systemd=208), THOUSAND, Status.OK),
        ("SELinux", replace(DEBIAN, is_selinux_enforcing=True), THOUSAND, Status.WARN),
        ("prefix /home", with_prefix(exists=False), THOUSAND, Status.FAIL),
        ("prefix /home", with_prefix(kind="vfat"), THOUSAND, Status.FAIL),
        ("prefix /home", with_prefix(kind="nfs4"), THOUSAND, Status.FAIL),
        ("prefix /home", with_prefix(options="rw,noexec"), THOUSAND, Status.FAIL),
        ("prefix /home", with_prefix(options="ro"), THOUSAND, Status.FAIL),
        ("prefix /home", with_prefix(options="rw,nosuid,nodev"), THOUSAND, Status.OK),
        ("prefix /home", with_prefix(kind="tmpfs"), THOUSAND, Status.WARN),
        ("TCP ports", DEBIAN, of(1, first=63335), Status.OK),
        ("TCP ports", DEBIAN, of(1, first=63336), Status.FAIL),
        ("TCP ports", DEBIAN, of(1, port=-1), Status.FAIL),
        ("TCP ports for root", DEBIAN, of(1, port=1023), Status.OK),
        ("TCP ports for root", DEBIAN, of(1, port=1022), Status.FAIL),
        ("TCP ports for root", DEBIAN, of(1, port=1022, users=Users.HOST), Status.FAIL),
        ("TCP ports for root", replace(DEBIAN, open_ports=443), of(1, port=442), Status.OK),
        ("TCP ports of others", DEBIAN, of(1, kept_ports={2201: "niftyx"}), Status.FAIL),
        ("instances", DEBIAN, of(1, odd=("nifty1 is there",)), Status.FAIL),
        (
            "TCP ports taken",
            with_listener(2300, 0),
            THOUSAND,
            Status.FAIL,
        ),
        (
            "TCP ports taken",
            # of nifty100: its server, and a user of its own
            replace(DEBIAN, listening={2300: frozenset([7077888, 7078888])}),
            THERE,
            Status.OK,
        ),
        # of nifty99, of the host, and of both
        (*("TCP ports taken", with_listener(2300, 7012352)), THERE, Status.FAIL),
        (*("TCP ports taken", with_listener(2300, 0)), THERE, Status.FAIL),
        (*("TCP ports taken", with_listener(2300, 7077888, 7012352)), THERE, Status.FAIL),
        # with the host's users a server is root's
        (*("TCP ports taken", with_listener(2201, 0)), HOSTS, Status.OK),
        (*("TCP ports taken", with_listener(2201, 1000)), HOSTS, Status.FAIL),
        ("TCP ports others use", DEBIAN, of(100), Status.OK),
        ("TCP ports outgoing", DEBIAN, of(1, first=30568), Status.WARN),
        ("TCP ports outgoing", DEBIAN, of(1, first=30567), Status.OK),
        ("user numbers", DEBIAN, of(1, first=28663), Status.OK),
        ("user numbers", DEBIAN, of(1, first=28664), Status.FAIL),
        ("user numbers", DEBIAN, of(1, kept_slots={1: "niftyx"}), Status.FAIL),
        ("free memory", replace(DEBIAN, memory=GIB), THOUSAND, Status.FAIL),
        ("free memory", replace(DEBIAN, memory=1_850_000_000), THOUSAND, Status.WARN),
        ("free memory", replace(DEBIAN, memory=GIB), replace(THOUSAND, running=900), Status.OK),
    ],
)
def test_row_has_the_status(name: str, host: Host, asked: Asked, status: Status) -> None:
    assert named(name, asked, host).status is status


@pytest.mark.parametrize("status", [Status.WARN, Status.FAIL])
def test_row_that_is_not_ok_says_what_to_do(status: Status) -> None:
    fault = ("/home: no such directory", "mkdir -m 755 /home")
    facts = PrefixFacts(path=Path("/home"), exists=False, fault=fault)
    poor = Host(prefix=facts, systemd=208, audit=True)
    low = replace(poor, sysctls=dict.fromkeys(DEBIAN_SYSCTLS, 1))
    rows = [row for row in check(REGISTERED, low) if row.status is status]
    assert rows
    assert all(row.todo for row in rows)


DISK = 1000 * USUAL.bytes_each(4096, 4096, beside=2) + USUAL.once


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (replace(HOME, free_bytes=DISK - 1), Status.FAIL),
        (replace(HOME, free_bytes=DISK), Status.WARN),
        (replace(HOME, free_bytes=GIB), Status.OK),
    ],
)
def test_disk(facts: PrefixFacts, status: Status) -> None:
    row = named("free disk on /home", THOUSAND, replace(DEBIAN, prefix=facts))
    assert row.status is status


@pytest.mark.parametrize(
    ("free", "status"), [(44_419, Status.FAIL), (44_420, Status.OK), (None, Status.OK)]
)
def test_inodes(free: int | None, status: Status) -> None:
    facts = replace(HOME, free_inodes=free)
    row = named("free inodes on /home", THOUSAND, replace(DEBIAN, prefix=facts))
    assert row.status is status


@pytest.mark.parametrize(
    ("start", "count", "found"),
    [
        (524288, 65536, "none"),  # slot 0, which nobody has
        (524288, 65537, "ann (/etc/subuid 524288:65537)"),
        (589824 + 65536 * 1000, 65536, "none"),
        (589824 + 65536 * 1000 - 1, 1, "ann (/etc/subuid 66125823:1)"),
    ],
)
def test_user_numbers_of_others(start: int, count: int, found: str) -> None:
    other = UserRange(owner="ann", start=start, count=count, file="/etc/subuid")
    host = replace(DEBIAN, user_ranges=(other,))
    assert named("user numbers of others", THOUSAND, host).found == found


def test_unregistered_instances_have_no_rows_for_the_bus() -> None:
    assert not [row for row in check(THOUSAND, DEBIAN) if row.name.startswith("D-Bus")]


def test_service_runner_needs_no_nspawn() -> None:
    asked = of(1000, runner=Runner.SERVICE)
    host = replace(DEBIAN, programs=DEBIAN.programs - {"systemd-nspawn"})
    assert blocking(check(asked, host)) == ()


def test_missing_nspawn_is_installed_by_the_hosts_own_package_tool() -> None:
    host = replace(DEBIAN, programs=frozenset(), release="ID=fedora\n")
    assert named("systemd-nspawn", THOUSAND, host).todo == "dnf install systemd-container"


def test_a_musl_host_is_told_where_to_deploy() -> None:
    host = replace(DEBIAN, is_systemd=False, systemd=None, programs=frozenset(), release=ALPINE)
    row = named("systemd as PID 1", THOUSAND, host)
    assert (row.status, row.why) == (
        Status.FAIL,
        "this host was not booted by systemd, which is what starts instances",
    )
    assert "deploy them, image=PATH, on a host that has it, such as Debian" in row.todo


def test_no_kernel_has_more_than_four_million_processes() -> None:
    row = named("kernel.pid_max", of(500_000), DEBIAN)
    assert (row.fixable, row.todo) == (
        False,
        "fewer instances: no kernel allows more than 4194304",
    )


def test_deploying_is_not_blocked_by_what_only_starting_needs() -> None:
    rows = check(THOUSAND, with_sysctl("kernel.pid_max", 5000))
    assert [len(blocking(rows, stage)) for stage in (Stage.DEPLOY, Stage.START)] == [0, 1]


def test_refusal_names_all_at_once_with_the_command_that_mends_them() -> None:
    host = replace(with_sysctl("kernel.pid_max", 5000), programs=frozenset())
    with pytest.raises(PlanError) as caught:
        refuse(THOUSAND, check(THOUSAND, host))
    assert len(caught.value.problems) == 2
    assert caught.value.hint == "doit doctor count=1000 fix=yes"


def test_refusal_promises_no_mending_where_there_is_none() -> None:
    with pytest.raises(PlanError) as caught:
        refuse(THOUSAND, check(THOUSAND, replace(DEBIAN, programs=frozenset())))
    assert caught.value.hint == "doit doctor count=1000"


def test_refusal_says_what_was_asked_not_what_runs() -> None:
    asked = replace(of(1), count=261, running=260, typed=("name=x", "port=4008"))
    with pytest.raises(PlanError) as caught:
        refuse(asked, check(asked, with_sysctl("kernel.pid_max", 5)))
    assert caught.value.summary == (
        "this host cannot start 1 instance beside 260 that run; nothing was changed below /home:"
    )
    assert caught.value.hint == "doit doctor name=x port=4008 fix=yes"


def test_nothing_to_refuse() -> None:
    rows = check(THOUSAND, DEBIAN)
    assert blocking(rows, Stage.START) == ()
    refuse(THOUSAND, rows)


def test_json_has_one_object_for_each_row() -> None:
    rows = check(THOUSAND, DEBIAN)
    table = json.loads(as_json(rows))
    assert [(one["name"], one["status"]) for one in table] == [
        (row.name, row.status.value) for row in rows
    ]


def test_remedy_of_a_good_host_is_nothing() -> None:
    assert remedy(THOUSAND, DEBIAN) == ()


def test_remedy_sets_only_what_is_too_low() -> None:
    (file,) = remedy(THOUSAND, with_sysctl("kernel.pid_max", 5000))
    assert parse(file.content).values == {"kernel.pid_max": 4194304}


def test_remedy_remembers_what_was_before() -> None:
    (file,) = remedy(THOUSAND, with_sysctl("kernel.pid_max", 5000))
    assert parse(file.content).before == {"kernel.pid_max": 5000}


def test_remedy_limits_the_slice_by_what_the_host_has() -> None:
    (file,) = remedy(THOUSAND, replace(DEBIAN, slice_tasks=UNLIMITED))
    assert file.content.endswith("[Slice]\nTasksMax=75%\n")


def test_remedy_touches_the_bus_only_for_registered_instances() -> None:
    (file,) = remedy(REGISTERED, DEBIAN)
    assert '<limit name="max_connections_per_user">1256</limit>' in file.content


def test_remedied_values_are_enough() -> None:
    asked = of(20_000)
    low = replace(DEBIAN, sysctls=dict.fromkeys(DEBIAN_SYSCTLS, 100), slice_tasks=500_000)
    (file,) = remedy(asked, low)
    after = replace(low, sysctls={**low.sysctls, **parse(file.content).values})
    poor = [row for row in check(asked, after) if row.fixable]
    assert poor == []


SYSTEMCTL = """#!/bin/sh
case "$*" in
--version) echo "systemd 252 (252.39-1~deb12u2)" ;;
*DefaultTasksMax) echo DefaultTasksMax=4915 ;;
*nifty.slice)
    if [ -e {root}/{slice} ]
    then echo TasksMax=$(($(cat {root}/proc/sys/kernel/threads-max) * 3 / 4))
    else echo TasksMax=infinity
    fi ;;
*) echo "systemctl $*" >>{root}/calls ;;
esac
"""
BUSCTL = '#!/bin/sh\necho "busctl $*" >>{root}/calls\n'
SYSTEM_CONF = """<busconfig>
<!-- <limit name="max_connections_per_user">999</limit> -->
<includedir>/etc/dbus-1/system.d</includedir>
</busconfig>
"""
LISTENING = """  sl  local_address rem_address   st tx_queue
   0: 00000000:08FC 00000000:0000 0A 00000000:00000000 00:00000000 00000000 589824 0 1 1
   1: 0100007F:0899 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 589824 0 2 1
"""
MOUNTINFO = r"""20 1 8:1 / / rw,relatime - ext4 /dev/vda rw
21 20 8:2 / /srv/two\040words rw,noexec shared:1 - xfs /dev/vdb rw
"""


@pytest.fixture
def host_tree(tmp_path: Path) -> Path:
    """A small host that is short of much; its programs write down how they are called."""
    root = tmp_path / "host"
    files = {
        **{f"proc/sys/{key.replace('.', '/')}": "100\n" for key in DEBIAN_SYSCTLS},
        "proc/sys/kernel/pid_max": "32768\n",
        "proc/sys/kernel/pty/nr": "0\n",
        "proc/sys/fs/file-nr": "1600\t0\t9223372036854775807\n",
        "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
        "proc/loadavg": "0.10 0.20 0.30 1/345 6789\n",
        "proc/meminfo": "MemTotal: 2048 kB\nMemAvailable:    1024 kB\n",
        "proc/cmdline": "root=/dev/vda ro quiet\n",
        "proc/self/loginuid": "4294967295",
        "proc/self/mountinfo": MOUNTINFO,
        "proc/net/tcp": LISTENING,
        "sys/fs/cgroup/cgroup.controllers": "cpu io memory pids\n",
        "etc/os-release": 'ID="ol"\nID_LIKE="fedora"\n',
        "etc/subuid": "ann:100000:65536\nben:524288:65536\nnonsense\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "usr/share/dbus-1/system.conf": SYSTEM_CONF,
        "usr/bin/systemctl": SYSTEMCTL.format(root=root, slice=SLICE_FILE),
        "usr/bin/busctl": BUSCTL.format(root=root),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    for folder in ("home", "run/systemd/system", "srv/two words", "etc/sysctl.d"):
        (root / folder).mkdir(parents=True)
    return root


def everything(root: Path) -> dict[str, str]:
    """Each file below *root* but what the programs wrote down."""
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and path.name != "calls"
    }


def calls(root: Path) -> list[str]:
    path = root / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_numbers_are_read(host_tree: Path) -> None:
    host = read(host_tree)
    assert (host.threads, host.files_open, host.memory, host.sysctls["kernel.pid_max"]) == (
        345,
        1600,
        1024 * 1024,
        32768,
    )


def test_systemd_is_asked(host_tree: Path) -> None:
    host = read(host_tree)
    assert (host.systemd, host.default_tasks, host.slice_tasks) == (252, 4915, UNLIMITED)


def test_only_listeners_count_as_taken(host_tree: Path) -> None:
    assert set(read(host_tree).listening or {}) == {2300}


def test_prefix_below_a_mount_point_with_a_blank(host_tree: Path) -> None:
    facts = read(host_tree, prefix=Path("/srv/two words")).prefix
    assert facts.mount == Mount(
        point=Path("/srv/two words"),
        kind="xfs",
        options=frozenset(("rw", "noexec")),
        place=Place("8:2", "/"),
    )


def test_prefix_behind_a_link_is_on_the_file_system_it_leads_to(host_tree: Path) -> None:
    (host_tree / "srv/link").symlink_to("two words")
    (host_tree / "srv/two words/below").mkdir()
    mount = read(host_tree, prefix=Path("/srv/link/below")).prefix.mount
    assert mount is not None
    assert (mount.point, mount.kind) == (Path("/srv/two words"), "xfs")


@pytest.mark.parametrize(("text", "first"), [("443\n", 443), (None, 1024)])
def test_first_port_for_everybody_is_read(host_tree: Path, text: str | None, first: int) -> None:
    if text:
        (host_tree / "proc/sys/net/ipv4/ip_unprivileged_port_start").write_text(text)
    assert read(host_tree).open_ports == first


def test_later_mount_covers_an_earlier_one(host_tree: Path) -> None:
    more = "30 20 0:30 / /home rw - tmpfs tmpfs rw\n31 30 0:31 / /home rw - vfat /dev/vdc rw\n"
    (host_tree / "proc/self/mountinfo").write_text(MOUNTINFO + more)
    mount = read(host_tree).prefix.mount
    assert mount is not None
    assert mount.kind == "vfat"


def test_line_of_subuid_that_means_nothing_is_left_out(host_tree: Path) -> None:
    ranges = [one for one in read(host_tree).user_ranges if one.file == "/etc/subuid"]
    assert [one.owner for one in ranges] == ["ann", "ben"]


@pytest.mark.parametrize(("words", "is_on"), [("quiet", True), ("quiet audit=0", False)])
def test_audit_is_switched_off_at_boot(host_tree: Path, words: str, is_on: bool) -> None:  # noqa: FBT001 (a table's column)
    (host_tree / "proc/cmdline").write_text(f"{words}\n")
    assert read(host_tree).audit is is_on


def test_kernel_without_audit(host_tree: Path) -> None:
    (host_tree / "proc/self/loginuid").unlink()
    assert read(host_tree).audit is False


def test_limit_in_a_comment_does_not_count(host_tree: Path) -> None:
    assert read(host_tree).bus == BusLimits(is_broker=False, per_user=256)


def test_last_limit_of_the_bus_wins(host_tree: Path) -> None:
    for name, value in (("system.d/a.conf", 500), ("system-local.conf", 400)):
        path = host_tree / "etc/dbus-1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'<busconfig><limit name="max_connections_per_user">{value}</limit>')
    assert read(host_tree).bus == BusLimits(is_broker=False, per_user=400)


def test_broker_is_told_by_its_alias(host_tree: Path) -> None:
    link = host_tree / "etc/systemd/system/dbus.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("/usr/lib/systemd/system/dbus-broker.service")
    assert read(host_tree).bus == BusLimits(is_broker=True)


def test_distribution_is_told_by_its_release(host_tree: Path) -> None:
    assert read(host_tree).release == 'ID="ol"\nID_LIKE="fedora"\n'


def test_fix_mends_all_it_can(host_tree: Path) -> None:
    fix(REGISTERED, root=host_tree)
    assert [row for row in check(REGISTERED, read(host_tree)) if row.fixable] == []


def test_fix_writes_three_files_for_all_to_read(host_tree: Path) -> None:
    fix(REGISTERED, root=host_tree)
    modes = [(host_tree / name).stat().st_mode & 0o7777 for name in OWN_FILES]
    assert modes == [0o644] * 3


def test_fix_has_systemd_and_the_bus_read_their_files(host_tree: Path) -> None:
    fix(REGISTERED, root=host_tree)
    assert calls(host_tree) == [
        "systemctl daemon-reload",
        "busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig",
    ]


def test_fix_without_register_leaves_the_bus_alone(host_tree: Path) -> None:
    fix(THOUSAND, root=host_tree)
    assert not (host_tree / BUS_FILE).exists()


def test_fix_again_changes_nothing(host_tree: Path) -> None:
    fix(REGISTERED, root=host_tree)
    before = everything(host_tree)
    assert fix(REGISTERED, root=host_tree).done == ()
    assert everything(host_tree) == before


def test_fix_while_more_runs_changes_nothing(host_tree: Path) -> None:
    fix(THOUSAND, root=host_tree)
    (host_tree / "proc/loadavg").write_text("0.10 0.20 0.30 1/2345 6789\n")
    assert fix(THOUSAND, root=host_tree).done == ()


def test_fix_for_fewer_changes_nothing(host_tree: Path) -> None:
    fix(REGISTERED, root=host_tree)
    before = everything(host_tree)
    assert fix(of(10, registered=10), root=host_tree).done == ()
    assert everything(host_tree) == before


def test_fix_for_more_raises(host_tree: Path) -> None:
    fix(REGISTERED, root=host_tree)
    more = of(20_000, registered=20_000)
    fix(more, root=host_tree)
    assert [row for row in check(more, read(host_tree)) if row.fixable] == []


def test_fix_again_sets_a_value_that_was_lowered_since(host_tree: Path) -> None:
    fix(THOUSAND, root=host_tree)
    (host_tree / "proc/sys/fs/nr_open").write_text("50\n")
    assert fix(THOUSAND, root=host_tree).done == ("fs.nr_open: 50 -> 1048576",)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file read-only")
def test_fix_in_a_container_does_all_but_what_is_read_only(host_tree: Path) -> None:
    fixed = host_tree / "proc/sys/fs/inotify/max_user_instances"
    run(["mount", "--bind", fixed, fixed])
    run(["mount", "-o", "remount,bind,ro", fixed])
    try:
        first, again = fix(THOUSAND, root=host_tree), fix(THOUSAND, root=host_tree)
    finally:
        run(["umount", fixed])
    stays = "fs.inotify.max_user_instances: stays 100, read-only here: set 8192 on the host"
    left = (f"{stays} of this container",)
    assert (first.left, again.left, again.done) == (left, left, ())
    assert f"wrote /{SLICE_FILE}" in first.done
    set_ = parse((host_tree / SYSCTL_FILE).read_text()).values
    assert "fs.inotify.max_user_instances" not in set_
    assert set_["fs.nr_open"] == 1048576


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file read-only")
def test_fix_where_nothing_can_be_set_leaves_no_file_of_values(host_tree: Path) -> None:
    settings = host_tree / "proc/sys"
    run(["mount", "--bind", settings, settings])
    run(["mount", "-o", "remount,bind,ro", settings])
    try:
        fix(THOUSAND, root=host_tree)
    finally:
        run(["umount", settings])
    there = [(host_tree / name).exists() for name in (SYSCTL_FILE, SLICE_FILE)]
    assert there == [False, True]


def test_fix_keeps_what_was_before_the_first_time(host_tree: Path) -> None:
    fix(THOUSAND, root=host_tree)
    fix(of(200_000), root=host_tree)
    text = (host_tree / SYSCTL_FILE).read_text()
    assert parse(text).before["fs.inotify.max_user_instances"] == 100


def test_fix_never_lowers(host_tree: Path) -> None:
    fix(THOUSAND, root=host_tree)
    (host_tree / "proc/sys/fs/inotify/max_user_watches").write_text("5000000\n")
    fix(of(600_000), root=host_tree)
    values = parse((host_tree / SYSCTL_FILE).read_text()).values
    assert values["fs.inotify.max_user_watches"] == 5_000_000


def test_fix_for_more_than_a_kernel_can_keeps_the_most_it_can(host_tree: Path) -> None:
    fix(THOUSAND, root=host_tree)
    fix(of(600_000), root=host_tree)
    assert parse((host_tree / SYSCTL_FILE).read_text()).values["kernel.pid_max"] == PID_MAX


def test_undo_leaves_everything_as_it_was(host_tree: Path) -> None:
    before = everything(host_tree)
    fix(REGISTERED, root=host_tree)
    undo(root=host_tree)
    assert everything(host_tree) == before


def test_undo_leaves_what_somebody_changed_since(host_tree: Path) -> None:
    fix(THOUSAND, root=host_tree)
    path = host_tree / "proc/sys/fs/nr_open"
    path.write_text("3000000\n")
    undo(root=host_tree)
    assert path.read_text() == "3000000\n"


def test_undo_again_changes_nothing(host_tree: Path) -> None:
    fix(THOUSAND, root=host_tree)
    undo(root=host_tree)
    assert undo(root=host_tree) == ()


@pytest.mark.parametrize("name", OWN_FILES)
def test_file_of_somebody_else_is_never_touched(host_tree: Path, name: str) -> None:
    path = host_tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# mine\n# {MARK}\n")
    before = everything(host_tree)
    with pytest.raises(RemedyError, match="not ours"):
        fix(REGISTERED, root=host_tree)
    with pytest.raises(RemedyError, match="not ours"):
        undo(root=host_tree)
    assert everything(host_tree) == before


def test_half_written_file_of_a_killed_fix_is_replaced(host_tree: Path) -> None:
    name = Path(SYSCTL_FILE).name
    (host_tree / SYSCTL_FILE).with_name(f".{name}.part").write_text("half")
    fix(THOUSAND, root=host_tree)
    assert sorted(path.name for path in (host_tree / "etc/sysctl.d").iterdir()) == ["90-nifty.conf"]


def test_fix_that_cannot_write_says_so(host_tree: Path) -> None:
    (host_tree / "etc/sysctl.d").rmdir()
    (host_tree / "etc/sysctl.d").write_text("in the way")
    found = fix(THOUSAND, root=host_tree)
    assert len(found.left) == 1
    assert "etc/sysctl.d" in found.left[0]
    assert f"wrote /{SLICE_FILE}" in found.done


def test_reading_this_host_for_real() -> None:
    host = read()
    assert all(row.name for row in check(REGISTERED, host))


def test_held_port_of_what_is_there_stops_starting_alone() -> None:
    rows = check(THERE, with_listener(2300, 7012352 + 1000))
    held = named("TCP ports taken", THERE, with_listener(2300, 7012352 + 1000))
    assert held.detail == ("nifty100: port 2300 is taken by user 7013352 of this host (ss -ltnp)",)
    assert held in blocking(rows, Stage.START)
    assert blocking(rows, Stage.DEPLOY) == ()


def test_holder_is_named_by_its_range() -> None:
    asked = replace(THERE, kept_slots={99: "nifty99"})
    held = named("TCP ports taken", asked, with_listener(2300, 7012352 + 1000))
    assert held.detail == ("nifty100: port 2300 is taken by user 1000 of nifty99 (ss -ltnp)",)
