"""A real Debian systemd, booted by systemd-nspawn, in which tests do what a user does.

Nothing of a machine outlives the process that made it, however that ends:

- its root is one tmpfs, mounted in a mount namespace of its own, so the outer machine never sees a
  mount (and a nested container's root may lie anywhere: there is no overlayfs below it);
- its processes are in a PID namespace that the kernel kills with the first of them, and that one
  dies with the test process (prctl(2), PR_SET_PDEATHSIG). systemd-nspawn alone would not do: killed
  with SIGKILL it leaves its payload running;
- loop devices are made by `mount -o loop`, which detaches them with the last mount (losetup(8)).

Only empty control groups can stay behind after SIGKILL; the next machine removes them.

The outer machine's settings stay as they are. Of those kernel.pid_max is the dangerous one (a PID
namespace starts with the largest value, but the outer one still rules), so the machine is held to
three quarters of it by the pids controller: tests fail before the outer machine cannot fork.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess  # noqa: TID251 (what is timed is the process itself)
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, Completed, ProgramError, last_lines, run
from tests.support.host.groups import groups_of, hierarchies, limit_tasks, remove_group
from tests.support.host.system import System
from tests.support.host.testroot import release_here, root_archive, wanted_suite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

# Program -> the Debian package that brings it.
NEEDED_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "apt-get": "apt",
    "tar": "tar",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
PREFIX = "nifty-test-"

# $1 name, $2 archive, $3 control groups, $4 artifacts; then systemd-nspawn's words.
# /run is covered so that systemd-nspawn's own locks and sockets vanish with the namespace.
# It ends with 133 when its payload reboots (systemd-nspawn(1), --keep-unit), and starts again in
# the same groups: one that has controllers for its children takes no process (cgroups(7)).
LAUNCH = """set -e
groups=$3
for group in $groups; do
    mkdir "$group/launcher"
    echo 0 > "$group/launcher/cgroup.procs"
done
mount -t tmpfs -o mode=755 "$1" /run
mkdir /run/root /run/layer /run/layer/upper /run/layer/work /run/artifacts
mount -t tmpfs -o mode=755 "$1" /run/root
tar --extract --file="$2" --directory=/run/root
mount -t overlay -o "lowerdir=$4,upperdir=/run/layer/upper,workdir=/run/layer/work" "$1" \
    /run/artifacts
shift 4
status=133
while [ $status = 133 ]; do
    for group in $groups; do
        find "$group" -mindepth 1 -depth -type d ! -name launcher -exec rmdir {} + || true
        for word in $(cat "$group/cgroup.subtree_control" 2>/dev/null); do
            echo "-$word" > "$group/cgroup.subtree_control"
        done
    done
    status=0
    (for group in $groups; do echo 0 > "$group/cgroup.procs"; done; exec "$@") || status=$?
