"""The runner without a supervisor: a plain service whose main process is the instance's init.

Everything is made by the host's own util-linux, from a script that an administrator can read; no
program of an image runs before it is confined.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.host.binds.rules import check_plain
from pipeline.host.units.runner import Cost, Launch, Need
from pipeline.host.units.unit_text import BOUNDS, CONFINED, HEAD, MOST_DATA, MOST_PROCESSES, REFUSED
from pipeline.image.rootfs import Directory, File, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pipeline.image.rootfs import Entry

LAUNCHER = "launch"
# Where instances find their devices: a directory of links and empty files, the mount points.
DEVICES = "dev"
# An option without a meaning (mount(8), FILESYSTEM-INDEPENDENT MOUNT OPTIONS), by which --test-opts
# finds one line of a table.
_RESOLVER = "X-nifty.resolver"
_NODES = ("null", "zero", "full", "random", "urandom", "tty")
# syslogd makes its socket where /dev/log leads
_DEVICE_LINKS = (
    *(("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")),
    *(("ptmx", "pts/ptmx"), ("log", "/run/log"), ("shm", "/tmp")),  # noqa: S108 (a link's target)
)
# The group `tty`, to which terminals belong, has this number in every image (and on every host).
_TTY = 5

# What root inside keeps, as with nspawn. Without SYS_ADMIN it can mount nothing.
_CAPABILITIES = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid"),
    *("sys_boot", "sys_chroot"),
)


# init, syslogd, dropbear
_COST = Cost(tasks=3, memory=600_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """unshare(1), mount(8) and setpriv(1) make the namespaces; init is the service."""

    name: str = "service"
    stem: str = "nifty-service"
    is_grouped: bool = True
    has_mounts: bool = True
    needs: tuple[Need, ...] = (
        Need(program="unshare"),
        Need(program="mount"),
        Need(program="setpriv"),
        Need(program="chroot"),
    )
    power_off: signal.Signals = signal.SIGUSR2
    support_names: tuple[str, ...] = (LAUNCHER, DEVICES)
    cost: Cost = _COST

    def refusal(self, launch: Launch) -> str | None:
        """Without a user namespace nothing would hold root; machined knows nspawn's only."""
        if launch.base is None:
            return "runner=service needs users=private: its user namespace is what confines root"
        if launch.register:
            return "register=yes is for runner=nspawn: systemd-machined is told by systemd-nspawn"
        return None

    def service(self, prefix: Path, programs: Mapping[str, Path]) -> str:
        """The template for instances below *prefix*."""
        return _SERVICE_TEXT.format(
            prefix=prefix,
            needed="fstab",
            launcher=LAUNCHER,
            unshare=programs["unshare"],
            power_off=self.power_off.name,
            processes=MOST_PROCESSES,
            data=MOST_DATA,
            refused=" ".join(REFUSED),
        )

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """The first number of the users."""
        return {"NIFTY_BASE": str(launch.base)}

    def mounts(self, prefix: Path, suffix: str, launch: Launch) -> str | None:
        """The instance's root with all that is mounted in it; the last line makes it the root.

        They are mounted before there is a user namespace, which locks them: root inside can
        neither remount nor remove them (mount_namespaces(7)).
        """
        root = f"{prefix}/nifty{suffix}"
        lines = [" ".join(words) for words in _mounts(prefix, root, launch)]
        return "\n".join(["# written by nifty; mounted when the instance starts", *lines, ""])

    def support(self, prefix: Path, programs: Mapping[str, Path]) -> tuple[Entry, ...]:
        """The script that the template starts, and what instances see at /dev."""
        check_plain(str(prefix))
        text = _LAUNCHER_TEXT
        for need in self.needs:
            text = text.replace(f"@{need.program}@", str(programs[need.program]))
        text = text.replace("@resolver@", _RESOLVER)
        text = text.replace("@capabilities@", "".join(f",+{name}" for name in _CAPABILITIES))
        return (
            File(path=LAUNCHER, content=text.encode(), mode=0o755),
            Directory(path=DEVICES),
            Directory(path=f"{DEVICES}/pts"),
            *(File(path=f"{DEVICES}/{node}", content=b"") for node in _NODES),
            *(Symlink(path=f"{DEVICES}/{name}", target=to) for name, to in _DEVICE_LINKS),
        )


def _mounts(prefix: Path, root: str, launch: Launch) -> Iterator[tuple[str, str, str, str]]:
    own = f"nosuid,nodev,uid={launch.base},gid={launch.base}"
    # a host that is a container itself has /proc/sys read-only; this one is gone with the host's /
    yield "nifty", "/proc", "proc", "nosuid,nodev,noexec"
    yield root, root, "none", "bind,nosuid,nodev"
    yield "tmpfs", f"{root}/tmp", "tmpfs", f"{own},mode=1777,size=10%"  # noqa: S108 (inside)
    yield "tmpfs", f"{root}/run", "tmpfs", f"{own},mode=755,size=20%"
    yield f"{prefix}/.nifty/{DEVICES}", f"{root}/dev", "none", "bind,ro,nosuid,noexec"
    for node in _NODES:
        yield f"/dev/{node}", f"{root}/dev/{node}", "none", "bind"
    terminals = f"nosuid,noexec,gid={(launch.base or 0) + _TTY},mode=620,ptmxmode=666"
    yield "devpts", f"{root}/dev/pts", "devpts", terminals
    if launch.cbin is not None:
        check_plain(str(launch.cbin))
        yield str(launch.cbin), f"{root}/cbin", "none", "bind,ro,nosuid,nodev"
    for bind in launch.binds:
        yield bind.source, f"{root}{bind.target}", "none", "bind,ro,nosuid,nodev"
    # passed over by LAUNCHER on a host without a resolver, or whose file is made later; nofail: it
    # has gone between
    resolver = f"bind,ro,nosuid,nodev,nofail,{_RESOLVER}"
    yield "/etc/resolv.conf", f"{root}/etc/resolv.conf", "none", resolver
    yield root, "/.", "none", "rbind"


