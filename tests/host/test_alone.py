"""The image by itself, as systemd starts any container: no deploy gave it an identity."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

ROOT = "/var/lib/machines/alone"
UNIT = "alone.service"
KEY = f"{ROOT}/etc/dropbear/dropbear_ed25519_host_key"
UNPACK = "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter='tar')"
PREPARE = f"""set -e
sed -i 's/-p 2200/-p 2999/' {ROOT}/etc/inittab
ssh-keygen -q -t ed25519 -N '' -f /root/alone
mkdir {ROOT}/home/luser/.ssh
cp /root/alone.pub {ROOT}/home/luser/.ssh/authorized_keys
chown -R 1000:1000 {ROOT}/home/luser/.ssh
"""
CLEANLY = ["ExecMainCode=1", "ExecMainStatus=0", "Result=success"]
LOGIN = """
for _ in $(seq 100); do
    ssh -p 2999 -i /root/alone -o BatchMode=yes -o StrictHostKeyChecking=no \\
        -o UserKnownHostsFile=/dev/null luser@127.0.0.1 id -un && exit
    sleep 0.2
done
exit 1
"""


@pytest.fixture
def alone(machine: Machine) -> Iterator[Machine]:
    """The machine, with the image unpacked in ROOT and a key of /root's let in."""
    archive = PROJECT / "artifacts" / f"nifty-{platform.machine()}.tar.xz"
    machine.run(["mkdir", ROOT])
    try:
        machine.run([sys.executable, "-c", UNPACK, archive, ROOT])
        machine.run(["sh", "-c", PREPARE])
        yield machine
    finally:
        machine.run(["systemctl", "stop", UNIT], check=False)
        machine.run(["rm", "-rf", ROOT, "/root/alone", "/root/alone.pub"])


def start(machine: Machine) -> None:
    """Boot it as systemd-nspawn@.service does, in the machine's own network."""
    machine.run(
        [
            *("systemd-run", "--quiet", f"--unit={UNIT}", "--property=TimeoutStopSec=60"),
            *("--property=KillMode=mixed", "--property=Delegate=yes", "--remain-after-exit"),
            *("systemd-nspawn", "--quiet", "--boot", "--keep-unit", "--settings=no"),
            *(f"--directory={ROOT}", "--machine=alone", "--console=read-only"),
            *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
        ]
    )


def ended(machine: Machine) -> list[str]:
    """How the unit's main process ended; waits for that."""
    gone = f"until [ $(systemctl show -P MainPID {UNIT}) = 0 ]; do sleep 0.2; done"
    machine.run(["sh", "-c", gone], timeout=60)
    words = ["systemctl", "show", "--property=Result,ExecMainCode,ExecMainStatus", UNIT]
    return sorted(machine.run(words).stdout.split())


def test_it_makes_a_host_key_and_ends_when_the_host_asks(alone: Machine) -> None:
    start(alone)
    assert alone.run(["sh", "-c", LOGIN], timeout=120).stdout == "luser\n"
    assert alone.run(["stat", "--format=%a %s", KEY]).stdout == "600 83\n"
    # SIGTERM to systemd-nspawn, SIGRTMIN+3 to init
    alone.run(["systemctl", "kill", "--kill-whom=main", "--signal=TERM", UNIT])
    assert ended(alone) == CLEANLY


def test_machinectl_powers_it_off(alone: Machine) -> None:
    start(alone)
    alone.run(["sh", "-c", LOGIN], timeout=120)
    alone.run(["machinectl", "poweroff", "alone"])
    assert ended(alone) == CLEANLY


def test_a_lost_key_of_a_deployed_one_is_not_replaced(alone: Machine) -> None:
    alone.put(f"{ROOT}/etc/machine-id", b"0123456789abcdef0123456789abcdef\n")
    server = ("/sbin/dropbear", "-F", "-E", "-R", "-p", "2998")
    told = alone.run(["chroot", ROOT, *server], check=False, timeout=60)
    assert told.returncode == 1
    assert "No hostkeys available" in told.stderr