done
exit $status
"""

# $1 control groups; then the words to run in them
ENTER = 'for group in $1; do echo $$ > "$group/cgroup.procs"; done; shift; exec "$@"'


class MachineError(NiftyError):
    """A test machine that could not be made, did not boot, or left something behind."""


def missing_needs() -> tuple[str, ...]:
    """What a machine needs and this host lacks, one sentence each; empty when all is there."""
    if os.geteuid() != 0:
        return ("booting a system needs root",)
    search = CLEAN_ENVIRONMENT["PATH"]
    lacking = [
        f"{program} (apt-get install {package})"
        for program, package in NEEDED_PROGRAMS.items()
        if shutil.which(program, path=search) is None
    ]
    mounted = hierarchies()
    if not mounted or not os.access(mounted[0], os.W_OK):
        lacking.append("a mounted, writable cgroup2 hierarchy")
    if sys.base_prefix == "/usr" and wanted_suite() != release_here():
        # what is compiled in this environment is for this host's own Python
        lacking.append(f"a Python of its own, not /usr's (or NIFTY_TEST_SUITE={release_here()})")
    return tuple(lacking)


def leftovers(name: str = PREFIX) -> tuple[str, ...]:
    """Control groups, mounts and loop devices of machines called *name*…; a process has a group."""
    found = [str(group) for top in hierarchies() for group in top.glob(f"{name}*")]
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found += [line for line in mounts if name in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # detached while we look
            if name in backing.read_text(errors="replace"):
                found.append(str(backing))
    return tuple(found)


class Machine(System):
    """A booted system, as a context manager: running inside `with`, gone without trace after.

    Inside, the checkout and the running Python are at their outer paths, read-only; `artifacts/` is
    writable there, and what is written never reaches the outer one. Its network is `lo` only.
    """

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        self.leader = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._console: IO[bytes] | None = None
        self._groups: tuple[Path, ...] = ()
        self._entrance: tuple[Path, ...] = ()

    def __enter__(self) -> Self:
        """Boot; raises MachineError with the console's last lines when that fails."""
        archive = root_archive()
        remove_stale()
        try:
            self._start(archive)
            self._wait_for_boot(deadline=time.monotonic() + 60)
        except BaseException:
            self.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the instances, then kill the machine and what is left in it."""
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
        """Run *argv* inside as root, in all the machine's namespaces and its control group.

        *env* is added to a clean environment. Raises ProgramError as `pipeline.run.run` does; a
        program past its *timeout* (seconds) is killed, its own children only at shutdown.
        """
        if not self._entrance:
            raise MachineError(f"{self.name} is not running")
        return run(
            [
                *("sh", "-c", ENTER, "sh", " ".join(map(str, self._entrance))),
                *("nsenter", f"--target={self.leader}", "--all", "--"),
                *("env", f"--chdir={cwd}", "setpriv", "--pdeathsig", "KILL", "--", *argv),
            ],
            env={**CLEAN_ENVIRONMENT, "HOME": "/root", **(env or {})},
            stdin=stdin,
            timeout=timeout,
            check=check,
        )

    @contextmanager
    def filesystem(self, kind: str, size: int) -> Iterator[Path]:
        """A fresh *kind* (ext4, xfs, btrfs) of *size* bytes, mounted inside; yields where.

        It lies in a sparse file in memory. mkfs.xfs wants 300 MiB at least, mkfs.btrfs 109.
        """
        mountpoint = Path("/mnt") / f"{kind}-{secrets.token_hex(3)}"
        image = Path("/var/tmp") / f"{self.name}-{mountpoint.name}.img"
        self.run(["truncate", f"--size={size}", image])
        # The outer machine's mkfs: those packages would double the machine's root.
        run([f"mkfs.{kind}", "-q", f"/proc/{self.leader}/root{image}"], timeout=120)
        self.run(["mkdir", mountpoint])
        self.run(["mount", "-o", "loop", image, mountpoint])
        try:
            yield mountpoint
        finally:
            if self._entrance:  # else the machine is gone, and everything with it
                self.run(["umount", mountpoint])
                self.run(["rm", "-r", mountpoint, image])

    def reboot(self) -> None:
        """Reboot as a user does, and return when the system is up again on the same root."""
        before = self.leader
        # the connection goes down with the system
        self.run(["systemctl", "reboot"], check=False)
        self._entrance = ()
        deadline = time.monotonic() + 120
        while Path(f"/proc/{before}").exists():
            if time.monotonic() > deadline:
                raise MachineError(f"does not go down:\n{self._told()}")
            time.sleep(0.05)
        self._wait_for_boot(deadline)

    def shutdown(self) -> None:
        """Kill everything in the machine and wait until nothing of it is left; may be repeated.

        Instances are stopped before: a thousand programs killed at once free their seccomp filters
        at once, which has locked up Linux 6.18 for everybody on the outer machine.

        Raises MachineError naming what is still there after 20 s.
        """
        if self._entrance:
            with suppress(NiftyError, OSError):
                self.run(["systemctl", "stop", "nifty.slice"], check=False, timeout=120)
        self._entrance = ()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._console is not None:
            self._console.close()
            self._console = None
        _vanish(self.name)

    def _start(self, archive: Path) -> None:
        tops = hierarchies()
        self._groups = tuple(top / self.name for top in tops)
        for group in self._groups:
            group.mkdir()
        limit_tasks(self._groups)
        console = tempfile.TemporaryFile()  # noqa: SIM115 (closed by shutdown)
        self._console = console
        binds = [f"--bind-ro={path}" for path in bound_directories()]
        artifacts = PROJECT / "artifacts"
        argv: list[str | Path] = [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"),
            *("--mount-proc", "sh", "-c", LAUNCH, "sh", self.name, archive),
            *(" ".join(map(str, self._groups)), artifacts),
            *("systemd-nspawn", "--register=no", "--keep-unit", "--settings=no", "--boot"),
            *("--directory=/run/root", "--machine=testhost", "--capability=all"),
            # a test host loads no modules into the outer kernel: systemd then does not try
            *("--drop-capability=CAP_SYS_MODULE", "--private-network", "--console=pipe"),
            *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
            *(*binds, f"--bind=/run/artifacts:{artifacts}"),
        ]
        self._process = subprocess.Popen(
            argv,
            env={**CLEAN_ENVIRONMENT, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests, which then shut down in order
        )

    def _wait_for_boot(self, deadline: float) -> None:
        state = "nothing started"
        while state not in ("running", "degraded"):
            if self._process is None or self._process.poll() is not None:
                raise MachineError(f"systemd-nspawn ended while booting:\n{self._told()}")
            if time.monotonic() > deadline:
                raise MachineError(f"no boot in time ({state}):\n{self._told()}")
            time.sleep(0.05)
            with suppress(OSError, ProgramError):  # namespaces and bus come up one by one
                state = self._look(self._process.pid)
        self._make_loop_nodes()
        self.run(["ip", "link", "set", "lo", "up"])

    def _look(self, outermost: int) -> str:
        """The state systemd gives, once its process is found: unshare > sh > nspawn > systemd."""
        self.leader = _only_child(_only_child(_only_child(outermost)))
        status = Path(f"/proc/{self.leader}/status").read_text(encoding="utf-8")
        if "systemd\n" not in status.partition("Umask")[0]:
            return "systemd-nspawn's own process"
        self._entrance = groups_of(self.leader)
        return self.run(["systemctl", "is-system-running"], check=False).stdout.strip()

    def _make_loop_nodes(self) -> None:
        """Device nodes for `mount -o loop` (Linux' devices.txt: misc 237, block major 7)."""
        script = (
            "mknod -m 600 /dev/loop-control c 10 237;"
            "for n in $(seq 0 63); do mknod -m 600 /dev/loop$n b 7 $n; done"
        )
        self.run(["sh", "-c", script])

    def _told(self) -> str:
        if self._console is None:
            return ""
        self._console.seek(0)
        return last_lines(self._console.read().decode(errors="replace"))


def remove_stale() -> None:
    """Kill and remove the control groups of machines whose test process is dead."""
    for top in hierarchies():
        for group in top.glob(f"{PREFIX}*"):
            maker = group.name.removeprefix(PREFIX).partition("-")[0]
            if not Path("/proc", maker).exists():
                _vanish(group.name)


def _vanish(name: str) -> None:
    """Wait for the kernel to take down the dying machine *name*, and remove its control groups."""
    deadline = time.monotonic() + 20
    while left := leftovers(name):
        if time.monotonic() > deadline:
            raise MachineError("\n  ".join(("still there after shutdown:", *left)))
        for top in hierarchies():
            remove_group(top / name)
        time.sleep(0.02)


def bound_directories() -> tuple[Path, ...]:
    """The checkout and the running Python, by the names they are called and the real ones."""
    prefixes = (Path(sys.prefix), Path(sys.base_prefix))
    wanted = {PROJECT, *prefixes, *(path.resolve() for path in prefixes)} - {Path("/usr")}
    return tuple(
        sorted(path for path in wanted if path == PROJECT or not path.is_relative_to(PROJECT))
    )


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    if len(children) != 1:
        raise OSError(f"process {pid} has {len(children)} children")
    return int(children[0])
