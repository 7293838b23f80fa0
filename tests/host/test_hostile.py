"""What whoever is root in an instance cannot do to the administrator, or to the instance beside."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.image import archive, manifest
from pipeline.image.rootfs import File, Rootfs
from pipeline.paths import PROJECT
from pipeline.run import run
from tests.support.host.user import DOIT, User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

# By both runners.
NAMES = ("nifty1", "nifty2")
UNITS = {"nifty1": "nifty@1.service", "nifty2": "nifty-service-0@2.service"}

# Types a line of its own into the terminal it has, as ioctl_tty(2) lets it, and says whether it
# could. Freestanding: it needs no C library, and runs wherever it is put.
TYPIST = r"""
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}
void _start(void) {
    const char *text = "touch /tmp/typed\n";
    long failed = 0;
    for (; *text; text++)
        if (call(16, 0, 0x5412, (long)text) < 0) failed = 1;
    call(1, 1, (long)(failed ? "refused\n" : "TYPED--\n"), 8);
    call(60, failed, 0, 0);
}
"""

# Tries to have a user namespace by the way that its only argument names. Ends with 0 if it has one,
# else with the number of the error; a child that lives in one ends with 0.
NESTER = r"""
#define NEWUSER 0x10000000L
static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10),
                     "r"(r8) : "rcx", "r11", "memory");
    return result;
}
static long old_call(long number, long a) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a) : "memory", "r8", "r9",
                     "r10", "r11");
    return result;
}
void begin(long *stack) {
    unsigned long long words[11] = {NEWUSER, 0, 0, 0, 17};
    long result = -1;
    switch (((char **)stack)[2][0]) {
    case 'u': result = call(272, NEWUSER, 0, 0, 0, 0); break;
    case 'c': result = call(56, NEWUSER | 17, 0, 0, 0, 0); break;
    case 'v': result = call(56, NEWUSER | 0x20000 | 17, 0, 0, 0, 0); break;
    case '3': result = call(435, (long)words, 88, 0, 0, 0); break;
    case 'i': result = old_call(310, NEWUSER); break;
    case 'x': result = call(0x40000000 | 272, NEWUSER, 0, 0, 0, 0); break;
    }
    call(231, result < 0 ? -result & 127 : 0, 0, 0, 0, 0);
}
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
"""

# An administrator at a terminal: bash, and in it the command line $1; then each of the other words
# as a line, once "# " or "$ " was seen. All that was seen is printed.
ADMINISTRATOR = """
import os, pty, select, sys, time
pid, screen = pty.fork()
if pid == 0:
    os.execvpe("bash", ["bash", "--norc"], {**os.environ, "PS1": "ADMIN# "})
seen = b""
def more(seconds):
    global seen
    if select.select([screen], [], [], seconds)[0]:
        try:
            seen += os.read(screen, 4096)
        except OSError:
            return False
    return True
def until(*ends, after=0):
    deadline = time.monotonic() + 15
    while not (seen[after:].endswith(ends) and len(seen) > after):
        if time.monotonic() > deadline or not more(1):
            return
def say(line, *ends):
    at = len(seen) + len(line)  # the echo is no answer
    os.write(screen, line.encode() + b"\\n")
    until(*ends, after=at)
until(b"ADMIN# ")
for line in sys.argv[1:]:
    say(line, b"# ", b"$ ", b"\\x1b[6n")  # BusyBox asks where the cursor is
