"""doctor on a real systemd with a real bus; the kernel's settings are a copy.

The machine shares most of /proc/sys with the outer one, which must stay as it is: so doctor runs
where a writable copy lies on top of it. Everything else it changes is the machine's own.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.paths import PROJECT
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.host.conftest import LoopFilesystem
    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

COPY = "/run/doctor-sys"
# $1 is the copy; some of /proc/sys cannot be read
MAKE_COPY = f"cp -r /proc/sys {COPY} 2>/dev/null; echo 128 >{COPY}/fs/inotify/max_user_instances"
ABOVE_COPY = f'mount --bind {COPY} /proc/sys; exec "$@"'

DOCTOR = """import json, sys
from pipeline.host.doctor import limits, probe, remedy, rows
asked = rows.Asked(count=1000, registered=1000)
if sys.argv[1] == "check":
    print(limits.as_json(limits.check(asked, probe.read())))
else:
    print(json.dumps(remedy.fix(asked).done if sys.argv[1] == "fix" else remedy.undo()))
"""

# Opens connections to the system bus until it refuses one; the bus counts them from Hello on.
CONNECT = r"""import socket, struct, sys
def field(code, kind, text):
    value = text.encode()
    raw = struct.pack("<BB1sBI", code, 1, kind, 0, len(value)) + value + b"\0"
    return raw + bytes(-len(raw) % 8)
name = "org.freedesktop.DBus"
fields = field(1, b"o", "/org/freedesktop/DBus") + field(2, b"s", name) + field(6, b"s", name)
fields += struct.pack("<BB1sBI", 3, 1, b"s", 0, 5) + b"Hello\0"
hello = struct.pack("<cBBBIII", b"l", 1, 0, 1, 0, 1, len(fields)) + fields + bytes(-len(fields) % 8)
held = []
for count in range(int(sys.argv[1])):
    one = socket.socket(socket.AF_UNIX)
    held.append(one)
    try:
        one.connect("/run/dbus/system_bus_socket")
        one.sendall(b"\0AUTH EXTERNAL 30\r\n")
        one.recv(1024)
        one.sendall(b"BEGIN\r\n" + hello)
        granted = one.recv(4096)[1:2] == b"\2"  # a method's answer; an error is 3
    except OSError:
        granted = False
    if not granted:
        print(count)
        break
else:
    print(sys.argv[1])
"""


def doctor(machine: Machine, what: str) -> Any:
    """What doctor answers to check, fix or undo."""
    words = ["unshare", "--mount", "sh", "-ec", ABOVE_COPY, "sh"]
    told = machine.run([*words, sys.executable, "-c", DOCTOR, what], cwd=PROJECT)
    return json.loads(told.stdout)


def poor(machine: Machine) -> list[str]:
    """Names of what doctor could mend."""
    return [row["name"] for row in doctor(machine, "check") if row["fixable"]]


def connections(machine: Machine) -> int:
    """How many connections the system bus grants root just now, up to 400."""
    return int(machine.run([sys.executable, "-c", CONNECT, "400"]).stdout)


def tasks(machine: Machine) -> str:
    return machine.run(["systemctl", "show", "--property=TasksMax", "nifty.slice"]).stdout.strip()


@pytest.fixture
def settings(machine: Machine) -> Iterator[Machine]:
    """The machine with a copy of the kernel's settings, and nothing of doctor's before or after."""
    machine.run(["sh", "-c", MAKE_COPY])
    yield machine
    doctor(machine, "undo")
    machine.run(["rm", "-rf", COPY])


@pytest.fixture
def fixed(settings: Machine) -> Machine:
    doctor(settings, "fix")
    return settings


def test_fresh_machine_lacks_something(settings: Machine) -> None:
    assert set(poor(settings)) >= {
        "fs.inotify.max_user_instances",
        "TasksMax of nifty.slice",
        "D-Bus max_connections_per_user",
    }


def test_nothing_is_left_to_mend(fixed: Machine) -> None:
    assert poor(fixed) == []


def test_fixed_again_nothing_changes(fixed: Machine) -> None:
    assert doctor(fixed, "fix") == []


def test_bus_grants_what_it_refused(settings: Machine) -> None:
    before = connections(settings)
    doctor(settings, "fix")
    assert (before < 256, connections(settings)) == (True, 400)


def test_slice_gets_its_limit(fixed: Machine) -> None:
    assert tasks(fixed) != "TasksMax=infinity"


def test_undone_all_is_as_before(settings: Machine) -> None:
    before = (poor(settings), tasks(settings))
    doctor(settings, "fix")
    doctor(settings, "undo")
    assert (poor(settings), tasks(settings)) == before
    assert connections(settings) < 256
    left = settings.run(["sh", "-c", "find /etc -name '*nifty*' -o -name 50-limits.conf"]).stdout
    assert left == ""


@pytest.mark.parametrize("runner", ["nspawn", "service"])
def test_deploying_takes_what_doctor_reckons_with(
    machine: Machine, loop_filesystem: LoopFilesystem, runner: str
) -> None:
    prefix = loop_filesystem("ext4", 256 << 20)
    user = User(machine, str(prefix))

    def needed(first: int) -> tuple[int, int]:
        """MiB and inodes for two hundred more."""
        words = ("count=200", f"first={first}", f"runner={runner}", "format=json")
        told = json.loads(user.doit("doctor", *words, check=False).stdout)
        rows = {row["name"]: row["needed"] for row in told}
        disk = rows[f"free disk on {prefix}"].removesuffix(" MiB")
        return int(disk), int(rows[f"free inodes on {prefix}"])

    def used() -> tuple[float, int]:
        told = user.shell(f"sync; df -B 1 --output=used,iused {prefix} | tail -1").split()
        return int(told[0]) / 2**20, int(told[1])

    free = used()
    all_ = needed(1)
    user.doit("deploy", "count=200", f"runner={runner}")
    some = used()
    more = needed(201)
    user.doit("deploy", "count=400", f"runner={runner}")
    full = used()
    user.clean()
    # to the last inode; what all have in common, beside the image, are some files of ours
    assert full[1] - some[1] == more[1]
    assert 0 <= some[1] - free[1] - all_[1] < 30
    assert 0.8 * more[0] <= full[0] - some[0] <= more[0] + 1
    assert 0.6 * all_[0] <= some[0] - free[0] <= all_[0] + 1