# Why it is so, from top to bottom:
# - forking: the launcher ends when init runs, so nothing of the host stays beside the instance.
#   systemd takes for the main process the one that is its own child, which is init.
# - unshare --mount: what the launcher mounts is the instance's alone, and systemd never reads it;
#   PrivateMounts= would do the same and cost three times as much.
# - Slice: %j is the last part of the template's name, the hundred that the instance belongs to.
# - UnsetEnvironment: without a language each of the programs reads a dozen files of the host less.
# - reboot(2) in a PID namespace ends its init with SIGHUP, power off and halt with SIGINT
#   (pid_namespaces(7)): start again after the one, and none of them is a failure.
# - No standard output for the journal: a stream for each instance would stay open. What goes wrong
#   is told by logger(1).
# - The seccomp filter has to let the launcher mount; mounting inside is forbidden by the missing
#   capability, and a namespace that would bring it back by user.max_user_namespaces = 0.
_SERVICE_TEXT = (
    HEAD
    + """\
Type=forking
Slice=nifty-%j.slice
EnvironmentFile={prefix}/.nifty/units/%i.env
UnsetEnvironment=LANG LANGUAGE LC_ALL LC_CTYPE LC_MESSAGES
StandardInput=null
StandardOutput=null
StandardError=null
ExecStart={unshare} --mount --propagation slave /bin/sh {prefix}/.nifty/{launcher} {prefix} "%i"
KillMode=mixed
KillSignal={power_off}
TimeoutStartSec=600
TimeoutStopSec=60
RestartForceExitStatus=SIGHUP
Restart=on-failure
RestartSec=1
"""
    + BOUNDS
    + """\
LimitNPROC={processes}
LimitDATA={data}
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_CHOWN CAP_DAC_OVERRIDE
CapabilityBoundingSet=CAP_FOWNER CAP_FSETID CAP_KILL CAP_SYS_CHROOT CAP_SYS_BOOT
SystemCallFilter=~{refused}
"""
    + CONFINED
)

_LAUNCHER_TEXT = """\
#!/bin/sh
# Starts the instance nifty$2 below $1 in two steps. It begins as root of the host, in a mount
# namespace of its own: the unit sees to that, and has NIFTY_BASE in the environment.
set -eu

tell() {
    [ "$1" = 0 ] || logger -t nifty -- "$2: $told"
}

case ${3:-outside} in

# 1. Namespaces, the users of one, and what is mounted. All of that before there is a mount
#    namespace which belongs to the user namespace: so it is locked there (mount_namespaces(7)).
outside)
    told="no namespaces: doctor tells why"
    trap 'tell $? "nifty$2"' EXIT
    # A small here-document is a pipe, with a line in it already: 3 and 5 are the ends of one that
    # leads here, 4 and 6 of one that leads to step 2.
    exec 3<<. 4<<.

.

.
    if ! [ -p /proc/self/fd/3 ]; then
        # bash before 5.1 makes files of them
        mkfifo -m 600 "/run/nifty$2.3" "/run/nifty$2.4"
        exec 3<>"/run/nifty$2.3" 4<>"/run/nifty$2.4"
        rm "/run/nifty$2.3" "/run/nifty$2.4"
        echo >&3
        echo >&4
    fi
    exec 5>/proc/self/fd/3 6>/proc/self/fd/4
    @unshare@ --user --keep-caps --pid --uts --ipc --cgroup \\
        /bin/sh "$0" "$1" "$2" inside <&4 >&5 3<&- 4<&- 5>&- 6>&- &
    exec 4<&- 5>&-
    read -r _ <&3
    read -r _ <&3
    # 65536 numbers of the host are the namespace's users (user_namespaces(7))
    echo "0 $NIFTY_BASE 65536" >"/proc/$!/uid_map"
    echo "0 $NIFTY_BASE 65536" >"/proc/$!/gid_map"
    # no file, a directory, or a link to nowhere or itself
    [ -f /etc/resolv.conf ] || without=no@resolver@
    told=$(@mount@ --all --fstab "$1/.nifty/units/$2.fstab" ${without:+-O "$without"} 2>&1)
    echo go >&6
    wait $!
    ;;

# 2. In the namespaces, with capabilities there only, and still among the host's files. The first
#    child is number 1 of the new PID namespace and becomes init; this ends.
inside)
    echo begun
    read -r _
    read -r word
    [ "$word" = go ]
    (
        exec </dev/null >/dev/null
        told="its host name or its limits cannot be set"
        trap 'tell $? "nifty$2"' EXIT
        echo "nifty$2" >/proc/sys/kernel/hostname
        # No further namespace, in which root could have all capabilities again.
        for kind in user pid uts ipc cgroup net; do
            echo 0 >"/proc/sys/user/max_${kind}_namespaces"
        done
        # but the one that follows
        echo 1 >/proc/sys/user/max_mnt_namespaces
        unset NIFTY_BASE INVOCATION_ID SYSTEMD_EXEC_PID
        # The last mount lies on top of /, where only .. finds it: the instance's root. Nothing
        # leads back from there, as what is below has no name.
        cd -P /..
        # Root of the namespace, with what an instance's root may do and nothing else.
        exec @unshare@ --mount --propagation unchanged --mount-proc=proc \\
            @setpriv@ --reuid=0 --regid=0 --clear-groups --ambient-caps=-all --inh-caps=-all \\
            --bounding-set=-all@capabilities@ @chroot@ . /sbin/init
    ) &
    ;;
esac
"""
