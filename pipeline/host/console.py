"""A terminal for an instance: its own console while it boots, or a shell in what already runs.

The console is systemd-nspawn's, in the foreground and with the words of the instance's unit, but
without the sandbox that the unit puts around systemd-nspawn itself.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import beside
from pipeline.errors import NiftyError
from pipeline.host import inside
from pipeline.host.roots import guest
from pipeline.host.state import kept
from pipeline.host.state.layout import locked
from pipeline.host.units import cgroup, sync, unit_files, watch
from pipeline.host.units.nspawn import Nspawn
from pipeline.host.units.runner import SLICE
from pipeline.host.units.unit_files import group_of
from pipeline.image import inittab
from pipeline.program import to_type

if TYPE_CHECKING:
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance

# bytes; an image's own has a few hundred
_MOST_TABLE = 1 << 16


class ConsoleError(NiftyError):
    """No terminal for this instance."""


def check(instance: Instance, layout: Layout, command: str | None = None) -> bool:
    """Whether *instance* runs, so that `shell` and not `foreground` is for it.

    Raises ConsoleError for one that is stopped and has a *command* to run, or would boot without
    asking for a login.
    """
    if not watch.states((instance,))[instance.name].is_at_rest:
        return True
    if command is not None:
        raise ConsoleError(
            f"{instance.name} does not run", hint=to_type(f"start name={instance.suffix}")
        )
    if not has_getty(instance, layout):
        raise ConsoleError(
            f"{instance.name} does not run, and its console asks nobody to log in",
            hint=f"{to_type(f'start name={instance.suffix}')}, then this again for a root shell; "
            "or console = true in the recipe of its image",
        )
    return False


def has_getty(instance: Instance, layout: Layout) -> bool:
    """Whether the instance's table of init has an entry for the console, a recipe's or by hand.

    Raises ConsoleError for a table that cannot be read: the instance's root may have put anything
    there.
    """
    try:
        content = guest.read(layout, instance.name, inittab.PATH, limit=_MOST_TABLE)
    except OSError as error:
        raise ConsoleError(
            f"{layout.prefix}/{instance.name}/{inittab.PATH}: {guest.told(error)}"
        ) from error
    lines = content.decode(errors="replace").splitlines()
    return any(line.startswith("console:") or line.endswith("/nifty/console") for line in lines)


def shell(instance: Instance, layout: Layout, command: str | None = None) -> int:
    """A shell of root in *instance*, which runs, until it ends; its status.

    *command*: what it runs; None: what is typed. It is held by all that holds the instance's init
    (see `inside`), and has a terminal of its own (see `beside`). Raises InsideError,
    ConsoleError, or BesideError.
    """
    program = inside.program(layout.cbin(instance.image) / "busybox")
    held = inside.confinement(init(instance))
    # not a login shell, which would read the instance's /etc/profile
    words = ("sh",) if command is None else ("sh", "-c", command)
    environment = {
        "TERM": os.environ.get("TERM", "dumb"),
        "HOME": "/root",
        "USER": "root",
        "PATH": "/usr/local/bin:/bin",
        "PS1": r"\u@\h:\w\$ ",
    }
    inside.enter(held)
    return beside.run(
        lambda: inside.become(held, program, words, environment),
        keep=(program, *held.namespaces.values()),
    )


def foreground(instance: Instance, layout: Layout) -> tuple[str, ...]:
    """The words of systemd-nspawn's unit, this terminal being the console, in a scope of our slice.

    Whatever starts *instance* otherwise: a console is what only systemd-nspawn has. The unit's
    refusal of clone3(2) is this process's from here on, for whatever is executed next.
    """
    runner = Nspawn()
    with locked(layout):
        sync.furnish(layout, (runner,))
    programs = unit_files.programs((runner,))
    given = unit_files.binds_of(kept.described(layout, instance.image))
    launch = unit_files.launch_of(instance, layout, given)
    words = runner.foreground(layout.prefix, programs, instance.suffix, launch)
    inside.refuse_clone3()
    # a scope cannot be made from a template (systemd.scope(5)), so its name has no @
    scope = f"{runner.stem}-console-{instance.suffix or 'nameless'}.scope"
    return (
        *("systemd-run", "--scope", "--quiet", "--collect", f"--slice={SLICE}"),
        *(f"--unit={scope}", "--property=Delegate=yes", "--", *words),
    )


def init(instance: Instance) -> int:
    """The number that the instance's init has on this host. Raises ConsoleError if none runs."""
    ours = Path("/proc/self/ns/pid").readlink()
    for pid in cgroup.processes(cgroup.hierarchy() / group_of(instance)):
        with suppress(OSError):  # ended while we look
            lines = Path(f"/proc/{pid}/status").read_text("utf-8", errors="replace").splitlines()
            inside = next(line for line in lines if line.startswith("NSpid:")).split()[-1]
            if inside == "1" and Path(f"/proc/{pid}/ns/pid").readlink() != ours:
                return pid
    raise ConsoleError(f"{instance.name}: no init runs there", hint=to_type("status"))
