"""A terminal for an instance: its own console while it boots, or a shell in what already runs.

The console is systemd-nspawn's, in the foreground and with the words of the instance's unit, but
without the sandbox that the unit puts around systemd-nspawn itself.
"""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.host import cgroup, images, status, units
from pipeline.host.nspawn import Nspawn
from pipeline.host.runner import SLICE
from pipeline.host.units import group_of, unit_of
from pipeline.image import inittab

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.host.layout import Layout
    from pipeline.host.state import Instance

_START = re.compile(r"^ExecStart=((?:.*\\\n)*.*)$", re.MULTILINE)


class ConsoleError(NiftyError):
    """No terminal for this instance."""


def argv(instance: Instance, layout: Layout, command: str | None = None) -> tuple[str, ...]:
    """The words that give *instance* this terminal; *command* instead of a shell where it runs.

    Raises ConsoleError for one that is stopped and would boot without asking for a login.
    """
    state = status.states((instance,))[instance.name]
    if not state.is_at_rest:
        return _shell(instance, command)
    if command is not None:
        raise ConsoleError(
            f"{instance.name} does not run", hint=f"doit start name={instance.suffix}"
        )
    if not has_getty(layout.root(instance.name)):
        raise ConsoleError(
            f"{instance.name} does not run, and its console asks nobody to log in",
            hint=f"doit start name={instance.suffix}, then this again for a root shell; "
            "or console = true in the recipe of its image",
        )
    return foreground(instance, layout)


def has_getty(root: Path) -> bool:
    """Whether the instance's table of init has an entry for the console, a recipe's or by hand."""
    try:
        text = (root / inittab.PATH).read_text("utf-8", errors="replace")
    except OSError as error:
        raise ConsoleError(f"{root / inittab.PATH}: {error.strerror}") from error
    lines = text.splitlines()
    return any(line.startswith("console:") or line.endswith("/nifty/console") for line in lines)


def foreground(instance: Instance, layout: Layout) -> tuple[str, ...]:
    """The words of systemd-nspawn's unit, this terminal being the console, in a scope of our slice.

    Whatever starts *instance* otherwise: a console is what only systemd-nspawn has.
    """
    runner = Nspawn()
    text = runner.service(layout.prefix, units.programs((runner,)))
    found = _START.search(text)
    if found is None:
        raise ConsoleError(f"{unit_of(instance)}: no ExecStart")
    given = units.binds_of(images.described(layout, instance.image))
    variables = runner.variables(units.launch_of(instance, layout, given))
    started = _expanded(found[1].replace("\\\n", " ").replace("%i", instance.suffix), variables)
    words = ["--console=interactive" if word == "--console=pipe" else word for word in started]
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
    raise ConsoleError(f"{instance.name}: no init runs there", hint="doit status")


def _shell(instance: Instance, command: str | None) -> tuple[str, ...]:
    words = ("/bin/sh", "-l") if command is None else ("/bin/sh", "-c", command)
    return (
        *("nsenter", f"--target={init(instance)}", "--all", "--wdns=/root", "--"),
        *("/bin/env", "-i", f"TERM={os.environ.get('TERM', 'dumb')}", "HOME=/root", "USER=root"),
        *("PATH=/usr/local/bin:/bin", *words),
    )


def _expanded(line: str, variables: Mapping[str, str]) -> list[str]:
    """Words as systemd makes them (systemd.service(5)): ${A} within one, $A alone as many."""
    words = []
    for word in shlex.split(line):
        if word.startswith("$") and word[1:] in variables:
            words += variables[word[1:]].split()
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], word))
    return words
