"""The tasks of a host, and the program that has these alone: installed, or as one file.

In a checkout dodo.py has them beside the build's. `main` is the command `nifty` of what pip
installs, and what a `.pyz` runs; the words are the same: `nifty deploy count=1000`.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

from doit.cmd_base import ModuleTaskLoader
from doit.cmd_help import Help
from doit.cmd_list import List
from doit.cmd_run import Run
from doit.doit_cmd import DoitMain

from pipeline import program, terminal
from pipeline.program import to_type
from pipeline.tasks import misspelt
from pipeline.tasks.actions import Reporter, always, end_tidily, made

if TYPE_CHECKING:
    from collections.abc import Iterator


def task_deploy() -> Any:
    """Deploy instances on this host (count=1000 first=1 | name=slick port=2100; start=yes)"""
    return made(always("deploy"), archives=True)


def task_start() -> Any:
    """Start instances and wait for SSH (all, or count= first=, names=1,7,slick)"""
    return made(always("start"), archives=True)


def task_stop() -> Any:
    """Stop instances (all, or count= first=, names=)"""
    return made(always("stop"), archives=True)


def task_restart() -> Any:
    """Stop and start instances"""
    return made(always("restart"), archives=True)


def task_status() -> Any:
    """Show instances: port, image, running, SSH, memory (format=json)"""
    return made(always("status"), archives=True)


def task_ssh() -> Any:
    """Open a shell in an instance (name=7)"""
    return made(always("ssh"), archives=True)


def task_upgrade() -> Any:
    """Move instances to another image (image=... batch=50), or back (rollback=yes)"""
    return made(always("upgrade"), archives=True)


def task_backup() -> Any:
    """Write instances into one file (to=FILE; all, or count= first=, names=; stop=yes, dry=yes)"""
    return made(always("backup"), archives=True)


def task_restore() -> Any:
    """Make instances of a backup on this host (from=FILE names=1,7 dry=yes start=yes)"""
    return made(always("restore"), archives=True)


def task_undeploy() -> Any:
    """Stop and remove instances (asks, or yes=yes)"""
    return made(always("undeploy"), archives=True)


def task_doctor() -> Any:
    """Show what this host lacks for count=1000; fix=yes mends it, undo=yes takes that back"""
    return made(always("doctor"), archives=True)


def task_shell() -> Any:
    """Open a shell in an image, deployed or not, without root (image=PATH, command="ls /")"""
    return made(always("shell"), archives=True)


def task_console() -> Any:
    """Boot a stopped instance on this terminal, or open a root shell in a running one (name=7)"""
    return made(always("console"), archives=True)


def task_telnet() -> Any:
    """Serve telnet to this host (mode=inetd|forking|socket|off port=12323 listen=127.0.0.1)"""
    return made(always("telnet"), archives=True)


def task_firewall() -> Any:
    """Print rules that open the instances' ports; apply=yes loads them, undo=yes removes them"""
    return made(always("firewall"), archives=True)


def task_verify() -> Any:
    """Check a release as a stranger does, without root (from=FOLDER|URL keyring=FILE rebuild=)"""
    return made(always("verify"), archives=True)


def task_mirror() -> Any:
    """Carry a release elsewhere, verified and whole (from=URL|FOLDER to=FOLDER|URL keyring=FILE)"""
    return made(always("mirror"), archives=True)


def names() -> Iterator[str]:
    """Every task here, which is the command of its name."""
    return (name[5:] for name in sorted(globals()) if name.startswith("task_"))


class _Help(Help):  # type: ignore[misc] # doit has no types
    name = "help"

    @staticmethod
    def print_usage(_commands: object) -> None:
        """What there is; doit's own tells of commands that are not here."""
        tell_usage()


class _Main(DoitMain):  # type: ignore[misc] # doit has no types
    """doit with a host's tasks, and without what is about files that are made of others."""

    DOIT_CMDS = (_Help, Run, List)

    @staticmethod
    def print_version() -> None:
        """The version of nifty."""
        terminal.lines(f"nifty {metadata.version('nifty')}")


def tell_usage() -> None:
    """Print every command with what it does."""
    docs = {name: globals()[f"task_{name}"].__doc__ for name in names()}
    width = max(map(len, docs))
    terminal.lines(
        f"usage: {to_type('COMMAND [VARIABLE=VALUE ...]')}",
        "",
        *(f"  {name:{width}}  {doc}" for name, doc in docs.items()),
    )


def main() -> int:
    """Do what the command line says; its exit code, as doit's."""
    end_tidily()
    misspelt.install(names(), _Main.DOIT_CMDS)
    tasks = {name: thing for name, thing in globals().items() if name.startswith("task_")}
    # nothing is remembered: a host's state is the truth
    config = {
        "default_tasks": [],
        "reporter": Reporter,
        "backend": "sqlite3",
        "dep_file": ":memory:",
        "verbosity": 2,
    }
    _Main.BIN_NAME = program.name()
    # whoever owns the folder that root is in has no say in what is run: no files of settings
    doit = _Main(ModuleTaskLoader({**tasks, "DOIT_CONFIG": config}), config_filenames=())
    return int(doit.run(sys.argv[1:] or ["help"]) or 0)
