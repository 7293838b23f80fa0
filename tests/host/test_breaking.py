"""A deploy that meets others' data, a full disk, another deploy, or its end."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.image.rootfs import File
from pipeline.paths import PROJECT
from tests.support.host.altered import altered
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.host.conftest import LoopFilesystem
    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

MIB = 1 << 20
COUNT = 250
# $1 is the port
LISTEN = (
    "import socket, sys, time; s = socket.create_server(('', int(sys.argv[1]))); time.sleep(999)"
)


@pytest.fixture
def user(machine: Machine) -> Iterator[User]:
    """The user, and nothing deployed."""
    somebody = User(machine)
    try:
        yield somebody
    finally:
        somebody.clean()


@pytest.fixture(scope="module")
def shape(machine: Machine) -> str:
    """What a whole root looks like."""
    user = User(machine)
    try:
        user.doit("deploy", "count=1")
        return str(user.census().roots["nifty1"]["shape"])
    finally:
        user.clean()


def check_finished(user: User, shape: str, count: int = COUNT) -> None:
    """*count* whole instances, and nothing else."""
    census = user.census()
    assert census.problems(shape) == []
    assert set(census.roots) == {f"nifty{number}" for number in range(1, count + 1)}
    assert (census.known.keys(), census.unfinished) == (census.roots.keys(), [])
    assert len(user.known_keys()) == count


def test_all_that_stands_against_it_is_told_at_once(user: User) -> None:
    user.doit("deploy", "name=slick", "port=65534")
    unit = "holder.service"
    user.shell(
        "mkdir /home/nifty63334; echo mine > /home/nifty63334/file; chown -R 7 /home/nifty6*"
    )
    user.machine.run(["systemd-run", f"--unit={unit}", sys.executable, "-c", LISTEN, "65533"])
    user.shell("until ss -ltn | grep -q :65533; do sleep 0.1; done")
    before = user.census().stamps
    told = user.refused("deploy", "count=5", "first=63332")
    user.machine.run(["systemctl", "stop", unit])
    assert "nifty63334 is there and was not made by this program: it stays untouched" in told
    assert "nifty63333: port 65533 is taken by user 0 of this host" in told
    assert "nifty63334: port 65534 is given to niftyslick" in told
    assert "nifty63336: port 65536 is outside 1-65535" in told
    assert user.census().stamps == before


@pytest.mark.parametrize("foreign", ["mkdir /home/nifty5", "ln -s /etc /home/nifty5"])
def test_what_is_foreign_is_neither_overwritten_nor_removed(user: User, foreign: str) -> None:
    user.doit("deploy", "count=4")
    user.shell(foreign)
    before = user.census().stamps
    assert "nifty5 is there and was not made by" in user.refused("deploy", "count=10")
    assert "5" in user.refused("undeploy", "names=5", "yes=yes", code=2)
    assert user.census().stamps == before
    user.doit("undeploy", "yes=yes")
    assert list(user.census().stamps) != []
    assert user.shell("cd /home; ls -d nifty*") == "nifty5\n"


@pytest.mark.parametrize("seed", range(3))
def test_killed_deploy_leaves_absent_or_whole_and_is_finished_by_the_next(
    user: User, shape: str, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 (a place to be killed at, not a secret)
    # while they are made, or while they get their names
    sign = f"{('.nifty/new/*/', '')[seed % 2]}nifty{chance.randint(1, COUNT)}"
    victim = chance.choice(["-$pid", "$pid"])  # all of it, or the parent alone
    user.meanwhile("deploy", f"count={COUNT}", sign=sign, amid=f"kill -KILL -- {victim}")
    # a worker that outlives its parent ends its instance first
    user.shell("flock /home/.nifty/lock true")
    assert user.census().problems(shape) == []
    user.doit("deploy", f"count={COUNT}")
    check_finished(user, shape)


def test_deploy_killed_at_any_moment_is_finished_by_the_next(user: User, shape: str) -> None:
    chance = random.Random(0)  # noqa: S311 (moments, not secrets)
    for _kill in range(3):
        seconds = chance.uniform(0.3, 1.2)
        words = user.words("deploy", f"count={COUNT}")
        user.machine.run(
            ["timeout", "--signal=KILL", f"{seconds:.2f}", *words], cwd=PROJECT, check=False
        )
        user.shell("flock /home/.nifty/lock true", check=False)
        assert user.census().problems(shape) == []
    user.doit("deploy", f"count={COUNT}")
    check_finished(user, shape)


def test_killed_removal_is_finished_by_the_next(user: User, shape: str) -> None:
    chance = random.Random(1)  # noqa: S311 (moments, not secrets)
    user.doit("deploy", f"count={COUNT}")
    words = user.words("undeploy", "yes=yes")
    for _kill in range(3):
        argv = ["timeout", "--signal=KILL", f"{chance.uniform(0.3, 0.7):.2f}", *words]
        user.machine.run(argv, cwd=PROJECT, check=False)
        assert user.census().problems(shape) == []
    user.doit("undeploy", "yes=yes", check=False)  # an error, if all of them were gone
    census = user.census()
    assert (census.roots, census.known, census.unfinished, census.images) == ({}, {}, [], [])
    assert user.shell("ls -d /etc/systemd/system/nifty* 2>&-", check=False) == ""


def test_removal_killed_before_its_last_step_is_finished_by_the_next(user: User) -> None:
    user.doit("deploy", "count=1")
    user.shell("rm -r /home/nifty1 /home/.nifty/instances/1.json")
    assert "no instances here" in user.refused("undeploy", "yes=yes")
    assert user.census().images == []
    assert user.shell("ls -d /etc/systemd/system/nifty* 2>&-", check=False) == ""


def test_interrupted_deploy_says_how_far_it_came(user: User, shape: str) -> None:
    told = user.meanwhile(
        "deploy", f"count={COUNT}", sign=".nifty/new/*/nifty9", amid="kill -INT -- -$pid"
    )
    census = user.census()
    assert told.returncode == 1
    assert f"deploy stopped: {len(census.roots)} of {COUNT} instances were made" in told.stderr
    assert "interrupted\nhint: " in told.stderr
    assert (census.problems(shape), census.unfinished) == ([], [])
    user.doit("deploy", f"count={COUNT}")
    check_finished(user, shape)


def test_second_deploy_waits_and_says_for_whom(user: User, shape: str) -> None:
    second = " ".join(user.words("deploy", "count=20", "first=241"))
    amid = (
        f"({second} >/tmp/second 2>&1; echo $? >>/tmp/second) & other=$!;"
        "until grep -q waiting /tmp/second; do sleep 0.1; done; echo $pid >/tmp/first"
    )
    told = user.meanwhile("deploy", f"count={COUNT}", sign=".nifty/new/*/nifty9", amid=amid)
    user.shell("until tail -n 1 /tmp/second | grep -qx '[0-9]*'; do sleep 0.1; done")
    second_told = user.shell("cat /tmp/second")
    holder = user.shell("cat /tmp/first").strip()
    assert (told.returncode, second_told.splitlines()[-1]) == (0, "0"), second_told
    assert f"/home: process {holder} is changing the instances there; waiting" in second_told
    check_finished(user, shape, count=260)
    assert user.shell("ls /home/.nifty/units | wc -l") == "260\n"


@pytest.mark.parametrize(("kind", "size"), [("ext4", 96), ("xfs", 320)])
def test_full_disk_stops_it_cleanly_until_there_is_room(
    user: User, shape: str, loop_filesystem: LoopFilesystem, kind: str, size: int
) -> None:
    there = User(user.machine, str(loop_filesystem(kind, size * MIB)))
    fill = f"for size in 64k 1k; do dd if=/dev/zero of={there.prefix}/fill$size bs=$size 2>&-; done"
    told = there.meanwhile("deploy", f"count={COUNT}", sign=".nifty/new/*/nifty9", amid=fill)
    census = there.census()
    assert told.returncode == 1
    assert f"deploy stopped: {len(census.roots)} of {COUNT} instances were made" in told.stderr
    assert "No space left on device" in told.stderr
    assert (census.problems(shape), census.unfinished) == ([], [])
    there.shell(f"rm {there.prefix}/fill*")
    there.doit("deploy", f"count={COUNT}")
    check_finished(there, shape)
    there.doit("undeploy", "yes=yes")


def test_disk_without_inodes_stops_it_cleanly_until_there_are_some(
    user: User, shape: str, loop_filesystem: LoopFilesystem
) -> None:
    there = User(user.machine, str(loop_filesystem("ext4", 64 * MIB)))
    fill = f"mkdir {there.prefix}/many; cd {there.prefix}/many; seq 20000 | xargs touch 2>&-"
    told = there.meanwhile("deploy", f"count={COUNT}", sign=".nifty/new/*/nifty9", amid=fill)
    census = there.census()
    assert told.returncode == 1
    assert "No space left on device" in told.stderr
    assert (census.problems(shape), census.unfinished) == ([], [])
    there.shell(f"rm -r {there.prefix}/many")
    there.doit("deploy", f"count={COUNT}")
    check_finished(there, shape)
    there.doit("undeploy", "yes=yes")


def test_too_small_a_disk_is_told_before_anything(
    user: User, loop_filesystem: LoopFilesystem
) -> None:
    there = User(user.machine, str(loop_filesystem("ext4", 8 * MIB)))
    told = there.refused("deploy", f"count={COUNT}")
    assert f"not enough disk: {COUNT} instances take" in told
    assert f"not enough inodes: {COUNT} instances take" in told
    assert list(there.census().stamps) == ["lost+found"]


# What lies in the place of nifty2's state, and is nobody's state.
BAD = {
    "empty": ": >$s",
    "cut": "truncate -s 100 $s",
    "deep": "head -c 60000 /dev/zero | tr '\\0' '[' >$s",
    "pipe": "rm $s; mkfifo $s",
    "folder": "rm $s; mkdir -p $s/x",
    "sparse": "truncate -s 3G $s",
    "login": "sed -i 's/luser/a\\\\n ProxyCommand x/' $s",
    "image": r"sed -i 's/\"image\": \"......./\"image\": \"\\u001b[31m/' $s",
}


@pytest.mark.parametrize("how", BAD)
def test_damaged_state_stops_nobody_else(user: User, how: str) -> None:
    user.doit("deploy", "count=3")
    user.shell(f"s=/home/.nifty/instances/2.json; {BAD[how]}")
    told = user.doit("status", "format=json", check=False)
    assert (told.returncode, told.stdout.count('"name"')) == (1, 2)
    assert "1 instance has state that cannot be used" in told.stderr
    assert "/home/.nifty/instances/2.json: " in told.stderr
    assert told.stderr.replace("\n", "").isprintable()
    assert "2.json" in user.refused("start", "names=2")
    user.doit("undeploy", "names=2", "yes=yes")
    assert set(user.census().roots) == {"nifty1", "nifty3"}
    assert user.shell("grep -c ProxyCommand /home/.nifty/ssh_config") == "1\n"


def test_damaged_state_is_made_anew_by_deploying_again(user: User, shape: str) -> None:
    user.doit("deploy", "count=3")
    user.shell("for i in 1 2 3; do : >/home/.nifty/instances/$i.json; done")
    assert "3 instances have state" in user.refused("status")
    told = user.doit("deploy", "count=3")
    assert "nifty1, nifty2, nifty3: state made anew" in told.stderr
    check_finished(user, shape, count=3)


def test_doctor_mends_a_fleet_that_starts_again(user: User, shape: str) -> None:
    user.doit("deploy", "count=3", "boot=yes")
    user.shell(
        "cd /home/.nifty; : >instances/1.json; : >instances/9.json; : >units/2.env;"
        ": >../cbin/*/busybox; : >images/*.json; : >../nifty3/etc/inittab; : >known_hosts;"
        ": >/etc/systemd/system/nifty.target"
    )
    before = user.doit("doctor", check=False)
    assert before.returncode == 1
    for name in ("state of instances", "image ", "files of instances"):
        assert f"fail  {name}" in before.stdout
    told = user.doit("doctor", "fix=yes", check=False)
    user.doit("doctor", "undo=yes")  # the host's own limits
    assert "nifty1: state made anew from the root; the way back is given up" in told.stderr
    assert "given up: /home/.nifty/instances/9.json: empty" in told.stderr
    assert "nifty3: /etc/inittab had lost their contents, and have them again" in told.stderr
    assert "wrote nifty.target" in told.stderr
    assert "damaged" not in told.stdout
    check_finished(user, shape, count=3)
    assert {one["boot"] for one in user.census().known.values()} == {True}
    user.doit("start")


def test_one_lost_image_keeps_nobody_else_from_moving(user: User) -> None:
    for name in ("other", "third"):
        packed = altered(File(path="etc/motd", content=name.encode()))
        user.machine.put(f"/root/{name}.tar", packed)
    user.doit("deploy", "count=1")
    user.shell(": >$(echo /home/.nifty/images/*.image)")
    user.doit("deploy", "count=1", "first=2", "image=/root/other.tar")
    told = user.refused("upgrade", "image=/root/third.tar")
    assert "1 moved, 0 were there already\nerror: nifty1 cannot be moved:\n" in told
    told = user.doit("upgrade", "names=1").stderr
    assert "is whole again" in told
    assert user.doit("upgrade", "image=/root/third.tar").stderr.startswith("1 moved, 1 were there")


def test_whatever_lies_in_the_place_of_what_is_made_from_the_state(user: User) -> None:
    user.doit("deploy", "count=3")
    user.shell(
        "cd /home/.nifty; printf '\\200' >>units/1.env; rm units/2.env; mkdir units/2.env;"
        "truncate -s 3G known_hosts units/3.env; rm ssh_config; mkfifo ssh_config;"
        "cp images/*.json /tmp/manifest; : >$(echo images/*.json)"
    )
    user.doit("status")
    user.doit("deploy", "count=3")
    assert (
        user.shell("cmp /tmp/manifest /home/.nifty/images/*.json; wc -l </home/.nifty/known_hosts")
        == "3\n"
    )
    assert user.shell("grep -c NIFTY_USERS= /home/.nifty/units/*.env | grep -c :1") == "3\n"


def test_status_without_instances_says_how_to_get_some(user: User) -> None:
    assert "doit deploy count=10" in user.refused("status")
