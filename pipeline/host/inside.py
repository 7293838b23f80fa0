"""A shell in a running instance, held by whatever holds the instance's own root.

nsenter(1) would do no more than enter: its program has all capabilities of the user namespace, no
system call filter, no limits, and is charged to the administrator's control group. So what confines
init is read from the kernel and put on before anything runs there. The program is the host's own
copy of the image's BusyBox, so that nothing in the instance decides what is run.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipeline import files
from pipeline.errors import NiftyError
from pipeline.host.units.cgroup import CGROUPS
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# In the order in which they are entered: the user namespace last, as it takes away what the others
# need. That of processes is for children only (setns(2)), so whoever forks enters it: see `enter`.
_NAMESPACES = ("cgroup", "ipc", "uts", "net", "mnt", "user")
_LIMITS = (
    *(resource.RLIMIT_NPROC, resource.RLIMIT_DATA, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE),
    *(resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_STACK),
    *(resource.RLIMIT_MSGQUEUE, resource.RLIMIT_SIGPENDING, resource.RLIMIT_NICE),
    *(resource.RLIMIT_RTPRIO, resource.RLIMIT_RTTIME),
)
# linux/prctl.h, linux/ptrace.h, linux/capability.h, linux/keyctl.h
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 4, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_SECCOMP_MODE_FILTER = 2
_PTRACE_DETACH, _PTRACE_SEIZE, _PTRACE_INTERRUPT, _PTRACE_FILTER = 17, 0x4206, 0x4207, 0x420C
_WALL = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_INSTRUCTION = 8  # bytes of a struct sock_filter

# seconds; what waits for a disk, say, does not stop
_PATIENCE = 5.0
_MOST = 1 << 20
_MOST_PROGRAM = 1 << 26

_libc = ctypes.CDLL(None, use_errno=True)


class InsideError(NiftyError):
    """An instance that cannot be entered, or not as confined as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What holds a process.

    *namespaces*: descriptors of those that are not ours, by kind; *groups*: directories of control
    groups; *capabilities*: its bounding set; *limits*: soft and hard, by resource; *filters* of
    system calls, the oldest first; *badness*: its oom_score_adj.
    """

    namespaces: Mapping[str, int]
    groups: Sequence[Path]
    capabilities: int
    limits: Mapping[int, tuple[int, int]]
    filters: Sequence[bytes]
    badness: bytes


def confinement(pid: int) -> Confinement:
    """What holds process *pid*, which is stopped for a moment.

    Raises InsideError if it ends meanwhile, or the kernel does not tell: never less than all of it.
    """
    try:
        # all that is read through this is of one process, even if the number is given to another
        at = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _stopped(pid):
                filters = tuple(_filters(pid))
                limits = {which: resource.prlimit(pid, which) for which in _LIMITS}
                status = _fields(files_of(at, "status"))
            if int(status["Seccomp_filters"]) != len(filters):
                raise InsideError(f"process {pid} has other filters than those it shows")
            return Confinement(
                namespaces=_namespaces(at),
                groups=tuple(_groups(files_of(at, "cgroup"))),
                capabilities=int(status["CapBnd"], 16),
                limits=limits,
                filters=filters,
                badness=files_of(at, "oom_score_adj"),
            )
        finally:
            os.close(at)
    except OSError as error:
        raise InsideError(
            f"process {pid} cannot be looked at: {error.strerror}",
            hint="a shell there would be less confined than the instance; "
            f"{to_type('ssh')} is as confined",
        ) from error


def files_of(at: int, name: str) -> bytes:
    """The file *name* of the process whose directory in /proc is *at* (proc(5))."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)
    with open(descriptor, "rb") as stream:  # noqa: PTH123 (a descriptor has no path)
        return stream.read(_MOST)


