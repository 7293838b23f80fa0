"""`doit upgrade` of 25 running instances: to another image, back, to one that does not boot."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from pipeline.image import archive
from pipeline.image.rootfs import File
from tests.support.host.altered import altered, built
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.run import Completed
    from tests.support.host.machine import Machine
    from tests.support.host.user import Census

pytestmark = pytest.mark.host

NAMES = tuple(f"nifty{number}" for number in range(1, 26))
MINE = "::once:/bin/touch /tmp/mine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What was seen on the way from the built image to image B."""

    before: Census
    side_by_side: tuple[str, str]
    told: Completed
    after: Census
    order: dict[str, tuple[int, int]]  # when each went down and came up


def changed(path: str, old: bytes, new: bytes) -> File:
    """The built image's file *path* with *new* in place of *old*."""
    entry = built().find(path)
    assert isinstance(entry, File)
    assert old in entry.content
    return replace(entry, content=entry.content.replace(old, new))


def image_b() -> bytes:
    """Another profile, another option of syslogd, a file more, and a program more."""
    return altered(
        changed("etc/profile", b"\n", b"\n# of image B\n"),
        changed("etc/inittab", b"-s 200", b"-s 100"),
        File(path="etc/motd", content=b"welcome to B\n"),
        File(path="cbin/which-image", content=b"#!/bin/sh\necho B\n", mode=0o755),
    )


def image_that_does_not_boot() -> bytes:
    """Its init is no program."""
    return altered(File(path="cbin/busybox", content=b"\x7fELF, once", mode=0o755))


@pytest.fixture(scope="module")
def fleet(machine: Machine) -> Iterator[User]:
    """25 that run, of the built image; what a user did in the third; and images to go to."""
    user = User(machine)
    try:
        user.doit("deploy", "count=25", "start=yes")
        user.shell(
            "cd /home/nifty3; echo '# mine' >> etc/profile; echo mine > etc/mine; rm etc/shells;"
            f"sed -i '/syslogd/i {MINE}' etc/inittab; echo kept >> var/log/old"
        )
        user.ssh("nifty3", "echo mine > file; mkdir -p .config; logger hello")
        machine.put("/root/b.tar", image_b())
        machine.put("/root/broken.tar", image_that_does_not_boot())
        yield user
    finally:
        user.clean()


@pytest.fixture(scope="module")
def upgraded(fleet: User) -> Story:
    """Two first, then all of them in batches of ten."""
    before = fleet.census()
    fleet.doit("upgrade", "image=/root/b.tar", "names=1,2")
    which = "which-image 2>&- || echo A"
    side_by_side = fleet.ssh("nifty1", which).stdout, fleet.ssh("nifty4", which).stdout
    told = fleet.doit("upgrade", "image=/root/b.tar", "batch=10")
    return Story(
        before=before,
        side_by_side=side_by_side,
        told=told,
        after=fleet.census(),
        order=moments(fleet),
    )


@pytest.fixture(scope="module")
def rolled_back(upgraded: Story, fleet: User) -> Census:
    """All of them at the built image again."""
    fleet.doit("upgrade", "rollback=yes")
    return fleet.census()


@pytest.fixture(scope="module")
def stopped(rolled_back: Census, fleet: User) -> str:
    """What an upgrade says whose first batch does not come back."""
    fleet.doit("upgrade", "image=/root/b.tar")
    # three restarts in vain are as good as ten
    dropin = "/run/systemd/system/nifty@.service.d/soon.conf"
    fleet.machine.put(dropin, b"[Unit]\nStartLimitBurst=3\n")
    fleet.shell("systemctl daemon-reload")
    told = fleet.refused("upgrade", "image=/root/broken.tar", "batch=3")
    fleet.shell(f"rm -r {dropin.rpartition('/')[0]}; systemctl daemon-reload")
    return told


