"""`doit backup` on one booted host, `doit restore` on another: the same instances answer there."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from tests.support.host.machine import Machine
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.host

FILE = "/root/fleet.tar.zst"
# nifty1, nifty2: as usual; the others with each other thing that can be said
NAMES = ("nifty1", "nifty2", "niftycopied", "niftyhost", "niftyplain")
DEPLOYED = (
    ("count=2", "boot=yes"),
    ("name=copied", "port=2301", "share=none"),
    ("name=host", "port=2302", "users=host"),
    ("name=plain", "port=2303", "runner=service"),
)
FURNISH = "echo mine > notes; chmod 640 notes; ln notes again; mkfifo pipe; ln -s notes link"
# what an instance's user sees of his home, times and all
LOOK = "stat -c '%n %a %u:%g %s %Y %h' $(find . | sort); cat notes; id; hostname"
SECRET = "/home/.nifty/fleet_key"


@dataclass(frozen=True, slots=True)
class Moved:
    """Both hosts, and what the first one said of each instance before."""

    old: User
    new: User
    looks: dict[str, str]
    keys: dict[int, str]
    told: str


@pytest.fixture(scope="module")
def moved(machine: Machine) -> Iterator[Moved]:
    """Five instances, backed up where they run and restored where others have their ranges."""
    with Machine() as second:
        old, new = User(machine), User(second)
        try:
            for words in DEPLOYED:
                old.doit("deploy", *words, "start=yes")
            for name in NAMES:
                old.ssh(name, FURNISH)
            looks = {name: old.ssh(name, LOOK).stdout for name in NAMES}
            keys = old.known_keys()
            told = old.doit("backup", f"to={FILE}", "stop=yes", "format=json").stdout
            # these have the ranges that named ones had on the other host
            new.doit("deploy", "name=other", "port=2401")
            new.doit("deploy", "name=another", "port=2402")
            second.put(FILE, machine.get(FILE), mode=0o600)
            new.shell(f"mv {SECRET} {SECRET}.old; mv {SECRET}.pub {SECRET}.pub.old")
            new.doit("undeploy", "names=another", "yes=yes")
            new.doit("restore", f"from={FILE}", "users=host", "start=yes")
            yield Moved(old, new, looks, keys, told)
        finally:
            old.clean()
            new.clean()


def test_homes_users_and_names_are_the_same(moved: Moved) -> None:
    assert {name: moved.new.ssh(name, LOOK).stdout for name in NAMES} == moved.looks


def test_servers_have_the_host_keys_they_had(moved: Moved) -> None:
    assert moved.new.scanned_keys(moved.keys) == moved.keys
    assert moved.keys.items() <= moved.new.known_keys().items()


def test_user_ranges_are_those_of_the_new_host(moved: Moved) -> None:
    old, new = moved.old.census().known, moved.new.census().known
    assert {name: new[name]["base"] for name in ("nifty1", "nifty2", "niftyhost")} == {
        name: old[name]["base"] for name in ("nifty1", "nifty2", "niftyhost")
    }
    assert new["niftycopied"]["base"] != old["niftycopied"]["base"]
    owner = moved.new.shell("stat -c %u /home/niftycopied/home/luser/notes")
    assert int(owner) == new["niftycopied"]["base"] + 1000


def test_what_was_recorded_of_them_is_the_same(moved: Moved) -> None:
    old, new = moved.old.census().known, moved.new.census().known
    for name in NAMES:
        kept = ("port", "image", "share", "users", "runner", "host_key", "machine_id", "boot")
        assert {key: new[name][key] for key in kept} == {key: old[name][key] for key in kept}


def test_those_that_start_with_the_host_do_so_there(moved: Moved) -> None:
    told = moved.new.shell("ls /etc/systemd/system/nifty.target.wants")
    assert told.split() == ["nifty@1.service", "nifty@2.service"]


def test_those_that_ran_run_again_where_they_were(moved: Moved) -> None:
    assert set(moved.old.answering()) == set(NAMES)


def test_the_file_is_for_its_owner_alone_and_told(moved: Moved) -> None:
    told = json.loads(moved.told)
    assert (told["to"], told["left_out"]) == (FILE, 0)
    assert [one["name"] for one in told["instances"]] == list(NAMES)
    digest = moved.old.shell(f"stat -c '%a %U' {FILE}; sha256sum < {FILE}").split()
    assert digest[:3] == ["600", "root", told["sha256"]]


def test_running_ones_are_not_copied_unless_said_so(moved: Moved) -> None:
    told = moved.old.refused("backup", "to=/root/second.tar.zst")
    assert f"nothing was backed up: {', '.join(NAMES)} run" in told
    assert "stop=yes" in told
    done = moved.old.doit("backup", "to=/root/second.tar.zst", "live=yes")
    assert "5 backed up" in done.stderr


def test_what_is_there_is_refused_with_everything_else(moved: Moved) -> None:
    told = moved.new.refused("restore", f"from={FILE}", "dry=yes")
    for name in NAMES:
        assert f"{name}: is there already, it has the same host key" in told


def test_a_damaged_file_is_refused(moved: Moved) -> None:
    moved.new.shell(f"head -c 100000 {FILE} > /root/short.tar.zst")
    told = moved.new.refused("restore", "from=/root/short.tar.zst")
    assert "/root/short.tar.zst: it ends too early" in told


def test_a_pipe_carries_it_too(moved: Moved) -> None:
    script = "{} backup to=- names=1 live=yes 2>/dev/null | head -c 4 | od -An -tx1"
    doit = moved.old.words("backup")[0]
    told = moved.old.machine.run(["sh", "-c", script.format(doit)], cwd=PROJECT).stdout
    assert told.split() == ["28", "b5", "2f", "fd"]


def test_restored_ones_can_be_upgraded_and_removed(moved: Moved) -> None:
    moved.new.doit("upgrade", "names=1", "runner=service")
    assert moved.new.ssh("nifty1", "cat notes").stdout == "mine\n"
    moved.new.doit("undeploy", "names=2", "yes=yes")
    moved.new.doit("restore", f"from={FILE}", "names=2", "runner=service", "start=yes")
    assert moved.new.ssh("nifty2", "cat notes; hostname").stdout == "mine\nnifty2\n"


def test_many_that_are_stopped(
    moved: Moved, record_property: Callable[[str, object], None]
) -> None:
    user = moved.new
    user.doit("deploy", "count=300", "first=1001")
    began = time.monotonic()
    told = json.loads(
        user.doit(
            "backup", "to=/root/many.tar.zst", "count=300", "first=1001", "format=json"
        ).stdout
    )
    record_property("backup of 300 stopped instances", f"{time.monotonic() - began:.1f} s")
    record_property("its size", f"{told['size']} bytes")
    before = user.census().known
    user.doit("undeploy", "count=300", "first=1001", "yes=yes")
    began = time.monotonic()
    user.doit("restore", "from=/root/many.tar.zst")
    record_property("restore of 300", f"{time.monotonic() - began:.1f} s")
    assert user.census().known == before
