"""A virtual machine with a kernel of its own, for what the kernel of a test host may lack.

Its processor is emulated (qemu's TCG), so it runs anywhere, and slowly. It has systemd as PID 1,
control groups of version 2 alone, and two disks for instances, whose project quotas are on.

Nothing of it outlives the process that made it: what it is made of lies on a tmpfs in a mount
namespace of its own, and qemu is in a PID namespace that dies with that process. It has no network,
and is spoken to through qemu's standard input and output (agent.py).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import select
import shutil
import subprocess  # noqa: TID251 (what is talked to is the process itself)
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, Completed, ProgramError, last_lines
from tests.support.host import kernel
from tests.support.host.altered import IMAGE
from tests.support.host.machine import PREFIX, MachineError, bound_directories
from tests.support.host.system import System
from tests.support.host.testroot import root_archive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

NEEDED_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "dpkg-deb": "dpkg",
}
MEMORY = 2048  # MiB: more than the most that an instance may have, and a host beside it
EXT4, XFS = Path("/dev/vdb"), Path("/dev/vdc")
PORT = "/dev/vport0p1"

# What of the checkout is used on a host, and its image.
CHECKOUT = (
    *(".venv", "dodo.py", "pyproject.toml", "pipeline", "recipes", "tests/support"),
    *(f"artifacts/{IMAGE.name}", f"artifacts/{IMAGE.name.partition('.')[0]}.json"),
)
# Compilers and plots: nothing of them is used on a host.
LEFT_OUT = (
    *("ziglang*", "numpy*", "matplotlib*", "fontTools", "pillow*", "PIL", "mypy*", "*__mypyc*"),
    *("ruff*", "setuptools", "pip", "hypothesis", "grimp", "pysequoia*"),
)

# $1 name, $2 archive of the root, $3 work directory with what is put into it; then the words of
# qemu. From /run on nothing outlives this shell.
LAUNCH = """set -e
exec 3>&1 >&2
mount -t tmpfs -o mode=755 "$1" /run
mkdir /run/root
tar --extract --file="$2" --directory=/run/root
tar --create --directory=/ --exclude-from="$3/without" --files-from="$3/files" |
    tar --extract --directory=/run/root