until(b"ADMIN# ")  # what is typed earlier goes inside, where that lasts
say("echo status $?; stty -a", b"ADMIN# ")
os.close(screen)
os.waitpid(pid, 0)
print(seen.decode(errors="replace"))
"""


@pytest.fixture(scope="module")
def fleet(machine: Machine) -> Iterator[User]:
    """nifty1 by runner=nspawn, nifty2 by runner=service."""
    user = User(machine)
    try:
        user.doit("deploy", "names=1", "start=yes")
        user.doit("deploy", "names=2", "runner=service", "start=yes")
        yield user
    finally:
        user.clean()


@pytest.fixture(scope="module")
def typist() -> bytes:
    """The program TYPIST."""
    return compiled(TYPIST)


@pytest.fixture(scope="module")
def nester() -> bytes:
    """The program NESTER."""
    return compiled(NESTER)


def compiled(text: str) -> bytes:
    """A program without any library, from C."""
    if os.uname().machine != "x86_64":
        pytest.skip("its system calls are x86_64's")
    with tempfile.TemporaryDirectory() as work:
        source, made = Path(work, "program.c"), Path(work, "program")
        source.write_text(text, encoding="utf-8")
        flags = ("-static", "-nostdlib", "-ffreestanding", "-O1", "-fno-sanitize=all")
        words = (sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl")
        environment = {"HOME": work, "PATH": os.environ["PATH"]}
        run([*words, *flags, "-o", made, source], env=environment, timeout=300)
        return made.read_bytes()


def administrator(user: User, *lines: str) -> str:
    """What an administrator at a terminal sees who types *lines*."""
    argv = [sys.executable, "-c", ADMINISTRATOR, *lines]
    return user.machine.run(argv, cwd=PROJECT, timeout=120).stdout


def init_of(user: User, name: str) -> int:
    """The number of the instance's init in the machine."""
    script = (
        "from pathlib import Path; from pipeline.host import console;"
        "from pipeline.host.state import layout, records;"
        f"print(console.init(records.read(layout.Layout(Path('/home')), {name[5:]!r})))"
    )
    return int(user.machine.run([sys.executable, "-c", script], cwd=PROJECT).stdout)


