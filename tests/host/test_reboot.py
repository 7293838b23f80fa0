"""The host reboots, and its systemd is upgraded, with instances of both runners on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.host.guests import Guests
from tests.support.host.machine import Machine
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.host

NAMES = ("nifty1", "nifty2", "nifty3")


@pytest.fixture(scope="module", params=["nspawn", "service"])
def host(bootable: None, request: pytest.FixtureRequest) -> Iterator[Guests]:
    """A machine of its own: three instances that start with it, niftyslick that does not."""
    runner = f"runner={request.param}"
    with Machine() as machine:
        user = User(machine)
        user.doit("deploy", "count=3", "start=yes", runner)
        user.doit("deploy", "count=3", "boot=yes", runner)  # as an afterthought
        user.doit("deploy", "name=slick", "port=2100", "start=yes", runner)
        yield Guests(machine, request.param, (*NAMES, "niftyslick"))


def answering(host: Guests) -> list[str]:
    return [name for name, row in host.status().items() if row["answers"]]


def eventually_answering(host: Guests) -> list[str]:
    deadline = time.monotonic() + 60
    while not set(NAMES) <= set(found := answering(host)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("systemctl", "daemon-reload"),
        ("systemctl", "daemon-reexec"),
        # what apt does with a new one: the package's own script, which makes PID 1 anew
        ("dpkg-reconfigure", "--frontend=noninteractive", "systemd"),
    ],
    ids=" ".join,
)
def test_instances_do_not_notice(host: Guests, command: tuple[str, ...]) -> None:
    before = {name: host.init(name) for name in host.names}
    host.machine.run(command)
    assert {name: host.init(name) for name in host.names} == before
    assert sorted(answering(host)) == sorted(host.names)


def test_instances_stop_and_start_after_it(host: Guests) -> None:
    host.machine.run(["systemctl", "daemon-reexec"])
    host.stop("nifty1")
    assert "nifty1" not in answering(host)
    host.start("nifty1")
    assert sorted(answering(host)) == sorted(host.names)


def test_those_with_boot_come_up_again_with_keys_and_files(host: Guests) -> None:
    host.ssh("nifty2", "echo kept > kept; sync")
    keys = host.machine.get("/home/.nifty/known_hosts")
    assert isinstance(host.machine, Machine)
    host.machine.reboot()
    assert eventually_answering(host) == list(NAMES)
    # known_hosts is asked: another key would be refused
    assert host.machine.get("/home/.nifty/known_hosts") == keys
    assert host.ssh("nifty2", "hostname; cat kept") == "nifty2\nkept\n"
    host.start("niftyslick")
    assert host.ssh("niftyslick", "hostname") == "niftyslick\n"