cp -a "$3/etc" /run/root
mkfs.ext4 -q -d /run/root /run/root.img 1500M
rm -r /run/root
truncate --size=512M /run/ext4.img /run/xfs.img
mkfs.ext4 -q -O quota,project /run/ext4.img
mkfs.xfs -q /run/xfs.img
shift 3
exec "$@" >&3
"""

UNIT = """[Unit]
Description=what the tests ask for
DefaultDependencies=no
[Service]
ExecStart={python} -m tests.support.host.agent {port}
WorkingDirectory={project}
Environment=LC_ALL=C.UTF-8
TasksMax=1000
"""
# What an emulated processor would only spend its time on.
MASKED = (
    *("getty@tty1.service", "serial-getty@ttyS0.service", "systemd-logind.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "systemd-timesyncd.service"),
    *("networking.service", "nftables.service", "systemd-update-utmp.service"),
)


def missing_needs() -> tuple[str, ...]:
    """What a virtual machine needs and this host lacks, one sentence each."""
    lacking = [] if kernel.is_for_this_machine() else ["a kernel for virtual machines of this kind"]
    search = CLEAN_ENVIRONMENT["PATH"]
    lacking += [
        f"{program} (apt-get install {package})"
        for program, package in NEEDED_PROGRAMS.items()
        if shutil.which(program, path=search) is None
    ]
    return tuple(lacking)


class VirtualMachine(System):
    """A booted system, as a context manager: running inside `with`, gone without trace after.

    Inside, copies of the checkout and the running Python are at their outer paths.
    """

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._console: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Boot; raises MachineError with the console's last lines when that fails."""
        try:
            with tempfile.TemporaryDirectory(prefix=self.name) as work:
                self._start(root_archive(), Path(work))
                self._answer(time.monotonic() + 240)
            self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=240)
        except BaseException:
            self.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Switch it off."""
        self.shutdown()

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        timeout: float = 60.0,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
    ) -> Completed:
        """Run *argv* inside as root; see System. An emulated processor gets thrice the time."""
        if self._process is None or self._process.stdin is None:
            raise MachineError(f"{self.name} is not running")
        words = [os.fspath(word) for word in argv]
        asked = {
            "argv": words,
            "env": {**CLEAN_ENVIRONMENT, "HOME": "/root", **(env or {})},
            "cwd": os.fspath(cwd),
            "stdin": base64.b64encode(stdin).decode(),
            "timeout": 3 * timeout,
        }
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        told = self._answer(time.monotonic() + 3 * timeout + 30)
        shown = " ".join(words[:6])
        if "fault" in told:
            raise ProgramError(f"{shown}: {told['fault']}")
        ended = Completed(**told)
        if check and ended.returncode != 0:
            lines = last_lines(ended.stdout + ended.stderr)
            raise ProgramError(
                f"{shown} returned {ended.returncode}:\n{lines}", returncode=ended.returncode
            )
        return ended

    def shutdown(self) -> None:
        """End qemu, whose disks nobody wants; may be repeated."""
        if self._process is not None:
            self._process.kill()  # its PID namespace ends with it
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
        if self._console is not None:
            self._console.close()
            self._console = None

    def _start(self, archive: Path, work: Path) -> None:
        linux, initramfs = kernel.unpack(work)
        self._lay_out(work)
        console = tempfile.TemporaryFile()  # noqa: SIM115 (closed by shutdown)
        self._console = console
        command_line = (
            "console=ttyS0 quiet panic=-1 mitigations=off audit=0 tsc=nowatchdog"
            " systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 "
            + " ".join(f"systemd.mask={unit}" for unit in MASKED)
        )
        drives = [
            word
            for file in ("root", "ext4", "xfs")
            for word in ("-drive", f"file=/run/{file}.img,if=virtio,format=raw,cache=unsafe")
        ]
        argv: list[str | Path] = [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"),
            *("--mount-proc", "sh", "-c", LAUNCH, "sh", self.name, archive, work),
            *(
                "qemu-system-x86_64",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "Westmere",
                "-smp",
                "2",
            ),
            *("-m", str(MEMORY), "-nodefaults", "-no-user-config", "-display", "none"),
            *("-no-reboot", "-kernel", linux, "-initrd", initramfs, "-append", command_line),
            *("-chardev", "file,id=console,path=/dev/stderr,append=on", "-serial"),
            *("chardev:console", "-chardev", "stdio,id=agent,signal=off", "-device"),
            *("virtio-serial-pci", "-device", "virtserialport,chardev=agent,nr=1", *drives),
        ]
        self._process = subprocess.Popen(
            argv,
            env=CLEAN_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=console,
            start_new_session=True,  # Ctrl-C is for the tests, which then shut down in order
        )

    def _lay_out(self, work: Path) -> None:
        """What goes into the root: copies of directories, and a unit that starts the agent."""
        files = [
            f"{top.relative_to('/')}/{name}"
            for top in bound_directories()
            for name in (("bin", "lib") if top != PROJECT else CHECKOUT)
            if (top / name).exists()
        ]
        (work / "files").write_text("".join(f"{name}\n" for name in files))
        without = [*(f"*/site-packages/{name}" for name in LEFT_OUT), "*/lib/python3*/test", "*.a"]
        if sys.base_prefix != sys.prefix:
            without.append(f"{sys.base_prefix[1:]}/lib/python3*/site-packages")
        (work / "without").write_text("".join(f"{name}\n" for name in without))
        system = work / "etc" / "systemd" / "system"
        (system / "sysinit.target.wants").mkdir(parents=True)
        unit = UNIT.format(python=sys.executable, port=PORT, project=PROJECT)
        (system / "agent.service").write_text(unit)
        (system / "sysinit.target.wants" / "agent.service").symlink_to("../agent.service")
        (work / "etc" / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")

    def _answer(self, deadline: float) -> dict[str, Any]:
        """The next line of the agent's."""
        line = b""
        while not line.endswith(b"\n"):
            assert self._process is not None
            assert self._process.stdout is not None
            left = max(0, deadline - time.monotonic())
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            part = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                told = self._told()
                self.shutdown()
                raise MachineError(
                    f"{self.name} {'ended' if ready else 'no answer in time'}:\n{told}"
                )
            line += part
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _told(self) -> str:
        if self._console is None:
            return ""
        self._console.seek(0)
        return last_lines(self._console.read().decode(errors="replace"))
