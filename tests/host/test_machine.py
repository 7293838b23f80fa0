"""The test machine itself: without these, a green test in it would prove nothing."""

from __future__ import annotations

import os
import signal
import stat
import subprocess  # noqa: TID251 (what is timed is the process itself)
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from pipeline.run import ProgramError
from tests.support.host.machine import Machine, MachineError, leftovers, remove_stale

if TYPE_CHECKING:
    from pathlib import Path

    from tests.host.conftest import LoopFilesystem

pytestmark = pytest.mark.host

MIB = 1024 * 1024

# A container whose whole root is the machine's /usr, in a user namespace of its own.
NESTED = """set -e
mkdir -p /home/nested/usr /home/nested/etc
cp /etc/os-release /home/nested/etc/
for name in bin sbin lib lib64; do ln -s usr/$name /home/nested/$name; done
chown -hR 589824:589824 /home/nested
systemd-nspawn --quiet --register=no --keep-unit --settings=no --directory=/home/nested \
    --private-users=589824:65536 --bind-ro=/usr --console=pipe --link-journal=no \
    --resolv-conf=off --timezone=off --as-pid2 cat /proc/self/uid_map
rm -rf /home/nested
"""

# A test process that is killed while its machine runs.
VICTIM = f"""import sys, time
from tests.host import conftest
from tests.support.host.machine import Machine
conftest.pytest_configure()
with Machine() as machine, machine.filesystem("ext4", {16 * MIB}):
    machine.run(["systemd-run", "--quiet", "sleep", "1000"])
    print(machine.name, flush=True)
    time.sleep(1000)
"""


def test_systemd_is_running(machine: Machine) -> None:
    assert machine.run(["systemctl", "is-system-running"]).stdout == "running\n"


def test_entered_process_is_in_the_machines_control_group(machine: Machine) -> None:
    groups = machine.run(["cat", "/proc/self/cgroup"]).stdout.splitlines()
    assert groups[-1] == "0::/entered"


def test_service_can_be_started(machine: Machine) -> None:
    argv = ["systemd-run", "--quiet", "--pipe", "--wait", "echo", "from a unit"]
    assert machine.run(argv).stdout == "from a unit\n"


def test_nested_container_has_its_own_users(machine: Machine) -> None:
    told = machine.run(["sh", "-c", NESTED]).stdout
    assert told.split() == ["0", "589824", "65536"]


def test_python_of_the_tests_runs_inside(machine: Machine) -> None:
    program = (
        "import doit, cryptography.hazmat.bindings._rust, ssl, sqlite3, sys; print(sys.prefix)"
    )
    told = machine.run([sys.executable, "-c", program], cwd=PROJECT).stdout
    assert told == f"{sys.prefix}\n"


def test_checkout_is_read_only(machine: Machine) -> None:
    told = machine.run(["touch", PROJECT / "pyproject.toml"], check=False)
    assert "Read-only file system" in told.stderr


def test_what_is_written_to_artifacts_stays_inside(machine: Machine) -> None:
    path = PROJECT / "artifacts" / "written-inside"
    machine.put(str(path), b"")
    assert not path.exists()


def test_file_is_the_same_after_put_and_get(machine: Machine) -> None:
    content = bytes(range(256))
    machine.put("/tmp/a/b", content, 0o640)
    assert machine.get("/tmp/a/b") == content


def test_put_sets_the_mode(machine: Machine) -> None:
    machine.put("/tmp/a/mode", b"", 0o640)
    assert machine.run(["stat", "--format=%a", "/tmp/a/mode"]).stdout == "640\n"


def test_failure_inside_is_an_error(machine: Machine) -> None:
    with pytest.raises(ProgramError):
        machine.run(["false"])


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_loop_filesystem_is_mounted(
    machine: Machine, loop_filesystem: LoopFilesystem, kind: str
) -> None:
    mountpoint = loop_filesystem(kind, 320 * MIB)
    told = machine.run(["findmnt", "--noheadings", "--output=FSTYPE", mountpoint]).stdout
    assert told == f"{kind}\n"


def test_nothing_is_left_after_shutdown(bootable: None) -> None:
    with Machine() as second, second.filesystem("ext4", 16 * MIB):
        second.run(["systemd-run", "--quiet", "sleep", "1000"])
        second.shutdown()
        assert leftovers(second.name) == ()


def test_nothing_is_left_after_an_interrupt(bootable: None) -> None:
    with pytest.raises(KeyboardInterrupt), Machine() as second:
        raise KeyboardInterrupt
    assert leftovers(second.name) == ()


def test_nothing_is_left_when_booting_fails(
    bootable: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.support.host.machine.root_archive", lambda: tmp_path / "none.tar")
    second = Machine()
    with pytest.raises(MachineError, match=r"none\.tar"), second:
        pass
    assert leftovers(second.name) == ()


def test_nothing_is_left_after_the_tests_were_killed(bootable: None) -> None:
    name, returncode = name_of_ended(signal.SIGKILL)
    assert returncode == -signal.SIGKILL
    remove_stale()
    assert leftovers(name) == ()


def test_machine_is_shut_down_in_order_when_the_tests_are_terminated(bootable: None) -> None:
    name, returncode = name_of_ended(signal.SIGTERM)
    assert returncode == -signal.SIGINT  # Python's own end after KeyboardInterrupt
    assert leftovers(name) == ()


def test_instances_are_stopped_before_the_rest_is_killed(bootable: None) -> None:
    with Machine() as second:
        last_word = "--property=ExecStopPost=touch /var/tmp/stopped"
        argv = ["systemd-run", "--quiet", "--slice=nifty.slice", last_word, "sleep", "1000"]
        second.run(argv)
        # keeps the file system alive, though nobody can see it any more
        seen = os.open(f"/proc/{second.leader}/root/var/tmp", os.O_PATH | os.O_DIRECTORY)
    try:
        assert stat.S_ISREG(os.stat("stopped", dir_fd=seen).st_mode)
    finally:
        os.close(seen)


def name_of_ended(number: signal.Signals) -> tuple[str, int]:
    """The machine of a test process that was sent *number*, and what that process returned."""
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as victim:
        assert victim.stdout is not None
        name = victim.stdout.readline().decode().strip()
        victim.send_signal(number)
    return name, victim.returncode
