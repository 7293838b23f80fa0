"""An image of another architecture, booted by qemu's user mode: its programs, this kernel.

No instance runs this way: `doit deploy` takes images of the host's own architecture only. Here it
shows that what was compiled for another one is a whole system, without a machine of that kind.

The kernel starts qemu for each program by binfmt_misc, which has registrations for each user
namespace since Linux 6.7 (Documentation/admin-guide/binfmt-misc.rst, fs/binfmt_misc.c): the host
has none before, while and after. Processes, mounts and network are namespaces of their own and
vanish with their init.

What qemu's user mode cannot show: seccomp and ptrace (it has neither), memory and speed, and what
`ps` tells, which is qemu's own command line.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess  # noqa: TID251 (what is booted goes on running)
import tempfile
import time
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.host.roots import identity, images, replay
from pipeline.host.roots.access import Access
from pipeline.host.state.records import FIRST_BASE, RANGE, Share
from pipeline.image import archive
from pipeline.image import manifest as manifests
from pipeline.run import CLEAN_ENVIRONMENT, Completed, last_lines, run
from pipeline.settings import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

# `uname -m` -> what qemu calls it where that is another name
_QEMU: dict[str, str] = {}
NEEDED_PROGRAMS = {
    "ssh": "openssh-client",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
OTHERS = tuple(name for name in ARCHITECTURES if name != os.uname().machine)
PORT = 2201
NAME = "nifty1"
LOGIN = "luser"

# $1 the root, $2 the line for binfmt_misc. What systemd-nspawn gives to an instance, and lo.
_BOOT = """set -e
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf %s "$2" > /proc/sys/fs/binfmt_misc/register
cd "$1"
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty; do
    : > dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/pts
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 run run
mount -t proc proc proc
chroot . /sbin/ifconfig lo up
chroot . /bin/hostname -F /etc/hostname
exec chroot . /sbin/init
"""


class ForeignError(NiftyError):
    """A foreign system that does not boot."""


def missing_needs(architecture: str) -> tuple[str, ...]:
    """What this host lacks to boot an image for *architecture*; empty when all is there."""
    lacking = [] if os.geteuid() == 0 else ["root"]
    lacking += [
        f"{program} (apt-get install {package})"
        for program, package in NEEDED_PROGRAMS.items()
        if shutil.which(program) is None
    ]
    if _qemu(architecture) is None:
        lacking.append(f"qemu for {architecture} (apt-get install qemu-user-static)")
    if "binfmt_misc" not in Path("/proc/filesystems").read_text("ascii"):
        lacking.append("a kernel with binfmt_misc (modprobe binfmt_misc)")
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 7):
        lacking.append("Linux 6.7, for binfmt_misc in a user namespace")
    return tuple(lacking)


def _qemu(architecture: str) -> str | None:
    name = f"qemu-{_QEMU.get(architecture, architecture)}"
    # a dynamic one would look for its libraries in the foreign root
    return shutil.which(f"{name}-static") or shutil.which(name)


def registration(qemu: str, program: bytes) -> str:
    r"""The line for binfmt_misc by which *qemu* runs what is of the kind of *program*, an ELF file.

    Compared are the header's first 20 bytes but for EI_OSABI, EI_ABIVERSION and padding, and
    ET_DYN is as good as ET_EXEC. O: qemu is handed the open file, as for fexecve(3); P: argv[0] as
    it was given, by which BusyBox knows what it is; F: qemu is opened now, out of any root's sight.
    """
    mask = b"\xff" * 7 + bytes(9) + b"\xfe\xff\xff\xff"
    magic = bytes(one & other for one, other in zip(program[:20], mask, strict=True))
    fields = ("".join(f"\\x{byte:02x}" for byte in each) for each in (magic, mask))
    return ":".join(("", "foreign", "M", "", *fields, qemu, "OPF"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A booted system: *init* is its first process as seen from here, *seconds* until SSH did."""

    init: int
    client: Path
    console: Path
    boot: subprocess.Popen[bytes]
    seconds: float = 0.0

    def ssh(self, *words: str, check: bool = True, stdin: bytes = b"") -> Completed:
        """What `ssh *words*` printed; the last of *words* is the command."""
        return self.call("ssh", *words[:-1], NAME, words[-1], check=check, stdin=stdin)

    def call(self, program: str, *words: str, check: bool = True, stdin: bytes = b"") -> Completed:
        """*program* of OpenSSH's, in the network of the system, with the configuration for it."""
        return run(self.argv(program, *words), stdin=stdin, timeout=60, check=check)

    def argv(self, program: str, *words: str) -> list[str]:
        """What `call` runs."""
        network = f"--net=/proc/{self.init}/ns/net"
        return ["nsenter", network, "--", program, "-F", str(self.client / "config"), *words]

    def power_off(self) -> int:
        """Ask init to, as systemd does (SIGUSR2); what the boot ended with.

        reboot(2) of a PID namespace ends its init by SIGINT for off and by SIGHUP for again
        (pid_namespaces(7)), and unshare(1) ends by the same.
        """
        os.kill(self.init, signal.SIGUSR2)
        return self.boot.wait(60)


