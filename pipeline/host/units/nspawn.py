"""The runner that boots an instance with systemd-nspawn."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.host.binds.rules import check_plain
from pipeline.host.units import bundle
from pipeline.host.units.runner import Cost, Launch, Need
from pipeline.host.units.unit_text import BOUNDS, CONFINED, HEAD, MOST_DATA, MOST_PROCESSES
from pipeline.image.rootfs import Directory, File

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.image.rootfs import Entry


# init, syslogd, dropbear, and nspawn with its helper
_COST = Cost(tasks=5, memory=1_800_000, is_registrable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nspawn:
    """systemd-nspawn boots the instance's own BusyBox init."""

    name: str = "nspawn"
    stem: str = "nifty"
    is_grouped: bool = False
    has_mounts: bool = False
    needs: tuple[Need, ...] = (Need(program="systemd-nspawn"),)
    # SIGTERM would make BusyBox init reboot (busybox init/init.c)
    power_off: signal.Signals = signal.SIGUSR2
    support_names: tuple[str, ...] = (bundle.FOLDER,)
    cost: Cost = _COST

    def refusal(self, launch: Launch) -> str | None:  # noqa: ARG002 (the interface)
        """Nothing is refused."""
        return None

    def mounts(self, prefix: Path, suffix: str, launch: Launch) -> str | None:  # noqa: ARG002
        """None: nspawn mounts for itself."""
        return None

    def support(
        self,
        prefix: Path,  # noqa: ARG002 (the interface)
        programs: Mapping[str, Path],  # noqa: ARG002
    ) -> tuple[Entry, ...]:
        """The bundle that has the filter of system calls."""
        return (
            Directory(path=bundle.FOLDER),
            File(path=bundle.FILE, content=bundle.text().encode()),
        )

    def service(self, prefix: Path, programs: Mapping[str, Path]) -> str:
        """The template for instances below *prefix*."""
        lines = self._command(prefix, programs, "%i", _OF_SYSTEMD, console="pipe")
        return _NSPAWN_TEXT.format(
            prefix=prefix,
            needed="env",
            command=" \\\n    ".join(" ".join(line) for line in lines),
        )

    def foreground(
        self, prefix: Path, programs: Mapping[str, Path], suffix: str, launch: Launch
    ) -> tuple[str, ...]:
        """The words that boot `nifty<suffix>` with the caller's terminal as its console."""
        lines = self._command(prefix, programs, suffix, _arguments(launch), console="interactive")
        return tuple(word for line in lines for word in line)

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """A range of users or `no`, `yes` or `no` for machined, binds, and resource limits."""
        own = _arguments(launch)
        return {
            "NIFTY_USERS": own.users,
            "NIFTY_REGISTER": own.register,
            "NIFTY_BINDS": " ".join(own.binds),
            "NIFTY_LIMITS": " ".join(own.limits),
        }

    def _command(
        self,
        prefix: Path,
        programs: Mapping[str, Path],
        suffix: str,
        own: _Arguments,
        *,
        console: str,
    ) -> tuple[tuple[str, ...], ...]:
        """systemd-nspawn's command line, a tuple for each line that it takes in the unit.

        - --keep-unit without --register: no D-Bus connection, of which the bus grants 256.
        - --oci-bundle: no namespaces inside (bundle.py). No .nspawn file is read with it.
        - --resolv-conf=bind-host: the network is the host's, so its resolv.conf holds here (even a
          resolver on 127.0.0.53), and nothing is written into the instance's root.
        - Capabilities: without CAP_SYS_ADMIN root inside cannot mount even where it shares the
          host's users. SETUID, SETGID, SYS_CHROOT for logins, SYS_BOOT for poweroff.
        """
        name = f"nifty{suffix}"
        return (
            (
                *(str(programs["systemd-nspawn"]), "--quiet", "--boot"),
                *(f"--register={own.register}", "--keep-unit"),
            ),
            (
                f"--oci-bundle={prefix}/.nifty/{bundle.FOLDER}",
                *(f"--directory={prefix}/{name}", f"--machine={name}"),
            ),
            (f"--private-users={own.users}", *own.binds),
            (
                *(f"--kill-signal={self.power_off.name}", f"--console={console}"),
                *("--link-journal=no", "--resolv-conf=bind-host"),
            ),
            ("--timezone=off", *own.limits),
            *((f"--drop-capability={some}",) for some in _DROPPED),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arguments:
    """What differs between instances in the command line of systemd-nspawn, but for their names."""

    users: str
    register: str
    binds: tuple[str, ...]
    limits: tuple[str, ...]


# the names of `variables` where systemd puts their values in: ${A} within a word, $A alone as
# many words (see systemd.service(5), "Command lines")
_OF_SYSTEMD = _Arguments(
    users="${NIFTY_USERS}",
    register="${NIFTY_REGISTER}",
    binds=("$NIFTY_BINDS",),
    limits=("$NIFTY_LIMITS",),
)


def _arguments(launch: Launch) -> _Arguments:
    """Raises UnitError for a shared directory whose path is not plain."""
    binds = [f"--bind-ro={bind.source}:{bind.target}" for bind in launch.binds]
    if launch.cbin is not None:
        check_plain(str(launch.cbin))
        binds.insert(0, f"--bind-ro={launch.cbin}:/cbin")
    limits = (f"--rlimit=NPROC={MOST_PROCESSES}", f"--rlimit=DATA={MOST_DATA}")
    return _Arguments(
        users="no" if launch.base is None else f"{launch.base}:65536",
        register="yes" if launch.register else "no",
        binds=tuple(binds),
        # who shares the host's users would share one count of processes with all of them
        limits=limits if launch.base is not None else (),
    )


_DROPPED = (
    "CAP_AUDIT_CONTROL,CAP_AUDIT_WRITE,CAP_DAC_READ_SEARCH,CAP_IPC_OWNER",
    "CAP_LEASE,CAP_LINUX_IMMUTABLE,CAP_MKNOD,CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST,CAP_NET_RAW,CAP_SETFCAP,CAP_SETPCAP,CAP_SYS_ADMIN",
    "CAP_SYS_NICE,CAP_SYS_PTRACE,CAP_SYS_RESOURCE,CAP_SYS_TTY_CONFIG",
)

# Why it is so, from top to bottom (the words of systemd-nspawn: Nspawn._command):
# - SYSTEMD_LOG_TARGET: nspawn's own complaints reach the journal by datagram, without an open
#   stream for each instance; the console is nobody's, so it costs no pty (kernel.pty.max).
# - KillMode=mixed: SIGTERM to nspawn, which sends init its signal; what is left gets SIGKILL.
# - 133 is `reboot` inside (nspawn): start again, and it is no failure.
# - Time-outs fit a thousand units that start and stop at the same moment on two cores.
# - No option that gives the unit a mount namespace: nspawn makes its own, and a second one made
#   starting 1.7 times slower.
_NSPAWN_TEXT = (
    HEAD
    + """\
Type=notify
NotifyAccess=main
Slice=nifty.slice
Delegate=yes
EnvironmentFile={prefix}/.nifty/units/%i.env
Environment=SYSTEMD_LOG_TARGET=journal SYSTEMD_LOG_LEVEL=warning
StandardInput=null
StandardOutput=null
StandardError=null
ExecStart={command}
KillMode=mixed
TimeoutStartSec=600
TimeoutStopSec=60
SuccessExitStatus=133
RestartForceExitStatus=133
Restart=on-failure
RestartSec=1
"""
    + BOUNDS
    + """\
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_CHOWN CAP_DAC_OVERRIDE
CapabilityBoundingSet=CAP_FOWNER CAP_FSETID CAP_KILL CAP_SYS_CHROOT CAP_MKNOD CAP_SYS_BOOT
"""
    + CONFINED
)
