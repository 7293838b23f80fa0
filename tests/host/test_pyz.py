"""The host's half as one file, on a system with `/usr/bin/python3` and no virtual environment."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from pipeline.commands import pyz
from pipeline.commands.places import artifacts
from pipeline.onefile.wheels import Target
from pipeline.settings import Settings
from pipeline.tasks import host
from tests.support.host import variant
from tests.support.host.testroot import PYTHONS, wanted_suite
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

IMAGE = "image=/srv/nifty.tar.zst"
OTHER = "image=/srv/other.tar.zst"


@pytest.fixture(scope="module")
def user(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Somebody with the file as `nifty` in PATH, and two images."""
    python = PYTHONS[wanted_suite()].removeprefix("python")
    target = Target(python=python, machine=os.uname().machine)
    file = pyz.make(target, pyz.inside(), tmp_path_factory.mktemp("made"))
    machine.put("/usr/local/sbin/nifty", file.read_bytes(), 0o755)
    machine.put("/srv/nifty.tar.zst", artifacts(Settings(arch=target.machine))[0].read_bytes())
    changed = variant.Variant({"hostname": "other"}, {})
    machine.put("/srv/other.tar.zst", variant.pack(changed))
    user = User(machine, program="nifty", where="/srv")
    try:
        yield user
    finally:
        user.clean()
        user.shell("rm -rf /srv/* /usr/local/sbin/nifty /var/lib/nifty /tmp/cache")


def test_a_host_without_a_checkout_has_its_tasks_and_true_hints(user: User) -> None:
    told = user.doit().stdout
    assert told.startswith("usage: nifty COMMAND [VARIABLE=VALUE ...]\n")
    listed = [line.split()[0] for line in user.doit("list").stdout.splitlines()]
    assert listed == sorted(host.names())
    assert all(f"\n  {name} " in told for name in listed)
    assert "'build' is no task\nhint: nifty list" in user.refused("build", code=3)
    assert "which image?" in user.refused("deploy", "count=2", code=2)
    assert "expected the path of an archive" in user.refused("deploy", "image=nifty", code=2)
    assert "hint: nifty deploy count=10" in user.refused("status")
    planned = user.doit("deploy", "count=2", "dry=yes", IMAGE).stdout
    assert "create nifty2, port 2202" in planned
    rows = json.loads(user.doit("doctor", "count=2", "format=json", check=False).stdout)
    assert {row["name"]: row["status"] for row in rows}["systemd as PID 1"] == "ok"
    assert user.shell("ls -A /home").split() == []
    assert user.shell("stat -c %a%u /var/lib/nifty/pyz").split() == ["7000"]


def test_an_ordinary_user_unpacks_for_himself(user: User) -> None:
    become = ["setpriv", "--reuid=4711", "--regid=4711", "--clear-groups", "env", "HOME=/tmp/cache"]
    user.shell("install -d -o 4711 /tmp/cache")
    told = user.machine.run([*become, "nifty", "stop"], check=False)
    assert told.returncode == 1
    assert "hint: sudo /usr/local/sbin/nifty stop …" in told.stderr
    assert user.shell("stat -c %u /tmp/cache/.cache/nifty/pyz").split() == ["4711"]


def test_instances_come_change_and_go_without_a_checkout(user: User) -> None:
    done = user.doit("deploy", "count=20", "start=yes", "runner=service", IMAGE)
    assert "20 answer SSH" in done.stderr
    before = user.status()
    assert [one["state"] for one in before.values()] == ["active"] * 20
    done = user.doit("upgrade", OTHER)
    assert "20 moved" in done.stderr
    after = user.status()
    assert len(user.answering()) == 20
    assert {before[name]["image"] == after[name]["image"] for name in before} == {False}
    assert user.ssh("nifty7", "hostname").stdout == "nifty7\n"
    # nothing that stays leads to where the program is, or to what it was unpacked to
    seen = "grep -rlE 'pyz|sbin/nifty' /etc/systemd/system /home/.nifty --exclude-dir=images || :"
    assert user.shell(seen) == ""
    user.doit("undeploy", "yes=yes")
    assert user.shell("ls -d /home/nifty* /etc/systemd/system/nifty* || :") == ""
