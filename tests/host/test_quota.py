"""`disk=`: an instance cannot fill the disk of all; on btrfs, and refused where nothing bounds it.

Project quotas of ext4 and xfs need a kernel that has them, which a test host may not have:
tests/unit/host/roots/test_quota.py has the calls.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.image.rootfs import File
from tests.support.host.altered import altered
from tests.support.host.guests import Guests
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.host.conftest import LoopFilesystem
    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

MIB = 1 << 20
RUNNERS = {"nifty1": "nspawn", "nifty2": "service"}
FILE = "/root/bounded.tar.zst"
# $1 a directory; BTRFS_IOC_QUOTA_CTL, BTRFS_QUOTA_CTL_ENABLE (btrfs-ioctl(2))
ENABLE = (
    "import fcntl, os, struct, sys;"
    "fcntl.ioctl(os.open(sys.argv[1], 0), 0xC0109428, struct.pack('=QQ', 1, 0))"
)
FILL = "dd if=/dev/zero of=big bs=1M count=200 2>&1; stat -c %s big; rm big"
# $1 a directory: a subvolume in it with a file, and both read-only; what root inside may do as well
NESTED = """
import fcntl, os, struct, sys
at = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(at, 0x5000940E, bytearray(struct.pack("=q4088s", 0, b"mine")))
below = os.open("mine", os.O_RDONLY, dir_fd=at)
os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=below))
for one in (below, at):
    fcntl.ioctl(one, 0x4008941A, struct.pack("=Q", 2))
"""


@pytest.fixture
def prefix(machine: Machine, loop_filesystem: LoopFilesystem) -> str:
    """A fresh btrfs with quota."""
    prefix = str(loop_filesystem("btrfs", 1024 * MIB))
    machine.run([sys.executable, "-c", ENABLE, prefix])
    return prefix


@pytest.fixture
def user(machine: Machine, prefix: str) -> Iterator[User]:
    """The user of a prefix where two instances are bounded and one is not."""
    somebody = User(machine, prefix)
    try:
        told = somebody.doit("deploy", "names=1", "disk=64M", "start=yes").stderr
        assert "disk= on btrfs holds back no hostile root" in told
        somebody.doit("deploy", "names=2", "disk=64M", "runner=service", "start=yes")
        somebody.doit("deploy", "names=3", "runner=service", "start=yes")
        yield somebody
    finally:
        somebody.clean()


def limits(user: User) -> list[int | None]:
    return [row["disk_limit"] for row in user.status().values()]


def by_luser(user: User, name: str, script: str) -> str:
    return user.ssh(name, script).stdout


def by_root(user: User, name: str, script: str) -> str:
    inside = Guests(user.machine, RUNNERS[name], (name,))
    return inside.root(name, f"cd /root && {{ {script}; }}").stdout


def assert_bounded(
    user: User, size: int, filled: Callable[[User, str, str], str] = by_luser
) -> None:
    """Both run into EDQUOT when they write *size* bytes, and not much sooner."""
    for name in RUNNERS:
        told = filled(user, name, FILL)
        assert "Quota exceeded" in told
        assert size - 14 * MIB < int(told.split()[-1]) < size


def test_an_instance_keeps_to_its_bound_for_all_its_life(user: User) -> None:
    assert limits(user) == [64 * MIB, 64 * MIB, None]
    assert_bounded(user, 64 * MIB)
    assert_bounded(user, 64 * MIB, by_root)
    user.ssh("nifty3", "dd if=/dev/zero of=big bs=1M count=80; rm big")
    for name in RUNNERS:
        user.ssh(name, "dd if=/dev/zero of=big bs=1M count=40; sync")
    user.shell(f"sync -f {user.prefix}")
    rows = user.status()
    assert all(40 * MIB < rows[name]["disk"] < 50 * MIB for name in RUNNERS)
    assert rows["nifty3"]["disk"] is None
    assert "M of 64M" in user.doit("status").stdout

    # with another bound it goes on at once, and the one without keeps to having none
    told = user.doit("deploy", "count=3", "disk=96M").stderr
    assert "nifty3 stay without disk=" in told
    assert limits(user) == [96 * MIB, 96 * MIB, None]
    assert_bounded(user, 96 * MIB)

    # a state that is lost, another image and back
    user.shell(f": > {user.prefix}/.nifty/instances/1.json")
    user.doit("deploy", "names=1")
    assert limits(user) == [96 * MIB, 96 * MIB, None]
    user.machine.put("/root/b.tar", altered(File(path="etc/motd", content=b"welcome\n")))
    user.doit("upgrade", "image=/root/b.tar")
    assert limits(user) == [96 * MIB, 96 * MIB, None]
    user.doit("upgrade", "rollback=yes")
    assert_bounded(user, 96 * MIB)

    user.doit("deploy", "count=2", "disk=none")
    assert limits(user) == [None, None, None]
    assert "Quota exceeded" not in by_luser(user, "nifty1", FILL)


def test_a_backup_keeps_the_bound(user: User) -> None:
    user.ssh("nifty1", "dd if=/dev/zero of=kept bs=1M count=30")
    user.doit("backup", f"to={FILE}", "stop=yes")
    user.doit("undeploy", "yes=yes")
    elsewhere = User(user.machine, "/home")
    assert "; or disk=none" in elsewhere.refused("restore", f"from={FILE}")
    told = elsewhere.doit("restore", f"from={FILE}", "disk=none", "dry=yes").stdout
    assert told.count("restore nifty") == 3
    assert "takes 30." in user.refused("restore", f"from={FILE}", "disk=16M")
    user.doit("restore", f"from={FILE}", "names=1,2", "start=yes")
    assert limits(user) == [64 * MIB, 64 * MIB]
    assert "Quota exceeded" in user.ssh("nifty1", FILL).stdout
    assert user.ssh("nifty1", "stat -c %s kept").stdout == f"{30 * MIB}\n"
    user.shell(f"rm {FILE}")


def test_nothing_is_left_of_roots_that_are_read_only_subvolumes(user: User) -> None:
    user.doit("stop")
    for name in RUNNERS:
        user.machine.run([sys.executable, "-c", NESTED, f"{user.prefix}/{name}"])
    user.doit("undeploy", "yes=yes")
    assert user.shell(f"ls {user.prefix}; ls -A {user.prefix}/.nifty/new") == "cbin\n"


def test_doctor_tells_that_a_hostile_root_gets_round_a_qgroup(user: User) -> None:
    rows = json.loads(user.doit("doctor", "disk=64M", "format=json").stdout)
    (row,) = [row for row in rows if row["name"].startswith("bound on each disk")]
    assert (row["found"], row["status"]) == ("btrfs qgroup", "warn")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("ext4", "tune2fs -O project,quota"),
        ("xfs", "-o prjquota"),
        ("btrfs", "btrfs quota enable /"),
        (None, "on ext4, xfs or btrfs"),
    ],
)
def test_a_file_system_without_quota_is_refused_with_what_to_do(
    machine: Machine, loop_filesystem: LoopFilesystem, kind: str | None, told: str
) -> None:
    prefix = str(loop_filesystem(kind, 400 * MIB)) if kind else "/home"
    user = User(machine, prefix)
    before = user.shell(f"ls -A {prefix}")
    words = ("deploy", "count=2", "disk=64M")
    assert told in user.refused(*words)
    assert told in user.refused(*words, "dry=yes")
    rows = json.loads(user.doit("doctor", *words[1:], "format=json", check=False).stdout)
    assert told in "".join(row["todo"] for row in rows if row["status"] == "fail")
    assert user.shell(f"ls -A {prefix}") == before
