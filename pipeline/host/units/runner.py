"""How systemd starts an instance: the one interface behind which `nspawn` and others stand.

All that differs between instances is in PREFIX/.nifty/units/<suffix>.env, so one template serves
them all and an upgrade is a new environment file: no daemon-reload, no drop-ins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipeline.host.binds.rules import Bind, UnitError, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from signal import Signals

    from pipeline.image.rootfs import Entry

_SUFFIX = re.compile(r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)?")

SLICE = "nifty.slice"
GROUP = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a runner must know of one instance.

    *base* is the first of its 65536 user numbers on the host, None if it shares the host's users;
    *cbin* is the shared directory it runs from, None if its root has its own; *register* makes it
    known to systemd-machined, at the price of one D-Bus connection.
    """

    base: int | None
    cbin: Path | None
    binds: tuple[Bind, ...] = ()
    register: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A program that a runner starts; pipeline/distribution.py knows the packages."""

    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an idle instance takes: *tasks*, *memory* in bytes, as measured at 1000 of them.

    *namespaces* are the kinds it has of its own, in the words of /proc/sys/user. *is_registrable*:
    systemd-machined can be told of it, at the price of a D-Bus connection.
    """

    tasks: int
    memory: int
    namespaces: frozenset[str] = frozenset(("user", "mnt", "pid", "uts", "ipc", "cgroup"))
    is_registrable: bool = False


class Runner(Protocol):
    """How systemd starts an instance."""

    @property
    def name(self) -> str:
        """The value of runner= on the command line."""

    @property
    def stem(self) -> str:
        """The unit's name up to the instance: `nifty`, as in nifty@7.service and nifty.service."""

    @property
    def is_grouped(self) -> bool:
        """Whether a hundred instances at a time have a slice of their own: see `place`."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Programs this host must have."""

    @property
    def cost(self) -> Cost:
        """What an instance takes of a host."""

    @property
    def has_mounts(self) -> bool:
        """Whether the template wants an fstab(5) of the instance."""

    @property
    def power_off(self) -> Signals:
        """What makes an instance's init stop everything and end."""

    def refusal(self, launch: Launch) -> str | None:
        """Why an instance cannot be started so; None if it can."""

    def service(self, prefix: Path, programs: Mapping[str, Path]) -> str:
        """The text of the template; *programs* has a path for each of the needs."""

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """What the template takes from the environment file: name and value; blanks part words."""

    def mounts(self, prefix: Path, suffix: str, launch: Launch) -> str | None:
        """The text of the instance's fstab(5), if the template wants one."""

    def support(self, prefix: Path, programs: Mapping[str, Path]) -> tuple[Entry, ...]:
        """What all instances of the runner need below PREFIX/.nifty, parents first."""

    @property
    def support_names(self) -> tuple[str, ...]:
        """The entries of PREFIX/.nifty that `support` makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where systemd has an instance: its *unit*, the *file* that is read, the *slices* above."""

    unit: str
    file: str
    slices: tuple[str, ...]


def place(runner: Runner, suffix: str) -> Place:
    """Where the instance `nifty<suffix>` is: nameless, its unit cannot be a template's.

    At every start and stop systemd goes through all units of the slice (seen with 252:
    unit_add_family_to_cgroup_realize_queue, for control groups of version 1), so ten thousand in
    one slice cost PID 1 a hundred times what a thousand do. A grouped runner has a slice for a
    hundred, named by the last part of the template's name, which is what `Slice=` can take of an
    instance (`%j`).

    Raises UnitError for a suffix that needs escaping in a unit's or host's name.
    """
    if not _SUFFIX.fullmatch(suffix):
        raise UnitError(f"{suffix!r}: not what an instance can be called (letters, digits and -)")
    template = runner.stem
    slices: tuple[str, ...] = (SLICE,)
    if runner.is_grouped:
        if suffix:
            template += f"-{int(suffix) // GROUP}" if suffix.isdecimal() else "-named"
        slices += (f"nifty-{template.rpartition('-')[2]}.slice",)
    file = f"{template}{'@' if suffix else ''}.service"
    return Place(unit=file.replace("@", f"@{suffix}"), file=file, slices=slices)


def environment_text(runner: Runner, launch: Launch) -> str:
    """The content of an instance's environment file (systemd.exec(5), EnvironmentFile=).

    Raises UnitError for a bind that is not plain, or that asks for more of the host than libraries
    and data, and for what the runner cannot do.
    """
    if why := runner.refusal(launch):
        raise UnitError(why)
    for bind in launch.binds:
        if why := refusal(bind):
            raise UnitError(why, hint="deploy only images whose manifest you trust")
    lines = [f"{name}={value}" for name, value in runner.variables(launch).items()]
    return "\n".join(["# written by nifty; read when the instance starts", *lines, ""])