@contextmanager
def booted(packed: Path, architecture: str) -> Iterator[Foreign]:
    """The image *packed* as an instance of its own, from its first process to a login by SSH."""
    with ExitStack() as stack:
        # an instance's users pass through the folders above its root
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nifty-foreign-")))
        top.chmod(0o755)
        line = _lay_out(packed, top, architecture)
        namespace = stack.enter_context(_user_namespace())
        console = top / "console"
        with console.open("wb") as sink:
            boot = subprocess.Popen(
                [
                    *("nsenter", f"--user={namespace}", "--setuid=0", "--setgid=0", "--"),
                    *("setpriv", "--clear-groups", "--pdeathsig=KILL", "--"),
                    *("unshare", "--mount", "--propagation=private", "--pid", "--fork"),
                    *("--kill-child", "--mount-proc", "--net", "--uts", "--ipc", "--"),
                    *("sh", "-c", _BOOT, "sh", str(top / "root"), line),
                ],
                env=dict(CLEAN_ENVIRONMENT),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        started = time.monotonic()
        try:
            yield _wait(boot, top, started)
        finally:
            first = _children(boot)
            boot.kill()
            boot.wait()
            while any(Path(f"/proc/{one}").exists() for one in first):
                time.sleep(0.01)


def _lay_out(packed: Path, top: Path, architecture: str) -> str:
    """The root as deploy writes it, and what a client needs, below *top*; binfmt_misc's line."""
    rootfs = archive.read(packed)
    manifest = manifests.read(rootfs, name=str(packed))
    client = top / "client"
    client.mkdir(mode=0o700)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", client / "key"])
    # images.load would refuse it here
    blank = identity.blank(rootfs, manifest)
    image = images.Image(
        rootfs=rootfs, manifest=manifest, archive=b"", digest=rootfs.digest, blank=blank
    )
    granted = Access(lines=((client / "key.pub").read_text("ascii").strip(),))
    entries = images.entries_of(image, Share.NONE, granted)
    key = identity.new_host_key()
    root = top / "root"
    root.mkdir()
    os.chown(root, FIRST_BASE, FIRST_BASE)
    umask = os.umask(0)
    try:
        with chdir(root):
            writer = replay.Writer(replay.compile_entries(entries, blank.paths))
            writer.write(blank.fill(NAME, PORT, identity.new_machine_id(), key), FIRST_BASE)
    finally:
        os.umask(umask)
    (client / "known").write_text(f"{NAME} {identity.public_line(key.public)}\n", "ascii")
    (client / "config").write_text(
        f"Host {NAME}\n"
        f" HostName 127.0.0.1\n HostKeyAlias {NAME}\n Port {PORT}\n User {LOGIN}\n"
        f" IdentityFile {client}/key\n IdentitiesOnly yes\n BatchMode yes\n"
        f" UserKnownHostsFile {client}/known\n StrictHostKeyChecking yes\n LogLevel ERROR\n",
        "ascii",
    )
    qemu = _qemu(architecture)
    assert qemu is not None
    return registration(qemu, (root / "cbin" / "busybox").read_bytes())


@contextmanager
def _user_namespace() -> Iterator[Path]:
    """A user namespace with an instance's range of users, for as long as somebody is in it."""
    words = ("unshare", "--user", "cat")  # which ends with the other end of its input
    with subprocess.Popen(words, stdin=subprocess.PIPE) as holder:
        entry = Path(f"/proc/{holder.pid}/ns/user")
        while entry.readlink() == Path("/proc/self/ns/user").readlink():
            if holder.poll() is not None:
                raise ForeignError("no user namespace to be had")
            time.sleep(0.005)
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{kind}").write_text(f"0 {FIRST_BASE} {RANGE}\n", "ascii")
        yield entry


def _wait(boot: subprocess.Popen[bytes], top: Path, started: float) -> Foreign:
    """The system that *boot* starts, as soon as somebody has logged in."""
    client, console = top / "client", top / "console"
    while time.monotonic() - started < 120:
        time.sleep(0.05)
        if boot.poll() is not None:
            break
        for init in _children(boot):
            made = Foreign(init=init, client=client, console=console, boot=boot)
            if made.ssh("true", check=False).returncode == 0:
                return replace(made, seconds=time.monotonic() - started)
    raise ForeignError(f"no login:\n{last_lines(console.read_text(errors='replace'))}")


def _children(process: subprocess.Popen[bytes]) -> tuple[int, ...]:
    try:
        told = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii")
    except OSError:
        return ()
    return tuple(map(int, told.split()))