@pytest.mark.parametrize("name", NAMES)
def test_console_is_held_by_all_that_holds_init(fleet: User, name: str) -> None:
    script = "cat /proc/self/status /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj"
    asked = (
        *("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
        *("NoNewPrivs", "Seccomp", "Seccomp_filters"),
    )
    told = fleet.doit("console", f"name={name[5:]}", f"command={script}").stdout
    pid = init_of(fleet, name)
    # through the eyes of its root, so that numbers and groups are told as there
    inits = fleet.doit(
        "console", f"name={name[5:]}", f"command={script.replace('/self/', '/1/')}"
    ).stdout
    assert [line for line in told.splitlines() if line.split(":")[0] in asked] == [
        line for line in inits.splitlines() if line.split(":")[0] in asked
    ]
    # of control groups of version 1, which are not mounted there, both tell nothing that holds
    assert [line for line in told.splitlines() if line.startswith(("Max", "0::"))] == [
        line for line in inits.splitlines() if line.startswith(("Max", "0::"))
    ]
    kinds = ("cgroup", "ipc", "uts", "net", "mnt", "user", "pid")
    links = f"for kind in {' '.join(kinds)}; do readlink /proc/PID/ns/$kind; done"
    theirs = fleet.doit("console", f"name={name[5:]}", f"command={links.replace('PID', 'self')}")
    assert theirs.stdout == fleet.shell(links.replace("PID", str(pid)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /mnt",
        "unshare -m true",
        "mknod /tmp/x b 7 0",
        "hostname other",
        "cp /cbin/busybox /tmp/x && chmod 4755 /tmp/x",
    ],
)
def test_console_gives_back_nothing_that_was_taken(fleet: User, name: str, attempt: str) -> None:
    told = fleet.doit("console", f"name={name[5:]}", f"command={attempt}", check=False)
    assert told.returncode != 0
    assert told.stdout == ""


@pytest.mark.parametrize("name", NAMES)
def test_console_is_the_hosts_shell_and_reads_no_profile(fleet: User, name: str) -> None:
    fleet.shell(
        f"cd /home/{name}; cp -a etc/profile etc/kept; echo 'touch /root/read' >>etc/profile;"
        "cp etc/profile root/.profile"
    )
    seen = administrator(fleet, f"{DOIT} console name={name[5:]}", "id -un", "exit 3")
    left = fleet.shell(f"cd /home/{name}; mv etc/kept etc/profile; rm root/.profile; ls root")
    assert f"root@{name}:~# " in seen
    assert "\r\nroot\r\n" in seen
    assert "status 3" in seen
    assert left == ""


@pytest.mark.parametrize("name", NAMES)
def test_nobody_inside_types_into_the_administrators_shell(
    fleet: User, typist: bytes, name: str
) -> None:
    fleet.machine.put(f"/home/{name}/tmp-typist", typist, mode=0o755)
    fleet.machine.put("/tmp/typist", typist, mode=0o755)
    # on the administrator's own terminal it does what it is made for, where the kernel lets it
    alone = administrator(fleet, "/tmp/typist")
    works = fleet.shell("ls /tmp/typed; rm -f /tmp/typed", check=False) == "/tmp/typed\n"
    seen = administrator(fleet, f"{DOIT} console name={name[5:]}", "/tmp-typist", "exit 3")
    typed = fleet.shell(
        f"ls /tmp/typed; rm -f /tmp/typed /tmp/typist /home/{name}/tmp-typist", check=False
    )
    assert ("TYPED" in alone) is works
    assert ("TYPED" in seen) is works, seen
    assert "status 3" in seen
    assert "isig icanon" in seen  # not raw any more
    assert typed == ""


def test_nobody_in_an_image_types_into_the_users_shell(fleet: User, typist: bytes) -> None:
    read = archive.read(PROJECT / f"artifacts/nifty-{os.uname().machine}.tar.zst")
    given = (entry for entry in read if entry.path != manifest.PATH)  # which would not agree
    planted = File(path="typist", content=typist, mode=0o755)
    fleet.machine.put("/tmp/other.tar", archive.write_tar(Rootfs.of([*given, planted]), mtime=0))
    seen = administrator(fleet, f"{DOIT} shell image=/tmp/other.tar", "/typist", "exit")
    typed = fleet.shell("ls /tmp/typed; rm -f /tmp/typed /tmp/other.tar", check=False)
    assert "TYPED" in seen or "refused" in seen
    assert typed == ""


WAYS = {
    "unshare": "unshare",
    "clone": "clone",
    "clone with mounts": "v",
    # ENOSYS, for which a C library takes clone(2); with another error it could start no thread
    "clone3": "3",
    "unshare of 32 bits": "i",
    "unshare of x32": "x",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_nobody_inside_makes_a_user_namespace(
    fleet: User, nester: bytes, name: str, way: str
) -> None:
    fleet.machine.put(f"/home/{name}/nester", nester, mode=0o755)
    fleet.machine.put("/tmp/nester", nester, mode=0o755)
    words = f"/nester {WAYS[way]}"
    outside = fleet.machine.run(["/tmp/nester", WAYS[way]], check=False).returncode
    luser = fleet.ssh(name, words, check=False).returncode
    root = fleet.doit("console", f"name={name[5:]}", f"command={words}", check=False).returncode
    fleet.shell(f"rm /tmp/nester /home/{name}/nester")
    # where the kernel has no x32 it is no way for anybody
    assert outside == (38 if way == "unshare of x32" else 0)
    assert luser != 0
    assert root != 0
    if way == "clone3":
        assert (luser, root) == (38, 38)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["unshare -r true", "unshare -Urm true", "unshare -m true"])
def test_nobody_inside_makes_a_namespace_to_mount_in(fleet: User, name: str, command: str) -> None:
    words = f"{command} && echo MADE"
    luser = fleet.ssh(name, words, check=False)
    root = fleet.doit("console", f"name={name[5:]}", f"command={words}", check=False)
    assert (luser.stdout, root.stdout) == ("", "")
    assert luser.returncode != 0
    assert root.returncode != 0


def test_hosts_own_settings_of_nspawn_change_nothing(fleet: User) -> None:
    # a .nspawn file of the machine's name is the administrator's word about images of theirs
    fleet.machine.put("/etc/systemd/nspawn/nifty1.nspawn", b"[Exec]\nCapability=all\n")
    fleet.doit("restart", "names=1")
    told = fleet.doit("console", "name=1", "command=grep CapBnd /proc/1/status").stdout
    fleet.shell("rm -r /etc/systemd/nspawn")
    assert told == "CapBnd:\t00000000004400fb\n"


def test_units_of_an_older_program_are_written_anew(fleet: User) -> None:
    unit = "/etc/systemd/system/nifty@.service"
    before = fleet.machine.get(unit)
    older = before.replace(b"--oci-bundle=/home/.nifty/nspawn", b"--settings=no")
    fleet.machine.put(unit, older)
    fleet.shell("rm -r /home/.nifty/nspawn; systemctl daemon-reload; systemctl restart nifty@1")
    fleet.doit("upgrade")
    after = fleet.machine.get(unit)
    fleet.doit("restart", "names=1")
    told = fleet.doit("console", "name=1", "command=unshare -r true", check=False)
    assert older != before
    assert after == before
    assert told.returncode != 0


# a server of luser's on another's port, which greets as an SSH server does
SQUATTER = (
    "printf '#!/bin/sh\\necho SSH-2.0-x; sleep 9' >/tmp/greet; chmod 755 /tmp/greet;"
    "nc -ll -p {port} -e /tmp/greet >/dev/null 2>&1 </dev/null & echo begun"
)


@pytest.mark.parametrize(("squatter", "victim"), [NAMES, NAMES[::-1]])
def test_neighbour_on_the_port_is_no_answer(fleet: User, squatter: str, victim: str) -> None:
    port, suffix = 2200 + int(victim[5:]), victim[5:]
    fleet.doit("stop", f"names={suffix}")
    told = fleet.ssh(squatter, SQUATTER.format(port=port)).stdout
    for _ in range(100):
        if f":{port} " in fleet.shell("ss -ltnH"):
            break
    said = f"port {port} is taken by user 1000 of {squatter}"
    stopped = fleet.status()[victim]
    start = fleet.refused("start", f"names={suffix}")
    # what systemd starts by itself, no command of ours before
    fleet.shell(f"systemctl start {UNITS[victim]}; sleep 1")
    running = fleet.status()[victim]
    table = fleet.doit("status", f"names={suffix}").stdout
    restart = fleet.refused("restart", f"names={suffix}")
    doctor = fleet.doit("doctor", check=False).stdout
    late = fleet.machine.run(
        [sys.executable, "-c", LATE.format(suffix=suffix)], cwd=PROJECT, check=False
    ).stderr
    fleet.ssh(squatter, "pkill nc || killall nc")
    fleet.doit("restart", f"names={suffix}")
    assert told == "begun\n"
    assert (stopped["state"], stopped["answers"]) == ("inactive", None)
    assert stopped["port_holder"] == f"user 1000 of {squatter}"
    assert f"{victim}: {said}" in start
    assert (running["state"], running["answers"]) == ("active", False)
    assert f"port taken by user 1000 of {squatter}" in table
    assert f"{victim}: {said}" in restart
    assert f"TCP ports taken: {port}; " in doctor
    assert "1 of 1 instances do not answer SSH" in late
    assert said in late
    assert fleet.answering() == list(NAMES)


# Waits for an answer as the commands do once they have looked at everything.
LATE = """
import sys
from pathlib import Path
from pipeline.errors import NiftyError
from pipeline.commands import choose
from pipeline.host.state import layout, records
from pipeline.host.units import control
known = records.read_all(layout.Layout(Path("/home")))
try:
    control.start(choose.select(known, names=[{suffix!r}]), known=known)
except NiftyError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "command", ["chrt -f 1 true", "chrt -r 1 true", "date -s 2030-01-01", "setarch linux32 true"]
)
def test_clock_scheduler_and_personality_are_the_hosts(
    fleet: User, name: str, command: str
) -> None:
    words = f"{command} && echo works"
    luser = fleet.ssh(name, words, check=False)
    root = fleet.doit("console", f"name={name[5:]}", f"command={words}", check=False)
    for told in (luser, root):
        assert "works" not in told.stdout
        assert "not permitted" in told.stderr, told