def moments(user: User) -> dict[str, tuple[int, int]]:
    """Where in the journal each went down last, and where it came up."""
    words = "journalctl --sync; journalctl --output=cat --lines=all _PID=1"
    lines = user.shell(f"{words} | grep -E '^(Stopping|Started) nifty@'").splitlines()
    last = {line.partition(".")[0]: at for at, line in enumerate(lines)}
    numbers = [name.removeprefix("nifty") for name in NAMES]
    return {
        f"nifty{number}": (last[f"Stopping nifty@{number}"], last[f"Started nifty@{number}"])
        for number in numbers
    }


def text(user: User, path: str) -> str:
    """A file of the third instance's."""
    return user.machine.get(f"/home/nifty3/{path}").decode()


def of(census: Census, field: str) -> dict[str, object]:
    """A field of every instance's state."""
    return {name: one[field] for name, one in census.known.items()}


def test_two_images_run_side_by_side(upgraded: Story) -> None:
    assert upgraded.side_by_side == ("B\n", "A\n")


def test_all_of_them_run_the_new_image(upgraded: Story, fleet: User) -> None:
    assert fleet.answering() == list(NAMES)
    assert fleet.ssh("nifty25", "which-image").stdout == "B\n"


def test_batch_waits_for_the_one_before(upgraded: Story) -> None:
    moved = NAMES[2:]
    batches = [moved[at : at + 10] for at in range(0, len(moved), 10)]
    for one, following in itertools.pairwise(batches):
        up = max(upgraded.order[name][1] for name in one)
        assert up < min(upgraded.order[name][0] for name in following)


@pytest.mark.parametrize("field", ["host_key", "machine_id", "port", "base", "fleet"])
def test_instance_stays_itself(upgraded: Story, field: str) -> None:
    assert of(upgraded.after, field) == of(upgraded.before, field)


@pytest.mark.parametrize("own", ["host_key", "machine_id", "hostname", "ports", "base"])
def test_what_is_its_own_stays_in_its_root(upgraded: Story, own: str) -> None:
    assert [root[own] for root in upgraded.after.roots.values()] == [
        upgraded.before.roots[name][own] for name in upgraded.after.roots
    ]


def test_known_hosts_still_lets_in(upgraded: Story, fleet: User) -> None:
    assert fleet.ssh("nifty3", "hostname").stdout == "nifty3\n"


@pytest.mark.parametrize(
    ("path", "content"),
    [("home/luser/file", "mine\n"), ("etc/mine", "mine\n"), ("var/log/old", "kept\n")],
)
def test_users_files_stay(upgraded: Story, fleet: User, path: str, content: str) -> None:
    assert text(fleet, path) == content


def test_log_goes_on(upgraded: Story, fleet: User) -> None:
    assert "luser: hello" in text(fleet, "var/log/messages")


def test_what_the_user_removed_stays_away(upgraded: Story, fleet: User) -> None:
    assert fleet.shell("ls /home/nifty3/etc/shells 2>&-", check=False) == ""


def test_file_that_both_changed_stays_with_the_new_one_beside(upgraded: Story, fleet: User) -> None:
    assert text(fleet, "etc/profile").endswith("# mine\n")
    assert "# of image B" in text(fleet, "etc/profile.nifty-new")


def test_file_that_both_changed_is_told(upgraded: Story) -> None:
    assert upgraded.told.stdout == (
        "nifty3: /etc/profile was changed there and stays; the image's is etc/profile.nifty-new\n"
    )


def test_table_has_the_users_line_and_the_new_image(upgraded: Story, fleet: User) -> None:
    lines = text(fleet, "etc/inittab").splitlines()
    assert MINE in lines
    assert "::respawn:/sbin/dropbear -F -w -p 2203 -R" in lines
    assert any("syslogd" in line and "-s 100" in line for line in lines)


def test_users_line_is_run(upgraded: Story, fleet: User) -> None:
    assert fleet.ssh("nifty3", "ls /tmp/mine").stdout == "/tmp/mine\n"


def test_untouched_instances_are_alike(upgraded: Story) -> None:
    roots = upgraded.after.roots
    # but for the log of its login and of its start
    assert {name for name in roots if roots[name]["ports"] == []} == set()
    assert len({one["image"] for one in upgraded.after.known.values()}) == 1