def program(path: Path) -> int:
    """A descriptor of a copy of *path* that nobody can change, to be executed. Raises InsideError.

    What runs in an instance is open to its root by way of /proc: for `users=host` that would be the
    very file which all instances share.
    """
    try:
        content = files.read(path, limit=_MOST_PROGRAM)
        copy = os.memfd_create("sh", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(os.dup(copy), "wb") as stream:  # noqa: PTH123 (a descriptor has no path)
            stream.write(content)
        # linux/fcntl.h, F_ADD_SEALS: F_SEAL_SEAL, _SHRINK, _GROW and _WRITE
        _checked(_libc.fcntl(copy, 1033, 15), "F_ADD_SEALS")
    except OSError as error:
        raise InsideError(f"{path}: {error.strerror}", hint=to_type("doctor")) from error
    return copy


def enter(held: Confinement) -> None:
    """Have this process's children begin in the instance's namespace of processes."""
    if (descriptor := held.namespaces.get("pid")) is not None:
        _checked(_libc.setns(descriptor, 0), "setns")


def become(held: Confinement, shell: int, argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """In a child of whoever called `enter`: put on all that *held* says, and execute *shell*.

    Raises OSError, and then nothing of the instance has run.
    """
    # until execve(2) this is a program of the host that root inside sees: it may not look into it
    _prctl(_PR_SET_DUMPABLE, 0)
    for group in held.groups:
        (group / "cgroup.procs").write_bytes(b"0")
    Path("/proc/self/oom_score_adj").write_bytes(held.badness)
    _leave_keys()
    for kind in _NAMESPACES:
        if kind in held.namespaces:
            _checked(_libc.setns(held.namespaces[kind], 0), "setns")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.chdir("/")
    with suppress(OSError):
        os.chdir("root")
    os.umask(0o022)
    for which, (soft, hard) in held.limits.items():
        resource.setrlimit(which, (soft, hard))
    _keep_only(held.capabilities)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for instructions in held.filters:
        _filter(instructions)
    os.execve(shell, list(argv), dict(env))  # noqa: S606 (this is what all of it is for)


def refuse_clone3() -> None:
    """Have clone3(2) fail with ENOSYS in this process and all that it becomes and starts.

    Its flags are in memory, where no filter can look for CLONE_NEWUSER; a C library takes clone(2)
    then. Needs CAP_SYS_ADMIN (seccomp(2)). Raises OSError.
    """
    # linux/bpf_common.h and linux/seccomp.h: load the call's number; unless it is clone3's, which
    # is one number for all machines, skip what returns SECCOMP_RET_ERRNO; SECCOMP_RET_ALLOW
    program = ((0x20, 0, 0, 0), (0x15, 0, 1, 435), (6, 0, 0, 0x50000 | errno.ENOSYS))
    _filter(b"".join(struct.pack("=HBBI", *one) for one in (*program, (6, 0, 0, 0x7FFF0000))))


class _Filter(ctypes.Structure):
    """linux/filter.h, struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _filter(instructions: bytes) -> None:
    told = _Filter(len(instructions) // _INSTRUCTION, instructions)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(told))


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """*pid* stands still and notices nothing of it (ptrace(2), PTRACE_SEIZE)."""
    _ptrace(_PTRACE_SEIZE, pid)
    try:
        _ptrace(_PTRACE_INTERRUPT, pid)
        deadline = time.monotonic() + _PATIENCE
        while os.waitpid(pid, os.WNOHANG | _WALL)[0] != pid:
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            time.sleep(0.001)
        yield
    finally:
        with suppress(OSError):
            _ptrace(_PTRACE_DETACH, pid)


def _filters(pid: int) -> Iterator[bytes]:
    """The system call filters of the stopped process *pid*, the oldest first."""
    number = 0
    while True:
        try:
            length = _ptrace(_PTRACE_FILTER, pid, number, None)
        except OSError as error:
            # beyond the last one, or there is none at all
            if error.errno == errno.ENOENT or (error.errno == errno.EINVAL and number == 0):
                return
            raise
        buffer = ctypes.create_string_buffer(length * _INSTRUCTION)
        _ptrace(_PTRACE_FILTER, pid, number, buffer)
        yield buffer.raw
        number += 1


def _namespaces(at: int) -> dict[str, int]:
    found = {}
    for kind in (*_NAMESPACES, "pid"):
        descriptor = os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)
        if os.path.samestat(os.fstat(descriptor), os.stat(f"/proc/self/ns/{kind}")):  # noqa: PTH116
            os.close(descriptor)
        else:
            found[kind] = descriptor
    return found


def _groups(told: bytes) -> Iterator[Path]:
    """The directory of each control group in /proc/PID/cgroup (cgroups(7)) that is mounted here."""
    for line in told.decode(errors="replace").splitlines():
        _number, controllers, path = line.split(":", 2)
        tops = [CGROUPS, CGROUPS / "unified"]
        if controllers:
            tops = [CGROUPS / controllers.removeprefix("name=")]
        for top in tops:
            group = top / path.lstrip("/")
            if (group / "cgroup.procs").exists() and (controllers or _is_unified(top)):
                yield group
                break


def _is_unified(top: Path) -> bool:
    return (top / "cgroup.controllers").exists()


def _fields(status: bytes) -> dict[str, str]:
    lines = status.decode(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _keep_only(capabilities: int) -> None:
    """No capability beyond these, now or after execve(2), by whatever way (capabilities(7))."""
    with suppress(OSError):  # EINVAL: beyond the last one there is
        for number in range(64):
            if not capabilities >> number & 1:
                _prctl(_PR_CAPBSET_DROP, number)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable; for the lower 32, then for the others
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _checked(_libc.capset(header, sets), "capset")


def _leave_keys() -> None:
    """The administrator's session keyring stays outside (keyctl(2), session-keyring(7))."""
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        with suppress(OSError):  # a kernel without keys
            _checked(_libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None), "keyctl")


def _prctl(option: int, *values: int) -> None:
    words = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(option, *words), "prctl")


def _ptrace(
    request: int, pid: int, address: int = 0, data: ctypes.Array[ctypes.c_char] | None = None
) -> int:
    _libc.ptrace.restype = ctypes.c_long
    return _checked(_libc.ptrace(request, pid, ctypes.c_void_p(address), data), "ptrace")


def _checked(result: int, call: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