def test_both_images_are_kept_for_the_way_back(upgraded: Story) -> None:
    assert len(upgraded.after.images) == 2


def test_upgrading_again_moves_nobody(upgraded: Story, fleet: User) -> None:
    before = fleet.census().stamps
    assert fleet.doit("upgrade", "image=/root/b.tar").stderr.startswith("0 moved, 25 were there")
    assert fleet.census().stamps == before


def test_dry_run_tells_the_moves(upgraded: Story, fleet: User) -> None:
    told = fleet.doit("upgrade", "rollback=yes", "names=1,2", "dry=yes").stdout.splitlines()
    assert [line.split()[:2] for line in told] == [["move", "nifty1"], ["move", "nifty2"]]


def test_way_back_leads_to_the_image_before(
    upgraded: Story, rolled_back: Census, fleet: User
) -> None:
    assert of(rolled_back, "image") == of(upgraded.before, "image")
    assert fleet.answering() == list(NAMES)


def test_way_back_leaves_roots_as_they_were(upgraded: Story, rolled_back: Census) -> None:
    moved = {
        path: stamp.split(" ", 2)[2]
        for path, stamp in rolled_back.stamps.items()
        if path.startswith("nifty")
    }
    assert moved == {
        path: stamp.split(" ", 2)[2]
        for path, stamp in upgraded.before.stamps.items()
        if path.startswith("nifty")
    }


def test_users_changes_survive_the_way_back(rolled_back: Census, fleet: User) -> None:
    assert text(fleet, "etc/profile").endswith("# mine\n")
    assert MINE in text(fleet, "etc/inittab").splitlines()


def test_upgrade_stops_at_the_batch_that_does_not_come_back(stopped: str, fleet: User) -> None:
    assert "upgrade stopped after 0 instances, the next 3 did not all come back" in stopped
    assert fleet.answering() == list(NAMES[3:])


def test_batch_that_does_not_come_back_is_told_with_its_journal(stopped: str) -> None:
    assert re.search(r"nifty1 \(port 2201\):\n( +\| .*\n)* +\| .*status=1/FAILURE", stopped)


def test_fleet_of_two_ways_back_asks_which(stopped: str, fleet: User) -> None:
    told = fleet.refused("upgrade", "rollback=yes")
    assert "nothing was rolled back:" in told
    assert "3 instances, nifty1 first, would go from" in told


def test_rollback_that_was_named_brings_the_batch_back(stopped: str, fleet: User) -> None:
    assert "hint: 'doit upgrade rollback=yes first=1 count=3' brings the previous" in stopped
    fleet.doit("upgrade", "rollback=yes", "first=1", "count=3")
    assert fleet.answering() == list(NAMES)
    assert fleet.ssh("nifty1", "which-image").stdout == "B\n"


def test_images_that_nobody_uses_go(stopped: str, fleet: User) -> None:
    fleet.doit("upgrade", "image=/root/b.tar", "names=1,2,3")
    fleet.machine.put("/root/c.tar", altered(File(path="etc/motd", content=b"C\n")))
    fleet.doit("upgrade", "image=/root/c.tar")
    census = fleet.census()
    used = {*of(census, "image").values(), *of(census, "previous").values()}
    assert set(census.images) == used
    assert len(used) == 2


def test_interrupted_upgrade_leaves_nobody_down_and_is_finished_by_the_next(
    stopped: str, fleet: User
) -> None:
    packed = altered(File(path="etc/motd", content=b"D\n"))
    fleet.machine.put("/root/d.tar", packed)
    digest = archive.read(packed).digest
    words = ("upgrade", "image=/root/d.tar", "names=1,2,3,4")
    told = fleet.meanwhile(*words, sign=f"cbin/{digest}", amid="kill -INT -- -$pid")
    assert (told.returncode, "of 4 instances were moved:\n  interrupted" in told.stderr) == (
        1,
        True,
    )
    fleet.doit("start")  # which only waits for them
    assert fleet.answering() == list(NAMES)
    fleet.doit(*words)
    assert fleet.ssh("nifty4", "cat /etc/motd").stdout == "D\n"
